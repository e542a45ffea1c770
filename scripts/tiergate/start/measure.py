"""Asks the candidate's interpreter for the true numbers behind drafts of criteria."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tiergate import checkers, expectation, plan, runner, spec
from tiergate.candidate import Candidate
from tiergate.environment import usable_cpus
from tiergate.errors import NotEvaluatedError
from tiergate.processes import Cancellation
from tiergate.repository import Repository
from tiergate.runner import Listener
from tiergate.start.drafts import Draft
from tiergate.verdict import Verdict


@dataclass(frozen=True)
class Measured:
    """A criterion with true numbers, and what the judge says of it."""

    draft: Draft
    verdict: Verdict
    problem: str
    """Why the criterion does not hold today; empty when it does."""


def candidate_of(
    python: Path,
    repository: Repository,
    pythonpath: Sequence[str],
    cancellation: Cancellation,
    *,
    jobs: int,
) -> Candidate:
    """Return the candidate that a gate with these folders on its path judges, in so many jobs."""
    threads = max(1, usable_cpus() // jobs)
    empty = spec.Spec(Path("gate.yaml"), "", ("cpu",), (), tuple(pythonpath))
    return Candidate(python, repository, empty, threads, cancellation)


def has_pytest(judged: Candidate) -> bool:
    """Tell whether the candidate's interpreter can import pytest.

    Raises:
        NotEvaluatedError: the interpreter does not run at all.
    """
    found = judged.run_job(
        "imports", "cpu", runner.DEVICE_TIMEOUT, {"module": "pytest", "names": []}
    )
    if found.problem:
        raise NotEvaluatedError(
            f"the interpreter {judged.python} did not answer: {found.problem}\n"
            f"{found.output[-800:]}"
        )
    return bool(found.of("imported"))


def measure(
    drafts: Sequence[Draft],
    text: str,
    judged: Candidate,
    *,
    jobs: int,
    listener: Listener,
) -> list[Measured]:
    """Evaluate every draft once.

    Args:
        drafts: what is measured.
        text: a spec that has these drafts as criteria.
        judged: the candidate; its spec is not looked at.
        jobs: how many are evaluated at a time.
        listener: is told what happens.

    Raises:
        NotEvaluatedError: it was interrupted.
    """
    gate = spec.parse(text.encode(), Path("gate.yaml"))
    # One that failed must not keep the next from being measured.
    tiers = tuple(
        msgspec.structs.replace(
            tier, criteria=tuple(msgspec.structs.replace(c, needs=()) for c in tier.criteria)
        )
        for tier in gate.tiers
    )
    gate = msgspec.structs.replace(gate, tiers=tiers)
    planned = plan.cells(gate, "cpu")
    result = runner.run_leg(
        planned,
        msgspec.structs.replace(judged, spec=gate),
        device="cpu",
        selected=[cell.name for cell in planned],
        jobs=jobs,
        listener=listener,
    )
    if judged.cancellation.requested:
        raise NotEvaluatedError(f"{judged.cancellation.reason}; nothing was written")
    verdicts = {verdict.criterion: verdict for verdict in result.verdicts}
    return [_measured(draft, verdicts[draft.id], gate.criterion(draft.id)) for draft in drafts]


def _measured(draft: Draft, verdict: Verdict, criterion: spec.Criterion) -> Measured:
    if verdict.status == "error":
        return Measured(draft, verdict, verdict.summary)
    held = draft.measured(verdict.evidence.observed)
    outcomes = checkers.get(draft.uses).outcomes(criterion.parameters)
    wrong = expectation.mismatches(
        held.expect or criterion.expect, verdict.evidence.observed, outcomes
    )
    return Measured(held, verdict, "; ".join(map(str, wrong)))
