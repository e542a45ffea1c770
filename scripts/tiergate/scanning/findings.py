"""What semgrep and the resolver saw, put together."""

from __future__ import annotations

import msgspec

from tiergate.python_files import Inventory, PythonFile
from tiergate.scanning.rules import RESOLVED
from tiergate.verdict import Finding


class Found(msgspec.Struct):
    """What one of the two saw, before both are put together."""

    rule: str
    path: str
    line: int
    """In the Python that was read: of a notebook, in what was extracted."""
    column: int
    message: str
    by: str


def together(
    inventory: Inventory,
    resolved: list[Found],
    safe: set[tuple[str, int, int]],
    matched: list[Found],
) -> tuple[list[Finding], int]:
    """Put together what both saw; what the resolver proves safe is no finding."""
    at = {(one.path, one.line, one.column): one for one in resolved}
    on = {(one.path, one.line): one for one in resolved}
    both: set[int] = set()
    alone: list[Found] = []
    cleared = 0
    for match in matched:
        place = (match.path, match.line, match.column)
        if match.rule != RESOLVED:
            alone.append(match)
        elif place in at:
            both.add(id(at[place]))
        elif place in safe:
            cleared += 1
        elif place[:2] in on:
            both.add(id(on[place[:2]]))
        else:
            alone.append(match)
    found = [
        Finding(
            rule=one.rule,
            path=one.path,
            line=inventory.files[one.path].line(one.line),
            column=one.column,
            message=_message(one, both=id(one) in both, file=inventory.files[one.path]),
            code=inventory.files[one.path].code(one.line),
        )
        for one in (*resolved, *alone)
    ]
    return sorted(found, key=lambda f: (f.path, f.line, f.column, f.rule)), cleared


def _message(one: Found, *, both: bool, file: PythonFile) -> str:
    text = one.message
    if one.rule == RESOLVED:
        text += f" [seen by {'semgrep and the resolver' if both else one.by}]"
    return text if file.lines is None else f"in a notebook: {text}"
