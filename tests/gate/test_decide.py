"""Reports → one decision: every way in which a report cannot be believed."""

# ruff: noqa: E501 - a table of cases is read row by row

from datetime import date

import msgspec
import pytest
from builders import PROOF, SOURCE, TWO_LEGS, TWO_TIERS, all_legs, judged, parse, report

from tiergate.decide import decide
from tiergate.errors import ExitCode
from tiergate.verdict import Run, Source, SpecIdentity

SPEC = parse(TWO_LEGS)
CPU, CUDA = all_legs(SPEC)
replace = msgspec.structs.replace


def sentences(decision):
    return [tier.sentence for tier in decision.tiers]


def test_a_gate_passes_when_every_cell_is_there_once_and_passed():
    decision = decide(SPEC, [CUDA, CPU], source=SOURCE)
    assert decision.exit_code is ExitCode.PASSED
    assert sentences(decision) == ["TIER 0 GATE PASSED — proceed to TIER 1"]
    assert decision.problems == ()
    assert [cell.cell.name for cell in decision.cells] == ["A@cpu", "B@cpu", "A@cuda", "C@cuda"]
    assert all(cell.passed for cell in decision.cells)


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        ("fail", ExitCode.FAILED, "TIER 0 GATE FAILED — fix before proceeding"),
        ("error", ExitCode.NOT_EVALUATED, "TIER 0 GATE NOT EVALUATED — not a pass"),
        ("blocked", ExitCode.NOT_EVALUATED, "TIER 0 GATE NOT EVALUATED — not a pass"),
    ],
)
@pytest.mark.parametrize("cell", ["B@cpu", "C@cuda"])
def test_one_cell_that_did_not_pass_decides(cell, status, code, sentence):
    decision = decide(SPEC, all_legs(SPEC, {cell: status}), source=SOURCE)
    assert decision.exit_code is code
    assert sentences(decision) == [sentence]


def test_a_failure_beside_what_could_not_be_evaluated_is_a_failure():
    decision = decide(SPEC, all_legs(SPEC, {"B@cpu": "error", "C@cuda": "fail"}), source=SOURCE)
    assert decision.exit_code is ExitCode.FAILED


@pytest.mark.parametrize("expires", ["2026-01-01", "2026-11-30", "2027-11-30"])
def test_a_waiver_that_is_expired_idle_or_too_long_fails_the_gate(expires):
    entry = f'waivers:\n  - {{criterion: A, reason: r, owner: o, expires: "{expires}"}}\n'
    spec = parse(TWO_LEGS.decode() + entry)
    decision = decide(spec, all_legs(spec), source=SOURCE, today=date(2026, 11, 25))
    assert decision.exit_code is ExitCode.FAILED
    assert [problem for problem in decision.problems if "the waiver of A" in problem]


def test_a_waived_cell_needs_a_waiver_in_the_spec():
    assert decide(SPEC, all_legs(SPEC, {"B@cpu": "waived"}), source=SOURCE).exit_code != 0


def test_a_missing_leg_is_named_with_each_of_its_cells():
    decision = decide(SPEC, [CPU], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert decision.problems == (
        "A@cuda: no verdict: the cuda leg has no report",
        "C@cuda: no verdict: the cuda leg has no report",
    )


def test_a_cell_that_a_leg_left_out_is_named():
    short = replace(CPU, verdicts=CPU.verdicts[:1])
    decision = decide(SPEC, [short, CUDA], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert decision.problems == ("B@cpu: no verdict in the report of the cpu leg",)


def test_a_leg_that_reported_twice_is_named():
    decision = decide(SPEC, [CPU, CUDA, CPU], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert "A@cpu: 2 verdicts, where there must be exactly one" in decision.problems


def test_two_verdicts_on_a_cell_count_for_none_even_where_one_passed():
    twice = replace(CPU, verdicts=[*CPU.verdicts, judged("B", status="blocked")])
    decision = decide(SPEC, [twice, CUDA], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert decision.problems == ("B@cpu: 2 verdicts, where there must be exactly one",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"complete": False}, "report of the cuda leg: incomplete: the run did not end"),
        ({"complete": False, "interruption": "interrupted by SIGINT"}, "incomplete: interrupted by SIGINT"),
        ({"spec": SpecIdentity("other.yaml", "0" * 64)}, "made from another spec (other.yaml, sha256 000000000000; this one is"),
        ({"source": Source("d" * 40, SOURCE.tree)}, "report of the cuda leg: of another state of the repository (commit dddddddddddd, tree 777777777777; expected commit cccccccccccc"),
        ({"source": Source(SOURCE.commit, "8" * 64)}, "tree 888888888888; expected"),
        ({"source": Source()}, "report of the cuda leg: of another state of the repository (commit none, tree none; expected commit cccccccccccc"),
        ({"run": Run("17", 1)}, "the reports are of different runs: 17, none"),
        ({"device_proof": {}}, "report of the cuda leg: carries no proof of a CUDA device"),
        ({"device_proof": {"name": "x"}}, "carries no proof of a CUDA device"),
        ({"device_proof": {**PROOF, "result": ""}}, "carries no proof of a CUDA device"),
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_believed_is_named(change, words):
    decision = decide(SPEC, [CPU, replace(CUDA, **change)], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert any(words in problem for problem in decision.problems), decision.problems


@pytest.mark.parametrize(
    "other", [Source("d" * 40, SOURCE.tree), Source(SOURCE.commit, "8" * 64), Source()]
)
def test_legs_of_different_states_do_not_pass_together(other):
    decision = decide(SPEC, [CPU, replace(CUDA, source=other)])
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert any(problem.startswith("the reports are of different") for problem in decision.problems)


def test_reports_of_another_run_of_the_workflow_do_not_pass():
    of_run = [replace(report, run=Run("1001", 1)) for report in (CPU, CUDA)]
    assert decide(SPEC, of_run, source=SOURCE, run="1001").exit_code is ExitCode.PASSED
    later = decide(SPEC, of_run, source=SOURCE, run="1002")
    assert later.exit_code is ExitCode.NOT_EVALUATED
    assert "report of the cpu leg: of run 1001, this is run 1002" in later.problems
    assert decide(SPEC, [CPU, CUDA], source=SOURCE, run="1002").exit_code is not ExitCode.PASSED


def test_a_single_report_of_another_commit_does_not_pass():
    other = Source("d" * 40, SOURCE.tree)
    decision = decide(SPEC, [CPU], devices=["cpu"], source=other)
    assert decision.exit_code is ExitCode.NOT_EVALUATED


def test_several_legs_must_say_what_they_judged():
    legs = [replace(leg, source=Source()) for leg in (CPU, CUDA)]
    decision = decide(SPEC, legs, source=Source())
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert "not all say which state of the repository" in decision.problems[0]


def test_one_leg_outside_git_may_pass():
    decision = decide(SPEC, [replace(CPU, source=Source())], devices=["cpu"], source=Source())
    assert decision.exit_code is ExitCode.PASSED


def test_a_leg_may_not_speak_for_another_device():
    forged = replace(CPU, verdicts=[*CPU.verdicts, *CUDA.verdicts])
    decision = decide(SPEC, [forged], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert decision.problems[0] == (
        "report of the cpu leg: carries verdicts of another device: A@cuda, C@cuda"
    )


def test_a_verdict_on_an_unknown_cell_is_a_problem():
    more = replace(CPU, verdicts=[*CPU.verdicts, judged("Z")])
    decision = decide(SPEC, [more, CUDA], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert decision.problems == ("Z@cpu: a verdict on a cell that the spec does not have",)


def test_a_pass_whose_need_did_not_pass_is_not_believed():
    decision = decide(SPEC, all_legs(SPEC, {"A@cpu": "error"}), source=SOURCE)
    assert "B@cpu: passed, although A@cpu did not" in decision.problems


def test_an_unreadable_report_is_a_problem():
    decision = decide(SPEC, [CPU, CUDA], source=SOURCE, unreadable=["x: not a readable report"])
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert decision.problems == ("x: not a readable report",)


@pytest.mark.parametrize("reports", [[], [CUDA]])
def test_nothing_expected_is_no_pass(reports):
    decision = decide(SPEC, reports, devices=[], source=SOURCE)
    assert decision.exit_code is ExitCode.NOT_EVALUATED
    assert "no cell is expected: an empty gate does not pass" in decision.problems


def test_no_reports_are_no_pass():
    assert decide(SPEC, []).exit_code is ExitCode.NOT_EVALUATED


def test_one_leg_alone_says_what_it_leaves_out():
    decision = decide(SPEC, [CPU], devices=["cpu"], source=SOURCE)
    assert decision.exit_code is ExitCode.PASSED
    assert decision.partial == ("A@cuda", "C@cuda")


def test_chosen_criteria_decide_no_tier():
    only_a = replace(CPU, verdicts=CPU.verdicts[:1])
    decision = decide(SPEC, [only_a], devices=["cpu"], only=["A"], source=SOURCE)
    assert decision.exit_code is ExitCode.PASSED
    assert decision.tiers == ()
    assert decision.partial == ("B@cpu", "A@cuda", "C@cuda")


TIERS = parse(TWO_TIERS)


@pytest.mark.parametrize(
    ("statuses", "conclusions", "code"),
    [
        ({}, ["passed", "passed"], 0),
        ({"B@cpu": "fail"}, ["passed", "failed"], 1),
        ({"B@cpu": "error"}, ["passed", "not evaluated"], 3),
        ({"A@cpu": "fail", "B@cpu": "blocked"}, ["failed", "not evaluated"], 1),
        ({"A@cpu": "error", "B@cpu": "blocked"}, ["not evaluated", "not evaluated"], 3),
        ({"A@cpu": "error", "B@cpu": "fail"}, ["not evaluated", "failed"], 1),
        ({"A@cpu": "fail"}, ["failed", "not evaluated"], 1),
    ],
)
def test_a_tier_passes_only_when_the_tiers_under_it_passed(statuses, conclusions, code):
    decision = decide(TIERS, all_legs(TIERS, statuses), source=SOURCE)
    assert [tier.conclusion for tier in decision.tiers] == conclusions
    assert decision.exit_code == code


def test_a_tier_without_a_next_one_says_only_that_it_passed():
    assert sentences(decide(TIERS, all_legs(TIERS), source=SOURCE)) == [
        "TIER 0 GATE PASSED — proceed to TIER 1",
        "TIER 1 GATE PASSED",
    ]


def test_deciding_changes_nothing_that_it_is_given():
    before = [msgspec.to_builtins(leg) for leg in (CPU, CUDA)]
    first = decide(SPEC, [CPU, CUDA], source=SOURCE)
    assert [msgspec.to_builtins(leg) for leg in (CPU, CUDA)] == before
    assert decide(SPEC, [CPU, CUDA], source=SOURCE) == first


def test_a_report_of_the_builders_is_what_the_leg_would_write():
    assert report(SPEC, "cuda").planned == ["A@cuda", "C@cuda"]
