"""Spreads cells, and the files of test suites, over shards of about equal duration. Pure.

Longest first, each to the shard that would be done with it earliest: at most a third longer than
the best spread, and near it where no single piece is long. A given history gives a given plan.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from statistics import median
from typing import Any

import msgspec

from tiergate import checkers
from tiergate.plan import Cell
from tiergate.sessions.files import TEST_FILES, is_test_file
from tiergate.shards import Assignment, DevicePlan

UNKNOWN = 1.0
"""Seconds of a cell or file, where nothing is known of any."""

# So much longer is about the same.
_ABOUT = 1.02
# A session that stops at a failure stops elsewhere in a part of its files.
_STOPPING = ("-x", "--exitfirst", "--maxfail", "--sw", "--stepwise", "--stepwise-skip")


class Durations(msgspec.Struct, frozen=True):
    """What earlier runs took, in seconds."""

    cells: Mapping[str, float] = {}
    files: Mapping[str, Mapping[str, float]] = {}
    """Cell → file → seconds of its collection and its tests."""

    def cell(self, name: str, files: Sequence[str] = ()) -> float:
        """Return a cell's seconds; of one that is not known, what its files take, or the median."""
        if name in self.cells or not files:
            return self.cells.get(name) or median(self.cells.values() or [UNKNOWN])
        return sum(self.of_files(name, files).values()) + self.overhead(name)

    def of_files(self, cell: str, names: Sequence[str]) -> dict[str, float]:
        """Return the seconds of a cell's files; of those that are not known, the median."""
        known = self.files.get(cell, {})
        usual = median([known[name] for name in names if name in known] or [UNKNOWN])
        return {name: known.get(name, usual) for name in names}

    def overhead(self, cell: str) -> float:
        """Return what a session takes besides its files: once for each shard that has a part."""
        files = sum(self.files.get(cell, {}).values())
        return max(0.0, self.cells[cell] - files) if cell in self.cells else UNKNOWN / 2


class _Piece(msgspec.Struct, frozen=True):
    """What goes to one shard: a whole cell, or some files of it."""

    seconds: float
    cell: str
    files: tuple[str, ...] = ()
    overhead: float = 0.0


def spread(
    cells: Sequence[Cell],
    head: Sequence[Cell],
    shards: int,
    files: Mapping[str, Sequence[str]],
    durations: Durations,
) -> DevicePlan:
    """Spread the cells of one device.

    Each shard that has a part of a cell pays for a session of its own: of plans that end at about
    the same time, the one that splits fewer cells is taken.

    Args:
        cells: all cells of the device.
        head: the head's own cells, which are not split.
        shards: how many there may be; fewer are used where there are not so many pieces.
        files: cell → the test files that it can be split by, of the cells that can be.
        durations: of earlier runs.
    """
    largest = sorted(
        (name for name, found in files.items() if len(found) > 1),
        key=lambda name: (-sum(durations.of_files(name, files[name]).values()), name),
    )
    plans = [
        _longest_first(cells, head, shards, files, frozenset(largest[:count]), durations)
        for count in range(len(largest) + 1)
    ]
    best = min(max(plan.seconds, default=0.0) for plan in plans)
    return next(plan for plan in plans if max(plan.seconds, default=0.0) <= best * _ABOUT)


def _longest_first(
    cells: Sequence[Cell],
    head: Sequence[Cell],
    shards: int,
    files: Mapping[str, Sequence[str]],
    split: Collection[str],
    durations: Durations,
) -> DevicePlan:
    """Give each piece, the longest first, to the shard that would be done with it earliest."""
    pieces = [piece for cell in cells for piece in _pieces(cell, files, split, durations)]
    own = {f"head {cell.name}": cell.name for cell in head}
    pieces += [_Piece(durations.cell(cell), name) for name, cell in own.items()]
    loads = [0.0] * shards
    owners: dict[str, dict[str, int]] = defaultdict(dict)
    whole: dict[str, int] = {}
    started: set[tuple[str, int]] = set()
    for piece in sorted(pieces, key=lambda piece: -piece.seconds):
        ends = [
            load + piece.seconds + (0.0 if (piece.cell, at) in started else piece.overhead)
            for at, load in enumerate(loads)
        ]
        best = min(range(shards), key=lambda at: (round(ends[at], 6), at))
        loads[best] = ends[best]
        started.add((piece.cell, best))
        if piece.files:
            owners[piece.cell] |= dict.fromkeys(piece.files, best)
        else:
            whole[piece.cell] = best
    used = sorted({at for _, at in started})
    number = {at: index for index, at in enumerate(used, start=1)}
    given: dict[str, Assignment] = {}
    for cell in cells:
        split = {file: number[owner] for file, owner in sorted(owners[cell.name].items())}
        alone = min(split.values()) if split else number[whole[cell.name]]
        given[cell.name] = Assignment(alone, split if len(set(split.values())) > 1 else {})
    return DevicePlan(
        count=max(1, len(used)),
        cells=given,
        head={cell: number[whole[name]] for name, cell in own.items()},
        seconds=[round(loads[at], 3) for at in used],
    )


def _pieces(
    cell: Cell, files: Mapping[str, Sequence[str]], split: Collection[str], durations: Durations
) -> list[_Piece]:
    names = files.get(cell.name, ())
    if cell.name not in split:
        return [_Piece(durations.cell(cell.name, names), cell.name)]
    seconds = durations.of_files(cell.name, names)
    overhead = durations.overhead(cell.name)
    # Without packages, two modules of one name cannot be collected together: that must still show.
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[PurePosixPath(name).name].append(name)
    return [
        _Piece(sum(seconds[name] for name in group), cell.name, tuple(group), overhead)
        for group in groups.values()
    ]


def files_of(
    cells: Sequence[Cell], present: Sequence[str], folders: Collection[str]
) -> dict[str, list[str]]:
    """Return the test files by which cells can be split; a cell that cannot be is left out.

    Args:
        cells: the cells.
        present: the files of the repository, sorted.
        folders: the folders that have some of them.
    """
    found = {}
    known = frozenset(present)
    for cell in cells:
        parameters: dict[str, Any] = msgspec.to_builtins(cell.criterion.parameters)
        if checkers.splittable(cell.criterion.uses) is None or _stops(parameters["args"]):
            continue
        paths = [os.path.normpath(path) for path in parameters["paths"]]
        # A test by its id, or what does not exist, is not a matter of files.
        if not all(path in known or path in folders or path == "." for path in paths):
            continue
        below = tuple(f"{path}/" for path in paths if path not in known)
        everything = "." in paths
        found[cell.name] = [
            name
            for name in present
            if name in paths
            or ((everything or name.startswith(below)) and is_test_file(name, TEST_FILES))
        ]
    return found


def folders_of(present: Collection[str]) -> set[str]:
    """Return the folders that have files, at any depth."""
    return {str(folder) for name in present for folder in PurePosixPath(name).parents}


def _stops(arguments: Sequence[str]) -> bool:
    return any(argument.split("=")[0] in _STOPPING for argument in arguments)
