"""Runs the cells of one leg: learns of interpreter and device, then evaluates cell by cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from tiergate import checkers, excerpts, judge
from tiergate.baseline import Baseline, against
from tiergate.candidate import Candidate
from tiergate.cell_run import CellRun, Found
from tiergate.checkers import Checker, Context, Observation, Share, Timings
from tiergate.errors import UserError
from tiergate.fields import Device
from tiergate.plan import Cell
from tiergate.processes import Cancellation
from tiergate.schedule import GpuMemory
from tiergate.verdict import Part, Verdict

if TYPE_CHECKING:
    from tiergate.cache_cells import Session

DEVICE_TIMEOUT = 120.0
"""Seconds that the proof of a device, or the environment's fingerprint, may take."""

_NO_SHARES: Mapping[str, Share] = {}


class Listener(Protocol):
    """Is told what happens, for a person who watches."""

    def started(self, cell: str) -> None:
        """A cell's evaluation began."""

    def progress(self, cell: str, what: str) -> None:
        """A cell now evaluates ``what``: a test's node id, for example."""

    def expected(self, cell: str, tests: int) -> None:
        """A cell is about to evaluate so many tests."""

    def finished(self, verdict: Verdict) -> None:
        """A cell has its verdict."""

    def observed(self, part: Part) -> None:
        """A shard's part of a cell is evaluated."""


class LegResult(msgspec.Struct):
    """What came of a leg."""

    verdicts: list[Verdict] = []
    parts: list[Part] = []
    timings: dict[str, Timings] = {}
    """Of the cells that were started."""
    environment: dict[str, str] = {}
    device_proof: dict[str, str] = {}
    gpu_memory: float = 0.0
    """GB of the GPU's memory that were free when its proof was made."""


def run_leg(
    planned: list[Cell],
    candidate: Candidate,
    *,
    device: Device,
    selected: Collection[str],
    jobs: int,
    listener: Listener,
    baseline: Baseline | None = None,
    judged: Callable[[Verdict], Verdict] = lambda verdict: verdict,
    answers: Mapping[str, Verdict] | None = None,
    session: Session | None = None,
    shares: Mapping[str, Share] = _NO_SHARES,
    expected: Callable[[str], float] = lambda _: 0.0,
) -> LegResult:
    """Evaluate the selected cells of a leg; the verdicts come in the order of the plan.

    A cell whose needs were selected and did not pass is ``blocked``, also where its evaluation had
    begun already; whether one of which this is
    only a part does, is known when the shards are put together. After a cancellation no cell
    is started any more; those without a verdict are simply missing from the result.

    Args:
        planned: the leg's cells.
        candidate: what is judged.
        device: the leg's device.
        selected: names of the cells to evaluate.
        jobs: how many at a time.
        listener: is told what happens.
        baseline: what the base branch has.
        judged: what is done to a verdict before anything depends on it, such as waivers.
        answers: verdicts of an earlier run that still hold, by cell.
        session: is told what the evaluated cells read.
        shares: cell → the part of it that is evaluated here, where that is not the whole.
        expected: how many seconds a cell is expected to take: the longest is started first.
    """
    result = LegResult()
    wanted = [cell for cell in planned if cell.name in selected]
    answers = answers or {}
    if reason := _identify(
        result, candidate, device, session, all(c.name in answers for c in wanted)
    ):
        return _nothing_runs(result, wanted, candidate, reason, listener, shares)
    evaluate = Evaluation(candidate, listener, baseline, judged, session, shares, result.timings)
    known = {name: judged(verdict) for name, verdict in answers.items()}
    waiting = [cell for cell in wanted if cell.name not in known]
    if len(waiting) > 1:  # for one alone, the history need not be read
        waiting.sort(key=lambda cell: -expected(cell.name))
    run = CellRun(
        [*waiting, *(cell for cell in wanted if cell.name in known)],
        candidate,
        jobs,
        listener,
        evaluate,
        known=known,
        parts=shares,
        memory=GpuMemory(result.gpu_memory) if device == "cuda" else None,
    )
    run()
    ordered = [run.found[cell.name] for cell in wanted if cell.name in run.found]
    result.timings = {name: t for name, t in evaluate.timings.items() if name not in run.dropped}
    result.verdicts = [found for found in ordered if isinstance(found, Verdict)]
    result.parts = [found for found in ordered if isinstance(found, Part)]
    return result


def _identify(
    result: LegResult,
    candidate: Candidate,
    device: Device,
    session: Session | None,
    answered: bool,
) -> str:
    """Learn of the environment and the device; return why no cell can be evaluated, if so."""
    known = session.environment if session is not None else None
    if known is not None:
        result.environment = known.values
        if device == "cpu" or answered:
            result.device_proof = known.proof if device == "cuda" else {}
            return ""
    # By a process of its own: the warm interpreter is still busy with its imports.
    fresh = msgspec.structs.replace(candidate, warm=None)
    found = fresh.run_job("environment", device, DEVICE_TIMEOUT, {})
    if found.problem:
        reason = f"the candidate's interpreter {candidate.python} did not answer: {found.problem}"
        return f"{reason}\n{found.output[-2000:]}".strip()
    result.environment = found.of("environment")[0]["values"]
    if device == "cuda":
        proof = fresh.run_job("cuda", device, DEVICE_TIMEOUT, {})
        if not proof.of("device") or proof.problem:
            said = proof.problem or proof.of("no-device")[0]["reason"]
            return f"no usable CUDA device: {said}"
        result.device_proof = proof.of("device")[0]["values"]
        result.gpu_memory = proof.of("device")[0]["free"] / 1e9
    if session is not None:
        folders = found.of("search")[0]["folders"]
        session.learn(result.environment, folders, result.device_proof)
    return ""


def unjudged(
    wanted: list[Cell],
    candidate: Candidate,
    reason: str,
    listener: Listener,
    judged: Callable[[Verdict], Verdict],
) -> LegResult:
    """Return an error for each cell of a leg that nobody can evaluate; waivers may accept it."""
    result = LegResult()
    for cell in wanted:
        raw = judge.not_run(cell.criterion, cell.device, "error", reason, candidate)
        result.verdicts.append(judged(raw))
        listener.finished(result.verdicts[-1])
    return result


def _nothing_runs(
    result: LegResult,
    wanted: list[Cell],
    candidate: Candidate,
    reason: str,
    listener: Listener,
    shares: Collection[str],
) -> LegResult:
    if candidate.cancellation.requested:
        return result
    for cell in wanted:
        if cell.name in shares:
            part = Part(criterion=cell.criterion.id, device=cell.device, error=reason)
            result.parts.append(part)
            listener.observed(part)
            continue
        verdict = judge.not_run(cell.criterion, cell.device, "error", reason, candidate)
        result.verdicts.append(verdict)
        listener.finished(verdict)
    return result


class Evaluation(msgspec.Struct, frozen=True):
    """Evaluates one cell, in whichever thread."""

    candidate: Candidate
    listener: Listener
    baseline: Baseline | None
    judged: Callable[[Verdict], Verdict]
    session: Session | None = None
    shares: Mapping[str, Share] = {}
    timings: dict[str, Timings] = {}

    def __call__(self, cell: Cell, cancellation: Cancellation) -> Found:
        """Evaluate a cell, or the shard's part of it; whatever goes wrong is told by it, too."""
        if cell.name in self.shares:
            return self.part(cell, cancellation)
        return self.verdict(cell, cancellation)

    def _context(self, cell: Cell, cancellation: Cancellation | None) -> Context:
        def progress(what: str) -> None:
            self.listener.progress(cell.name, what)

        def expected(tests: int) -> None:
            self.listener.expected(cell.name, tests)

        timings = self.timings[cell.name] = Timings()
        share = self.shares.get(cell.name)
        candidate = self.candidate
        if cancellation is not None:
            candidate = msgspec.structs.replace(candidate, cancellation=cancellation)
        if self.session is not None:
            candidate = self.session.watched(cell, candidate)
        return Context(
            cell.criterion,
            candidate,
            cell.device,
            progress,
            expected,
            self.baseline,
            share,
            timings,
        )

    def part(self, cell: Cell, cancellation: Cancellation | None = None) -> Part:
        """Evaluate the shard's part of a cell."""
        context = self._context(cell, cancellation)
        started = time.monotonic()
        criterion = cell.criterion
        none = Part(criterion=criterion.id, device=cell.device)
        checker = checkers.splittable(criterion.uses)
        if checker is None:
            error = f"{criterion.uses} criteria cannot be shared by shards"
            return msgspec.structs.replace(none, error=error)
        try:
            part = checker.part(criterion.parameters, context)
            if context.share and context.share.rest and criterion.needs_base and self.baseline:
                part = msgspec.structs.replace(part, base=self.baseline.tests(context))
        except UserError as error:
            part = msgspec.structs.replace(none, error=str(error))
        except BaseException as error:  # noqa: BLE001 - what a checker raises is never a pass
            failed = _failed(cell, error)
            part = msgspec.structs.replace(none, error=failed.error, output=failed.output)
        repository = self.candidate.repository
        collection, run = part.collection, part.run
        return msgspec.structs.replace(
            part,
            collection=msgspec.structs.replace(
                collection, failures=excerpts.attach(repository, collection.failures)
            ),
            run=msgspec.structs.replace(run, failures=excerpts.attach(repository, run.failures)),
            seconds=round(time.monotonic() - started, 3),
            reproduce=judge.commands(context, checker),
        )

    def verdict(self, cell: Cell, cancellation: Cancellation | None = None) -> Verdict:
        """Evaluate and judge a cell; ``cancellation`` ends it in place of the candidate's."""
        context = self._context(cell, cancellation)
        checker = checkers.get(cell.criterion.uses)
        started = time.monotonic()
        try:
            observation = self._observe(checker, context)
        except UserError as error:
            observation = Observation(error=str(error))
        except BaseException as error:  # noqa: BLE001 - what a checker raises is never a pass
            observation = _failed(cell, error)
        seconds = time.monotonic() - started
        try:
            verdict = judge.judge(context, checker, observation, seconds)
        except Exception as error:  # noqa: BLE001 - as above, for what it returned
            verdict = judge.judge(context, checker, _failed(cell, error), seconds)
        return self.judged(verdict)

    def _observe(self, checker: Checker, context: Context) -> Observation:
        criterion = context.criterion
        if criterion.needs_base and self.baseline is None:
            return Observation(
                error="expects no less than the base branch has: name the base with --base REF"
            )
        observation = checker.observe(criterion.parameters, context)
        if not criterion.needs_base or self.baseline is None or observation.error:
            return observation
        return against(self.baseline.tests(context), observation, criterion)


def _failed(cell: Cell, error: BaseException) -> Observation:
    import traceback  # noqa: PLC0415 - only for a fault

    return Observation(
        error=f"the checker {cell.criterion.uses} failed: {type(error).__name__}: {error}",
        output="".join(traceback.format_exception(error)),
    )
