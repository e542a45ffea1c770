"""The resolver as a checker uses it: what it says of each file, as plain data."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tiergate.loads.calls import Policy
from tiergate.loads.project import Project

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass
class Place:
    """A place in a file that is not provably safe."""

    line: int
    """From 1."""
    column: int
    """In characters, from 1."""
    verdict: str
    message: str
    fixable: bool = False


@dataclass
class Seen:
    """What the resolver says of one file."""

    places: list[Place] = field(default_factory=list)
    safe: list[tuple[int, int]] = field(default_factory=list)
    """Lines and columns, as above, where torch.load is named and provably called safely."""


@dataclass
class Scan:
    """What the resolver says of all files."""

    seen: dict[str, Seen] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def scan(sources: Mapping[str, bytes], wanted: Iterable[str], policy: Policy) -> Scan:
    """Resolve every use of ``torch.load`` in the wanted files.

    Args:
        sources: the Python of the repository by path; modules are looked up in all of it.
        wanted: the files to judge.
        policy: ``explicit``, or ``floor-2.6`` under which an omitted ``weights_only`` is True.
    """
    # Trees are many small objects in no cycles: looking for cycles among them takes most time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        analysis = Project(sources, policy).analyse(wanted)
    finally:
        if collecting:
            gc.enable()
    result = Scan(unreadable=list(analysis.unreadable.values()))
    for path, found in analysis.results.items():
        if not found.findings and not found.safe:
            continue
        lines = _LINE_END.split(sources[path])
        result.seen[path] = Seen(
            [
                Place(f.place[0], _column(lines, f.place), f.verdict, f.message, f.fixable)
                for f in found.findings
            ],
            sorted((place[0], _column(lines, place)) for place in found.safe),
        )
    return result


def _column(lines: list[bytes], place: tuple[int, int]) -> int:
    """Return a column in characters, from 1, for one in bytes, from 0."""
    line = lines[place[0] - 1] if place[0] <= len(lines) else b""
    return len(line[: place[1]].decode("utf-8", "replace")) + 1
