"""The lines around a failure or finding, kept in the report: it is read where the code is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TypeVar

import msgspec

from tiergate.repository import Repository
from tiergate.verdict import Excerpt, Failure, Finding

AROUND = 4
"""Lines before and after."""
MOST = 40
"""Places of one verdict that are shown with their lines."""
_LONGEST_LINE = 240
_LARGEST_FILE = 2_000_000

_Place = TypeVar("_Place", Failure, Finding)


def attach(repository: Repository, places: Sequence[_Place]) -> list[_Place]:
    """Return the places, the first of them with the lines around."""
    files: dict[str, list[str]] = {}
    found = []
    for number, place in enumerate(places):
        if number < MOST and place.path and place.line:
            if place.path not in files:
                files[place.path] = _lines(repository, place.path)
            excerpt = _around(files[place.path], place.line)
            found.append(msgspec.structs.replace(place, source=excerpt))
        else:
            found.append(place)
    return found


def _lines(repository: Repository, path: str) -> list[str]:
    """Return a file's lines; none for what is outside the repository or cannot be read."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path or repository.leaves(path):
        return []
    file = repository.root / path
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_FILE:
            return []
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _around(lines: list[str], line: int) -> Excerpt | None:
    if not 1 <= line <= len(lines):
        return None
    first = max(1, line - AROUND)
    shown = lines[first - 1 : line + AROUND]
    return Excerpt(first, [text[:_LONGEST_LINE] for text in shown])
