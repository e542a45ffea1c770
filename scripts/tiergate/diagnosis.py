"""What a doctor finds: one line each, and how to mend what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tiergate.errors import ExitCode
from tiergate.render import fold
from tiergate.render.text import printable

State = Literal["ok", "note", "problem", "unknown"]


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    state: State
    """``note``: worth knowing, harmless for the purpose; ``unknown``: could not be looked at."""
    name: str
    found: str
    mend: str = ""


def exit_code(lines: Iterable[Line]) -> ExitCode:
    """Return 0 if all is well, 1 if there is a problem, 3 if something could not be looked at."""
    states = {line.state for line in lines}
    if "problem" in states:
        return ExitCode.FAILED
    return ExitCode.PASSED if states and "unknown" not in states else ExitCode.NOT_EVALUATED


def render(lines: Iterable[Line], columns: int = sys.maxsize) -> str:
    """Return the lines as text for a terminal of so many columns."""
    shown = []
    for line in lines:
        begin = f"{line.state:<8} {printable(line.name):<16} "
        for part in printable(line.found).split("\n"):
            shown += fold.words(begin, part, columns)
            begin = " " * len(begin)
        if line.mend:
            shown += fold.words(f"{begin}→ ", printable(line.mend), columns)
    return "\n".join(shown)
