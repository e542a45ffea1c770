"""One leg from its spec to its report: what ``tiergate run`` does, without the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from datetime import date, datetime, timezone
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from tiergate import (
    __version__,
    base,
    checkers,
    drift,
    history,
    plan,
    runner,
    touched,
    verdict,
    waivers,
)
from tiergate.baseline import Baseline
from tiergate.cache import Cache
from tiergate.cache_cells import Session
from tiergate.candidate import Candidate, Isolation, warmed
from tiergate.checkers import Share
from tiergate.decide import Decision, decide
from tiergate.fields import Device
from tiergate.history import CellRecord, RunRecord
from tiergate.judge import cannot_pass
from tiergate.repository import Repository
from tiergate.runner import LegResult, Listener
from tiergate.shards import DevicePlan, ShardPlan
from tiergate.spec import Spec
from tiergate.verdict import PASSING, BaseIdentity, Part, Report, Run, Source, Verdict


class Leg(msgspec.Struct, frozen=True):
    """What is to be judged.

    Attributes:
        candidate: the interpreter, the repository and the spec: with a base, the base's.
        device: the leg's device.
        only: the criteria to judge; empty for all.
        jobs: how many cells at a time.
        directory: the report's folder; what the base answered is kept below it.
        commit: the base's commit, or "" without a base.
        head: the head's spec, where it differs from the base's.
        origin: whose spec the candidate has: the head's, where the base has none yet.
        allow_weakening: let a head pass that weakens the spec.
        isolation: how the processes of jobs come about.
        cache: verdicts of earlier runs; None to evaluate everything.
        unjudged: why nothing can be evaluated, such as that the leg has no runner.
        shards: the plan of shards, where this leg is one of several of its device.
        shard: which of them, from 1.
        expected: how many seconds a cell is expected to take, by earlier runs.
    """

    candidate: Candidate
    device: Device
    only: frozenset[str]
    jobs: int
    directory: Path
    commit: str = ""
    head: Spec | None = None
    origin: Literal["base", "head"] = "base"
    allow_weakening: bool = False
    isolation: Isolation = "process"
    cache: Cache | None = None
    unjudged: str = ""
    shards: ShardPlan | None = None
    shard: int = 0
    expected: Callable[[str], float] = lambda _: 0.0

    @property
    def spec(self) -> Spec:
        """The spec that decides."""
        spec = self.candidate.spec
        return drift.deciding(spec, self.head, allow_weakening=self.allow_weakening)

    @property
    def cells(self) -> list[plan.Cell]:
        """The cells of the deciding spec that this run was asked for."""
        planned = plan.cells(self.spec, self.device)
        if self.spread is not None:
            mine = self.spread.cells_of(self.shard)
            return [cell for cell in planned if cell.name in mine]
        return [c for c in planned if not self.only or c.criterion.id in self.only]

    @property
    def spread(self) -> DevicePlan | None:
        """How the device's cells are spread over shards; None where one leg has them all."""
        return self.shards.devices[self.device] if self.shards is not None else None

    @property
    def shares(self) -> dict[str, Share]:
        """The cells of which this leg has only a part, and the part."""
        spread = self.spread
        if spread is None:
            return {}
        given = {c.name: spread.cells[c.name].share(self.shard, spread.count) for c in self.cells}
        return {name: share for name, share in given.items() if share is not None}

    @property
    def head_cells(self) -> list[plan.Cell]:
        """The cells of the criteria that the head weakens; they decide nothing."""
        if self.head is None or self.allow_weakening:
            return []
        weakened = drift.weakened_criteria(self.candidate.spec, self.head)
        planned = [c for c in plan.cells(self.head, self.device) if c.criterion.id in weakened]
        if self.spread is not None:
            return [c for c in planned if self.spread.head.get(c.name) == self.shard]
        return [c for c in planned if not self.only or c.criterion.id in self.only]


def judge(
    leg: Leg, listener: Listener, keep: Callable[[RunRecord], None] = lambda _: None
) -> Report:
    """Evaluate the leg's cells and return the report; it says whether it is complete.

    ``keep`` is told how long it took, for the history.
    """
    repository = leg.candidate.repository
    started, clock = datetime.now(timezone.utc), time.monotonic()
    source = repository.source()
    today = started.date()
    session, answers = None, dict[str, Verdict]()
    if leg.cache is not None:
        session = Session(leg.cache, leg.candidate, leg.device)
        answers = session.answers(leg.cells, leg.candidate.with_spec(leg.spec))
    with ExitStack() as stack:
        evaluated = [*leg.head_cells, *(c for c in leg.cells if c.name not in answers)]
        if any(cell.criterion.uses not in checkers.STATIC for cell in evaluated):
            warm = stack.enter_context(warmed(leg.candidate, leg.device, leg.isolation))
            warm = msgspec.structs.replace(warm, alone=leg.jobs == 1)
            leg = msgspec.structs.replace(leg, candidate=warm)
        baseline = None
        if leg.commit and any(c.criterion.needs_base for c in [*leg.cells, *leg.head_cells]):
            checkout = stack.enter_context(base.checkout(repository, leg.commit))
            circumstances = session.circumstances if session is not None else ""
            kept = leg.directory / "base" if circumstances else None
            baseline = Baseline(checkout, kept, circumstances)
        judge_cells = partial(_run, leg, listener=listener, baseline=baseline, today=today)
        result = judge_cells(
            leg.spec, leg.cells, answers=answers, session=session, shares=leg.shares
        )
        on_head = LegResult()
        if leg.head is not None and leg.head_cells:
            on_head = judge_cells(leg.head, leg.head_cells)
    cancellation = leg.candidate.cancellation
    found = [*result.verdicts, *on_head.verdicts]
    fresh = bool(result.parts) or any(v.cached is None for v in found)
    interruption = cancellation.reason or (_changed(repository, source) if fresh else "")
    finished = _names([*result.verdicts, *result.parts]) == {cell.name for cell in leg.cells}
    finished &= _names(on_head.verdicts) == {cell.name for cell in leg.head_cells}
    if session is not None and not interruption:
        judged = leg.candidate.with_spec(leg.spec)
        session.keep(leg.cells, judged, result.verdicts, source.tree)
    run = Run(
        os.environ.get("GITHUB_RUN_ID", ""), int(os.environ.get("GITHUB_RUN_ATTEMPT", "0") or 0)
    )
    if not interruption:
        keep(_record(leg, result, source, started, run))
    if not interruption and not leg.unjudged:
        change = touched.Change(repository, leg.commit)
        result = msgspec.structs.replace(
            result, verdicts=change.attach(result.verdicts, leg.spec.criterion)
        )
        if leg.head is not None:
            told = change.attach(on_head.verdicts, leg.head.criterion)
            on_head = msgspec.structs.replace(on_head, verdicts=told)
    return Report(
        schema_version=verdict.SCHEMA_VERSION,
        tool_version=__version__,
        spec=verdict.SpecIdentity(str(leg.spec.path), leg.spec.digest),
        source=source,
        device=leg.device,
        planned=[cell.name for cell in plan.cells(leg.spec, leg.device)],
        selected=[cell.name for cell in leg.cells],
        complete=finished and not interruption,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        verdicts=result.verdicts,
        base=_base_identity(leg),
        head_verdicts=on_head.verdicts,
        environment=result.environment,
        device_proof=result.device_proof,
        run=run,
        interruption=interruption,
        shard=leg.shards.shard(leg.device, leg.shard) if leg.shards is not None else None,
        parts=result.parts,
    )


def objections(leg: Leg, report: Report) -> list[str]:
    """Say what in the report of a shard stands against a pass, whatever other shards observed."""
    today = datetime.now(timezone.utc).date()
    found = [
        f"{v.cell}: {v.status}: {v.summary}" for v in report.verdicts if v.status not in PASSING
    ]
    for part in report.parts:
        checker = checkers.splittable(leg.spec.criterion(part.criterion).uses)
        assert checker is not None, part.cell
        reason = cannot_pass(part, leg.spec.criterion(part.criterion), checker)
        if reason and not waivers.whole(part, leg.spec.waivers, today):
            found.append(f"{part.cell}: {reason}")
    if not report.complete:
        found.append(f"incomplete: {report.interruption or 'the run did not end'}")
    return found


def decision(leg: Leg, report: Report) -> Decision:
    """Decide on this leg alone."""
    return decide(
        leg.candidate.spec,
        [report],
        devices=[leg.device],
        only=leg.only or None,
        source=report.source,
        today=datetime.now(timezone.utc).date(),
        base=leg.commit,
        head=leg.head,
        allow_weakening=leg.allow_weakening,
        allow_cached=True,
    )


def _run(
    leg: Leg,
    spec: Spec,
    cells: list[plan.Cell],
    *,
    listener: Listener,
    baseline: Baseline | None,
    today: date,
    answers: Mapping[str, Verdict] | None = None,
    session: Session | None = None,
    shares: Mapping[str, Share] | None = None,
) -> LegResult:
    def judged(raw: Verdict) -> Verdict:
        # Only the deciding spec waives: a head cannot accept its own failures.
        return waivers.apply(raw, leg.spec.waivers, today)

    if leg.unjudged:
        return runner.unjudged(cells, leg.candidate, leg.unjudged, listener, judged)
    return runner.run_leg(
        cells,
        leg.candidate.with_spec(spec),
        device=leg.device,
        selected=[cell.name for cell in cells],
        jobs=leg.jobs,
        listener=listener,
        baseline=baseline,
        judged=judged,
        answers=answers,
        session=session,
        shares=shares or {},
        expected=leg.expected,
    )


def _record(leg: Leg, result: LegResult, source: Source, started: datetime, run: Run) -> RunRecord:
    """Return how long the cells took that were evaluated."""
    ended: dict[str, tuple[str, float]] = {v.cell: (v.status, v.seconds) for v in result.verdicts}
    ended |= {part.cell: ("part", part.seconds) for part in result.parts}
    cells = {}
    for name, timings in result.timings.items():
        if name in ended:
            status, seconds = ended[name]
            cells[name] = CellRecord(
                status=status,
                seconds=seconds,
                files={file: round(took, 4) for file, took in timings.files.items()},
                tests={t: (outcome, round(s, 4)) for t, (outcome, s) in timings.tests.items()},
            )
    return RunRecord(
        schema_version=history.SCHEMA_VERSION,
        started=started.isoformat(timespec="milliseconds"),
        device=leg.device,
        commit=source.commit,
        tree=source.tree,
        cells=cells,
        shard=f"{leg.shard}/{leg.spread.count}" if leg.spread else "",
        run=run,
    )


def _names(found: Collection[Verdict | Part]) -> set[str]:
    return {each.cell for each in found}


def _base_identity(leg: Leg) -> BaseIdentity | None:
    if not leg.commit:
        return None
    head = leg.head or leg.candidate.spec
    return BaseIdentity(
        commit=leg.commit,
        spec=leg.origin,
        head_spec_digest=head.digest,
        drift=drift.compare(leg.candidate.spec, leg.head) if leg.head else [],
        judge_relevant=base.judge_relevant_changes(
            leg.candidate.repository, leg.commit, (leg.candidate.spec, head)
        ),
    )


def _changed(repository: Repository, before: Source) -> str:
    """Say that the repository changed while it was judged, or return an empty string."""
    if Repository(repository.root).source() == before:
        return ""
    return "the repository changed while it was judged: the verdicts are of no single state"
