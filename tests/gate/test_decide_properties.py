"""No report that gets worse, or goes missing, turns a red gate green."""

import msgspec
from builders import SOURCE, TWO_LEGS, TWO_TIERS, all_legs, judged, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.decide import decide
from tiergate.verdict import Run, Source, SpecIdentity

SPECS = [parse(TWO_LEGS), parse(TWO_TIERS)]
WORSE = ["fail", "error", "blocked"]
replace = msgspec.structs.replace


def passes(spec, reports, **options):
    return decide(spec, reports, source=SOURCE, **options).exit_code == 0


@st.composite
def legs(draw, statuses=("pass", *WORSE)):
    """Draw a spec and at most one report per leg, of any verdicts."""
    spec = draw(st.sampled_from(SPECS))
    reports = [
        replace(
            leg,
            verdicts=[
                replace(verdict, status=draw(st.sampled_from(statuses)))
                for verdict in leg.verdicts
                if draw(st.integers(0, 9))
            ],
            complete=draw(st.integers(0, 9)) > 0,
        )
        for leg in all_legs(spec)
        if draw(st.integers(0, 9))
    ]
    return spec, reports


def without_verdict(draw, report):
    at = draw(st.integers(0, len(report.verdicts) - 1))
    return replace(report, verdicts=report.verdicts[:at] + report.verdicts[at + 1 :])


def worse_verdict(draw, report):
    at = draw(st.integers(0, len(report.verdicts) - 1))
    verdicts = list(report.verdicts)
    verdicts[at] = replace(verdicts[at], status=draw(st.sampled_from(WORSE)))
    return replace(report, verdicts=verdicts)


def second_verdict(draw, report):
    again = draw(st.sampled_from(report.verdicts))
    status = draw(st.sampled_from(["pass", *WORSE]))
    return replace(report, verdicts=[*report.verdicts, replace(again, status=status)])


def foreign_verdict(draw, report):
    name = draw(st.text(max_size=3)) + "?"
    return replace(report, verdicts=[*report.verdicts, judged(name, report.device)])


def other_device(draw, report):
    device = "cuda" if report.device == "cpu" else "cpu"
    return replace(report, device=device)


def unproven(draw, report):
    name = draw(st.sampled_from(["name", "capability", "result"]))
    return replace(report, device="cuda", device_proof={**report.device_proof, name: ""})


def interrupted(draw, report):
    return replace(report, complete=False, interruption=draw(st.sampled_from(["", "SIGINT"])))


def other_spec(draw, report):
    digest = draw(st.text("0123456789abcdef", min_size=64, max_size=64))
    return replace(report, spec=SpecIdentity(report.spec.path, digest))


def other_source(draw, report):
    commit = draw(st.sampled_from([SOURCE.commit, "d" * 40, ""]))
    tree = draw(st.sampled_from([SOURCE.tree, "8" * 64, ""]))
    if (commit, tree) == (SOURCE.commit, SOURCE.tree):
        tree = "9" * 64
    return replace(report, source=Source(commit, tree))


CHANGES = [
    without_verdict, worse_verdict, second_verdict, foreign_verdict, other_device, unproven,
    interrupted, other_spec, other_source,
]  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_from_a_pass_every_single_change_is_no_pass(data):
    spec = data.draw(st.sampled_from(SPECS))
    reports = all_legs(spec)
    assert passes(spec, reports)
    at = data.draw(st.integers(0, len(reports) - 1))
    change = data.draw(st.sampled_from(CHANGES))
    reports[at] = change(data.draw, reports[at])
    assert not passes(spec, reports)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_from_a_pass_a_report_less_or_twice_is_no_pass(data):
    spec = data.draw(st.sampled_from(SPECS))
    reports = all_legs(spec)
    at = data.draw(st.integers(0, len(reports) - 1))
    assert not passes(spec, reports[:at] + reports[at + 1 :])
    assert not passes(spec, [*reports, reports[at]])
    assert not passes(spec, reports, unreadable=["one more"])


@settings(max_examples=200, deadline=None)
@given(legs(), st.data())
def test_no_change_for_the_worse_turns_red_into_green(drawn, data):
    spec, reports = drawn
    if passes(spec, reports) or not reports:
        return
    at = data.draw(st.integers(0, len(reports) - 1))
    changes = CHANGES if reports[at].verdicts else [interrupted, other_spec, other_source]
    changed = data.draw(st.sampled_from(changes))(data.draw, reports[at])
    assert not passes(spec, [*reports[:at], changed, *reports[at + 1 :]])
    assert not passes(spec, reports[:at] + reports[at + 1 :])
    assert not passes(spec, [*reports, reports[at]])


@settings(max_examples=200, deadline=None)
@given(legs(statuses=("pass", "pass", "pass", "fail", "error", "blocked")))
def test_a_gate_passes_if_and_only_if_all_that_is_expected_is_there_and_passed(drawn):
    spec, reports = drawn
    wanted = sorted(f"{c.id}@{device}" for c in spec.criteria for device in c.devices)
    there = sorted(verdict.cell for report in reports for verdict in report.verdicts)
    passed = all(v.status == "pass" for report in reports for v in report.verdicts)
    complete = all(report.complete for report in reports)
    assert passes(spec, reports) is (there == wanted and passed and complete)


@settings(max_examples=150, deadline=None)
@given(legs(), st.randoms())
def test_the_order_of_reports_and_verdicts_does_not_matter(drawn, random):
    spec, reports = drawn
    shuffled = [replace(r, verdicts=random.sample(r.verdicts, len(r.verdicts))) for r in reports]
    random.shuffle(shuffled)
    one, other = (decide(spec, given_, source=SOURCE) for given_ in (reports, shuffled))
    assert one.exit_code == other.exit_code
    assert one.tiers == other.tiers
    assert one.cells == other.cells


@settings(max_examples=150, deadline=None)
@given(legs(), st.sampled_from(["17", ""]), st.sampled_from(["18", "19"]))
def test_legs_of_different_runs_never_pass(drawn, first, second):
    spec, reports = drawn
    if len(reports) > 1:
        reports = [
            replace(reports[0], run=Run(first, 1)), replace(reports[1], run=Run(second, 1)),
        ]  # fmt: skip
        assert not passes(spec, reports)
