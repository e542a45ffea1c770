"""Evaluates cells in threads, as their schedule says, and makes verdicts of what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from tiergate import judge
from tiergate.candidate import Candidate
from tiergate.plan import Cell
from tiergate.processes import Cancellation
from tiergate.schedule import GpuMemory, Schedule
from tiergate.verdict import PASSING, Part, Verdict

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from tiergate.runner import Listener

Found = Verdict | Part
"""What comes of a cell: its verdict, or a shard's part of it."""

_TICK = 0.2


class CellRun:
    """One run over the cells of a leg.

    Args:
        cells: what is to be evaluated, the longest first.
        candidate: what is judged; its cancellation ends the run.
        jobs: how many cells at a time.
        listener: is told what happens.
        evaluate: evaluates a cell in a thread, until the cancellation that it is given.
        known: verdicts that need no evaluation, by cell.
        parts: the cells of which only a part is evaluated.
        memory: of the GPU; None where the leg has none.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        candidate: Candidate,
        jobs: int,
        listener: Listener,
        evaluate: Callable[[Cell, Cancellation], Found],
        *,
        known: Mapping[str, Verdict],
        parts: Collection[str] = (),
        memory: GpuMemory | None = None,
    ) -> None:
        self.found: dict[str, Found] = {}
        """What came of the cells, in the order of their ends."""
        self.dropped: set[str] = set()
        """Cells that began early, and of which nothing counts."""
        self._cells = cells
        self._candidate = candidate
        self._jobs = jobs
        self._listener = listener
        self._evaluate = evaluate
        self._known = known
        self._schedule = Schedule(cells, jobs=jobs, parts=parts, memory=memory)
        self._waiting = list(cells)
        self._running: dict[Future[Found], Cell] = {}
        self._early: dict[str, Cancellation] = {}
        """Cells that began before what they need had its verdict, and how they are ended."""
        self._held: dict[str, Found] = {}
        """Of these, what came of those that ended since."""
        self._placed: dict[str, tuple[float, int]] = {}
        self._began = time.monotonic()
        self._threads = ExitStack()
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self) -> None:
        """Evaluate all; after a cancellation those that had not begun are left out."""
        cancellation = self._candidate.cancellation
        with self._threads:
            try:
                while self._waiting or self._running or self._early:
                    if cancellation.requested:
                        self._waiting.clear()
                        self.dropped |= self._early.keys()
                        self._early.clear()
                    self._settle()
                    for cell in list(self._waiting):
                        self._consider(cell)
                    self._collect()
            except BaseException as error:
                # Whoever listens is gone, for example: what runs would be waited for.
                cancellation.cancel(f"stopped by {type(error).__name__}")
                raise

    def _consider(self, cell: Cell) -> None:
        """Begin a cell that waits, or give it its verdict, if it is time."""
        answer = self._schedule.answer(cell)
        if answer == "blocked":
            self._waiting.remove(cell)
            self._block(cell)
        elif cell.name in self._known:
            if self._schedule.complete(cell):
                self._waiting.remove(cell)
                self._finish(self._known[cell.name])
        elif answer != "wait":
            self._waiting.remove(cell)
            own = Cancellation(self._candidate.cancellation)
            if answer == "begin early":
                self._early[cell.name] = own
            taken = {self._placed[c.name][1] for c in self._running.values()}
            slot = next(n for n in range(self._jobs) if n not in taken)
            self._placed[cell.name] = (time.monotonic() - self._began, slot)
            self._schedule.begin(cell)
            self._listener.started(cell.name)
            if self._pool is None:
                self._pool = self._threads.enter_context(_threads(self._jobs))
            self._running[self._pool.submit(self._evaluate, cell, own)] = cell

    def _settle(self) -> None:
        """Of the cells that began early, end those that are blocked and let the others count."""
        for cell in [cell for cell in self._cells if cell.name in self._early]:
            if self._schedule.unmet(cell):
                self._early.pop(cell.name).cancel("what it needs did not pass")
                self._held.pop(cell.name, None)
                self.dropped.add(cell.name)
                self._block(cell)
            elif self._schedule.complete(cell):
                del self._early[cell.name]
                if cell.name in self._held:
                    self._finish(self._held.pop(cell.name))

    def _collect(self) -> None:
        """Wait a moment for a cell to end; take over what came of it."""
        if not self._running:
            return
        for future in _ended(self._running):
            cell = self._running.pop(future)
            self._schedule.end(cell)
            if cell.name in self._early:
                self._held[cell.name] = future.result()
            elif cell.name not in self.dropped:
                self._finish(future.result())

    def _block(self, cell: Cell) -> None:
        """Give a cell the verdict of one that never began."""
        reason = f"needs {', '.join(self._schedule.unmet(cell))}, which did not pass"
        criterion, device = cell.criterion, cell.device
        self._finish(judge.not_run(criterion, device, "blocked", reason, self._candidate))

    def _finish(self, found: Found) -> None:
        if isinstance(found, Part):
            self.found[found.cell] = found
            self._listener.observed(found)
            return
        started, slot = time.monotonic() - self._began, 0
        if found.cell not in self.dropped:
            started, slot = self._placed.get(found.cell, (started, slot))
        verdict = msgspec.structs.replace(found, started=round(started, 3), slot=slot)
        self.found[verdict.cell] = verdict
        self._schedule.decide(verdict.cell, passed=verdict.status in PASSING)
        self._listener.finished(verdict)


def _threads(jobs: int) -> ThreadPoolExecutor:
    """Return the threads that evaluate cells."""
    # Slow to import, and not needed where every cell has its answer.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    return ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="cell")


def _ended(running: Collection[Future[Found]]) -> set[Future[Found]]:
    """Return the evaluations that have ended; wait a moment for the first of them."""
    from concurrent.futures import FIRST_COMPLETED, wait  # noqa: PLC0415 - as above

    return wait(running, timeout=_TICK, return_when=FIRST_COMPLETED).done
