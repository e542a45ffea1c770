"""Observation + expectation → verdict: the only place where a cell is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tiergate import excerpts, expectation
from tiergate.candidate import Candidate
from tiergate.checkers import Checker, Context, Observation, Splittable
from tiergate.expectation import Mismatch, Outcomes
from tiergate.fields import Device
from tiergate.reproduce import cell_command
from tiergate.spec import Criterion
from tiergate.verdict import Evidence, Finding, Part, Status, Verdict
from tiergate.waivers import fingerprints

_SUMMARY_LIMIT = 500
_SINGULAR = {"errors": "error", "findings": "finding", "warnings": "warning"}


def judge(context: Context, checker: Checker, observation: Observation, seconds: float) -> Verdict:
    """Compare what was observed with what is expected."""
    criterion = context.criterion
    repository = context.candidate.repository
    observation = msgspec.structs.replace(
        observation,
        failures=tuple(excerpts.attach(repository, observation.failures)),
        findings=tuple(excerpts.attach(repository, observation.findings)),
    )
    return verdict(
        criterion,
        context.device,
        checker,
        observation,
        seconds,
        reproduce=commands(context, checker),
    )


def commands(context: Context, checker: Checker) -> list[str]:
    """Return the commands that evaluate a criterion again."""
    criterion = context.criterion
    return [
        cell_command(criterion.id, context.device, context.candidate),
        *checker.reproduce(criterion.parameters, context),
    ]


def verdict(
    criterion: Criterion,
    device: Device,
    checker: Checker,
    observation: Observation,
    seconds: float,
    *,
    reproduce: Sequence[str],
) -> Verdict:
    """Compare what was observed, here or by several shards, with what is expected. Pure."""
    outcomes = checker.outcomes(criterion.parameters)
    wrong = expectation.mismatches(criterion.expect, observation.counts, outcomes)
    status, summary = _decide(observation, wrong, outcomes)
    return Verdict(
        criterion=criterion.id,
        device=device,
        status=status,
        summary=summary[:_SUMMARY_LIMIT],
        seconds=round(seconds, 3),
        evidence=Evidence(
            expected={name: str(bound) for name, bound in criterion.expect.items()},
            observed={name: count for name, count in observation.counts.items() if count},
            mismatches=[] if observation.error else [mismatch.outcome for mismatch in wrong],
            failures=list(observation.failures),
            findings=_fingerprinted(observation.findings),
            notes=list(observation.notes),
            reproduce=list(reproduce),
            output="" if status == "pass" else observation.output,
            cases=list(observation.cases),
            running=observation.running,
        ),
        remedy=criterion.remedy,
    )


def cannot_pass(part: Part, criterion: Criterion, checker: Splittable) -> str:
    """Say why a cell cannot pass, whatever its other parts are, or return an empty string."""
    seen = checker.assemble(criterion.parameters, [part], criterion, part.device)
    if part.error:
        return part.error
    wrong = expectation.exceeded(
        criterion.expect, seen.counts, checker.outcomes(criterion.parameters)
    )
    return "; ".join(map(str, wrong))


def _fingerprinted(findings: Sequence[Finding]) -> list[Finding]:
    marks = fingerprints((f.rule, f.path, f.code) for f in findings)
    return [
        msgspec.structs.replace(finding, fingerprint=mark)
        for finding, mark in zip(findings, marks, strict=True)
    ]


def not_run(
    criterion: Criterion, device: str, status: Status, summary: str, candidate: Candidate
) -> Verdict:
    """Return the verdict of a cell that was never started."""
    return Verdict(
        criterion=criterion.id,
        device="cuda" if device == "cuda" else "cpu",
        status=status,
        summary=summary,
        evidence=Evidence(reproduce=[cell_command(criterion.id, device, candidate)]),
        remedy=criterion.remedy,
    )


def _decide(
    observation: Observation, wrong: list[Mismatch], outcomes: Outcomes
) -> tuple[Status, str]:
    if observation.error:
        return "error", observation.error
    if wrong:
        return "fail", f"{describe(observation.counts, outcomes)}; " + "; ".join(map(str, wrong))
    if observation.claim == "fail":
        return "fail", observation.summary or describe(observation.counts, outcomes)
    return "pass", observation.summary or describe(observation.counts, outcomes)


def describe(counts: Mapping[str, int], outcomes: Outcomes) -> str:
    """Return the counts in words, as in ``8 passed, 3 failed``."""
    order = [*outcomes.required, *outcomes.strict, *outcomes.free, *counts]
    shown = [
        f"{counts[name]} {_SINGULAR.get(name, name) if counts[name] == 1 else name}"
        for name in dict.fromkeys(order)
        if counts.get(name)
    ]
    return ", ".join(shown) or "nothing observed"
