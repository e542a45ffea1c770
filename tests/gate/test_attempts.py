"""Of a leg that was run again, the latest attempt counts; reports of other runs never do."""

from __future__ import annotations

from builders import TWO_LEGS, parse, report

from tiergate.decide import decide
from tiergate.verdict import Run

SPEC = parse(TWO_LEGS)


def leg(device: str, run: str, attempt: int, **statuses: str):
    return report(SPEC, device, statuses, run=Run(run, attempt))


def test_a_failed_leg_that_passed_when_it_was_run_again_passes():
    legs = [leg("cpu", "7", 1), leg("cuda", "7", 1, A="fail"), leg("cuda", "7", 2)]
    assert decide(SPEC, legs).exit_code == 0


def test_a_passed_leg_that_failed_when_it_was_run_again_fails():
    legs = [leg("cpu", "7", 1), leg("cuda", "7", 2, A="fail"), leg("cuda", "7", 1)]
    assert decide(SPEC, legs).exit_code == 1


def test_two_reports_of_one_attempt_are_a_double():
    legs = [leg("cpu", "7", 1), leg("cuda", "7", 1), leg("cuda", "7", 1)]
    decision = decide(SPEC, legs)
    assert decision.exit_code == 3
    assert "A@cuda: 2 verdicts, where there must be exactly one" in decision.problems


def test_a_report_of_another_run_is_refused():
    decision = decide(SPEC, [leg("cpu", "7", 1), leg("cuda", "6", 1)])
    assert decision.exit_code == 3
    assert "the reports are of different runs: 6, 7" in decision.problems
