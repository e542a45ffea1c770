"""Which cell begins next: the longest first, as far as needs and the GPU's memory allow. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from tiergate import checkers
from tiergate.plan import Cell
from tiergate.spec import Criterion

Answer = Literal["begin", "begin early", "blocked", "wait"]

_PREPARING = frozenset({"command", "script"})
"""Built-in kinds that run programs: what they leave may be what others read."""


class GpuMemory:
    """The memory of one GPU that the cells running on it share.

    A cell that does not say how much it takes, or says more than there is, has it for itself.

    Args:
        free: GB that are there to be shared.
    """

    def __init__(self, free: float) -> None:
        self._free = free
        self._taken: dict[str, float] = {}

    def fits(self, cell: Cell) -> bool:
        """Tell whether a cell may begin beside those that run."""
        wanted = _gpu_memory(cell)
        return wanted is None or not self._taken or sum(self._taken.values()) + wanted <= self._free

    def take(self, cell: Cell) -> None:
        """Count a cell that begins."""
        if (wanted := _gpu_memory(cell)) is not None:
            self._taken[cell.name] = wanted

    def give_back(self, cell: Cell) -> None:
        """Count a cell no more."""
        self._taken.pop(cell.name, None)


class Schedule:
    """Decides over the cells of one leg; it starts nothing.

    A cell that only imports or collects begins before what it needs has its verdict: ``needs``
    decides what its verdict is, not when the work is done. One that runs tests or programs waits,
    because they leave things behind; so does one of a higher tier, and one that needs a kind that
    prepares things for others.

    Args:
        cells: all that are to be evaluated, the longest first.
        jobs: how many at a time.
        parts: the names of those that wait for nothing, because they are no verdict yet.
        memory: of the GPU; None where the leg has none.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        jobs: int,
        parts: Collection[str] = (),
        memory: GpuMemory | None = None,
    ) -> None:
        self._jobs = jobs
        self._memory = memory
        self._cells = {cell.name: cell for cell in cells}
        self._parts = frozenset(parts)
        self._passed: dict[str, bool] = {}
        self._running: set[str] = set()
        self._early: set[str] = set()

    def unmet(self, cell: Cell) -> list[str]:
        """Return the needs of a cell that did not pass."""
        return [need for need in self._needs(cell) if self._passed.get(need) is False]

    def complete(self, cell: Cell) -> bool:
        """Tell whether everything that a cell needs has passed."""
        return all(self._passed.get(need) for need in self._needs(cell))

    def answer(self, cell: Cell) -> Answer:
        """Say what is to be done with a cell that has not begun."""
        if self.unmet(cell):
            return "blocked"
        if len(self._running) >= self._jobs:
            return "wait"
        if self._memory is not None and not self._memory.fits(cell):
            return "wait"
        if self.complete(cell):
            return "begin"
        # One place is kept for what decides; with one job all go by their needs.
        early = len(self._early & self._running) < self._jobs - 1 and self._may_begin_early(cell)
        return "begin early" if early else "wait"

    def begin(self, cell: Cell) -> None:
        """Count a cell as running."""
        self._running.add(cell.name)
        if not self.complete(cell):
            self._early.add(cell.name)
        if self._memory is not None:
            self._memory.take(cell)

    def end(self, cell: Cell) -> None:
        """Count a cell as running no more, whether or not it has its verdict."""
        self._running.discard(cell.name)
        if self._memory is not None:
            self._memory.give_back(cell)

    def decide(self, name: str, *, passed: bool) -> None:
        """Note a cell's verdict."""
        self._passed[name] = passed

    def _needs(self, cell: Cell) -> Iterable[str]:
        if cell.name in self._parts:
            return ()
        return [need for need in cell.needs if need in self._cells and need not in self._parts]

    def _may_begin_early(self, cell: Cell) -> bool:
        return _leaves_nothing(cell.criterion) and all(
            self._cells[need].tier == cell.tier and not _prepares(self._cells[need].criterion)
            for need in self._open_needs(cell)
        )

    def _open_needs(self, cell: Cell) -> set[str]:
        """Return what has no verdict yet of what a cell needs, and of what that needs in turn."""
        found: set[str] = set()
        waiting = [cell]
        while waiting:
            for need in self._needs(waiting.pop()):
                if need not in self._passed and need not in found:
                    found.add(need)
                    waiting.append(self._cells[need])
        return found


def _leaves_nothing(criterion: Criterion) -> bool:
    """Tell whether a criterion's evaluation can be ended at any time as if it had never begun."""
    collects = criterion.uses == "pytest" and getattr(criterion.parameters, "collect_only", False)
    return collects or criterion.uses in {"imports", "collection"}


def _prepares(criterion: Criterion) -> bool:
    return criterion.uses in _PREPARING or criterion.uses not in checkers.BUILT_IN


def _gpu_memory(cell: Cell) -> float | None:
    """Return how many GB of a GPU a cell takes: all where it does not say, None for none."""
    if cell.device != "cuda" or cell.criterion.uses in checkers.STATIC:
        return None
    return cell.criterion.gpu_memory or math.inf
