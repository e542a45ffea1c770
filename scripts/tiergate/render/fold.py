"""Long lines at a terminal: folded between words, below where they begin."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TextIO

_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*")+""")


def columns(stream: TextIO | None = None) -> int:
    """Return how wide a stream is, by default standard output: endless, where it is no terminal."""
    terminal = (stream or sys.stdout).isatty()
    return shutil.get_terminal_size().columns if terminal else sys.maxsize


def words(begin: str, text: str, width: int) -> list[str]:
    """Return ``text`` behind ``begin``, in lines of at most ``width`` columns where words allow."""
    lines = textwrap.wrap(
        text,
        max(20, width - len(begin)),
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
    return [
        f"{' ' * len(begin) if number else begin}{line}"
        for number, line in enumerate(lines or [""])
    ]


def command(begin: str, line: str, width: int) -> list[str]:
    """Return a shell command behind ``begin``: what is folded can still be pasted as it stands."""
    if len(begin) + len(line) <= width:
        return [begin + line]
    found: list[str] = _WORD.findall(line)
    # What is no row of plain words, or has a comment, which no backslash goes on with, stays whole.
    if " ".join(found) != line or any(word.startswith("#") for word in found):
        return [begin + line]
    lines = [begin]
    room = width - len(" \\")
    for word in _together(found):
        if lines[-1].strip() and lines[-1] != begin and len(lines[-1]) + 1 + len(word) > room:
            lines[-1] += " \\"
            lines.append(" " * (len(begin) + 2))
        lines[-1] += word if lines[-1].endswith(" ") else f" {word}"
    return lines


def _together(found: list[str]) -> list[str]:
    """Return words where an option of one letter and what follows it are one."""
    units: list[str] = []
    for word in found:
        if units and re.fullmatch("-[a-zA-Z]", units[-1]) and not word.startswith("-"):
            units[-1] += f" {word}"
        else:
            units.append(word)
    return units
