"""One leg from its spec to its report: what ``tiergate run`` does, without the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from functools import partial
from pathlib import Path
from typing import Literal

from tiergate import __version__, base, drift, plan, runner, verdict, waivers
from tiergate.baseline import Baseline
from tiergate.cache import Cache
from tiergate.cache_cells import Session
from tiergate.candidate import Candidate, Isolation, warmed
from tiergate.decide import Decision, decide
from tiergate.fields import Device
from tiergate.repository import Repository
from tiergate.runner import LegResult, Listener
from tiergate.spec import Spec
from tiergate.verdict import BaseIdentity, Report, Source, Verdict


@dataclass(frozen=True)
class Leg:
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

    @property
    def spec(self) -> Spec:
        """The spec that decides."""
        spec = self.candidate.spec
        return drift.deciding(spec, self.head, allow_weakening=self.allow_weakening)

    @property
    def cells(self) -> list[plan.Cell]:
        """The cells of the deciding spec that this run was asked for."""
        planned = plan.cells(self.spec, self.device)
        return [c for c in planned if not self.only or c.criterion.id in self.only]

    @property
    def head_cells(self) -> list[plan.Cell]:
        """The cells of the criteria that the head weakens; they decide nothing."""
        if self.head is None or self.allow_weakening:
            return []
        weakened = drift.weakened_criteria(self.candidate.spec, self.head)
        planned = [c for c in plan.cells(self.head, self.device) if c.criterion.id in weakened]
        return [c for c in planned if not self.only or c.criterion.id in self.only]


def judge(leg: Leg, listener: Listener) -> Report:
    """Evaluate the leg's cells and return the report; it says whether it is complete."""
    repository = leg.candidate.repository
    started, clock = datetime.now(timezone.utc), time.monotonic()
    source = repository.source()
    today = started.date()
    session, answers = None, dict[str, Verdict]()
    if leg.cache is not None:
        session = Session(leg.cache, leg.candidate, leg.device)
        answers = session.answers(leg.cells, leg.candidate.with_spec(leg.spec))
    with ExitStack() as stack:
        if leg.head_cells or any(cell.name not in answers for cell in leg.cells):
            warm = stack.enter_context(warmed(leg.candidate, leg.device, leg.isolation))
            leg = replace(leg, candidate=warm)
        baseline = None
        if leg.commit and any(c.criterion.needs_base for c in [*leg.cells, *leg.head_cells]):
            checkout = stack.enter_context(base.checkout(repository, leg.commit))
            baseline = Baseline(checkout, leg.directory / "base")
        judge_cells = partial(_run, leg, listener=listener, baseline=baseline, today=today)
        result = judge_cells(leg.spec, leg.cells, answers=answers, session=session)
        on_head = LegResult()
        if leg.head is not None and leg.head_cells:
            on_head = judge_cells(leg.head, leg.head_cells)
    cancellation = leg.candidate.cancellation
    evaluated = any(v.cached is None for v in [*result.verdicts, *on_head.verdicts])
    interruption = cancellation.reason or (_changed(repository, source) if evaluated else "")
    finished = _names(result.verdicts) == {cell.name for cell in leg.cells}
    finished &= _names(on_head.verdicts) == {cell.name for cell in leg.head_cells}
    if session is not None and not interruption:
        judged = leg.candidate.with_spec(leg.spec)
        session.keep(leg.cells, judged, result.verdicts, source.tree)
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
        run=verdict.Run(
            os.environ.get("GITHUB_RUN_ID", ""),
            int(os.environ.get("GITHUB_RUN_ATTEMPT", "0") or 0),
        ),
        interruption=interruption,
    )


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
    )


def _names(verdicts: Collection[Verdict]) -> set[str]:
    return {v.cell for v in verdicts}


def _base_identity(leg: Leg) -> BaseIdentity | None:
    if not leg.commit:
        return None
    head = leg.head or leg.candidate.spec
    return BaseIdentity(
        commit=leg.commit,
        spec=leg.origin,
        head_spec_digest=head.digest,
        drift=drift.compare(leg.candidate.spec, leg.head) if leg.head else [],
        judge_relevant=base.judge_relevant_changes(leg.candidate.repository, leg.commit),
    )


def _changed(repository: Repository, before: Source) -> str:
    """Say that the repository changed while it was judged, or return an empty string."""
    if Repository(repository.root).source() == before:
        return ""
    return "the repository changed while it was judged: the verdicts are of no single state"
