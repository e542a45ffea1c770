"""Observation + expectation → verdict."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from samples import Sample

from tiergate import judge
from tiergate.checkers import Checker, Context, Observation
from tiergate.expectation import Outcomes
from tiergate.verdict import Failure, Verdict

OUTCOMES = Outcomes(strict=("failed", "skipped"), free=("passed", "seen"), required=("passed",))


@pytest.fixture
def context(sample: Sample) -> Context:
    return sample.context(
        {
            "id": "prices",
            "uses": "pytest",
            "with": {"paths": ["tests"]},
            "expect": {"passed": 2},
            "remedy": {"task": "0.1", "owner": "qa"},
        }
    )


def judged(context: Context, **observed: Any) -> Verdict:
    checker = SimpleNamespace(
        outcomes=lambda _: OUTCOMES, reproduce=lambda *_: ["python -m pytest tests"]
    )
    return judge.judge(
        context, cast(Checker, cast(ModuleType, checker)), Observation(**observed), 1.23456
    )


def test_counts_as_expected_pass(context: Context):
    verdict = judged(context, counts={"passed": 2, "seen": 9, "failed": 0})
    assert (verdict.status, verdict.summary) == ("pass", "2 passed, 9 seen")
    assert (verdict.cell, verdict.seconds) == ("prices@cpu", 1.235)
    assert verdict.evidence.expected == {"passed": "2"}
    assert verdict.evidence.observed == {"passed": 2, "seen": 9}


@pytest.mark.parametrize(
    ("counts", "summary"),
    [
        ({"passed": 1}, "1 passed; passed: expected 2, observed 1"),
        ({"passed": 3}, "3 passed; passed: expected 2, observed 3"),
        ({}, "nothing observed; passed: expected 2, observed 0"),
        ({"passed": 2, "skipped": 1}, "2 passed, 1 skipped; skipped: expected 0, observed 1"),
        (
            {"failed": 1, "passed": 1},
            "1 passed, 1 failed; failed: expected 0, observed 1; passed: expected 2, observed 1",
        ),
    ],
)
def test_counts_that_differ_fail_and_say_where(context: Context, counts: Any, summary: str):
    verdict = judged(context, counts=counts)
    assert (verdict.status, verdict.summary) == ("fail", summary)


def test_error_wins_over_counts_that_would_hold(context: Context):
    verdict = judged(context, counts={"passed": 2}, error="it crashed")
    assert (verdict.status, verdict.summary) == ("error", "it crashed")


def test_checkers_own_claim_can_only_make_it_worse(context: Context):
    good = {"passed": 2}
    assert judged(context, counts=good, claim="fail", summary="no").status == "fail"
    assert judged(context, counts=good, claim="pass").status == "pass"
    assert judged(context, counts={"passed": 1}, claim="pass").status == "fail"


def test_evidence_keeps_failures_and_drops_the_output_of_a_pass(context: Context):
    failure = Failure(id="t", outcome="failed")
    failed = judged(context, counts={"failed": 1}, failures=(failure,), output="said", running="t")
    assert failed.evidence.failures == [failure]
    assert (failed.evidence.output, failed.evidence.running) == ("said", "t")
    assert judged(context, counts={"passed": 2}, output="said").evidence.output == ""


def test_summary_has_a_bound(context: Context):
    assert len(judged(context, error="x" * 10_000).summary) == 500


def test_verdict_carries_remedy_and_the_commands_that_judge_again(context: Context):
    verdict = judged(context, error="x")
    assert verdict.remedy.task == "0.1"
    assert verdict.evidence.reproduce == [
        f"tiergate run --only prices --device cpu --python {context.candidate.python}",
        "python -m pytest tests",
    ]


def test_command_that_judges_again_names_a_spec_of_another_name(sample: Sample):
    context = sample.context(
        {"id": "a b".replace(" ", "-"), "uses": "command", "with": {"run": ["true"]}}
    )
    from msgspec.structs import replace

    spec = replace(context.candidate.spec, path=sample.root / "other gates" / "gate.yaml")
    verdict = judge.not_run(
        context.criterion, "cpu", "blocked", "why", replace(context.candidate, spec=spec)
    )
    assert (verdict.status, verdict.summary) == ("blocked", "why")
    assert verdict.evidence.reproduce == [
        (
            "tiergate run --only a-b --device cpu --spec 'other gates/gate.yaml' "
            f"--python {sample.python}"
        )
    ]


def test_description_has_expected_outcomes_first_and_no_zeros():
    counts = {"seen": 3, "other": 1, "failed": 2, "skipped": 0, "passed": 8}
    assert judge.describe(counts, OUTCOMES) == "8 passed, 2 failed, 3 seen, 1 other"


def test_one_of_something_is_not_several():
    assert judge.describe({"findings": 1, "errors": 1}, OUTCOMES) == "1 finding, 1 error"
    assert judge.describe({"findings": 2, "errors": 2}, OUTCOMES) == "2 findings, 2 errors"
