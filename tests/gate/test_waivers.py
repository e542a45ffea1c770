"""A waiver accepts what it names, until its date, and nothing else."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
import pytest
from builders import judged, parse, problems, report
from hypothesis import given
from hypothesis import strategies as st

from tiergate import waivers
from tiergate.decide import decide
from tiergate.verdict import Evidence, Finding
from tiergate.waivers import Waiver

TODAY = date(2026, 11, 23)
RULE, FILE, PRINT = "unsafe-torch-load", "src/a.py", "0123456789abcdef"
FINDING = Finding(rule=RULE, path=FILE, line=3, column=1, message="no", fingerprint=PRINT)

SPEC = """\
gate: T
devices: [cpu]
criteria:
  - {id: A, uses: command, with: {run: [a]}}
  - {id: S, uses: semgrep, with: {rules: [unsafe-torch-load], paths: [src]}}
"""


def waiver(**changes: object) -> Waiver:
    values = {"criterion": "S", "reason": "r", "owner": "o", "expires": TODAY, **changes}
    return Waiver(**values)


def with_findings(*findings: Finding, mismatches: tuple[str, ...] = ("findings",)):
    evidence = Evidence(findings=list(findings), mismatches=list(mismatches))
    return judged("S", status="fail", evidence=evidence)


def test_a_waived_failure_says_until_when_why_and_by_whom():
    verdict = waivers.apply(judged("S", status="fail"), [waiver()], TODAY)
    assert verdict.status == "waived"
    assert verdict.waiver == "waived until 2026-11-23: r (owner: o)"


@pytest.mark.parametrize("status", ["pass", "blocked"])
def test_a_waiver_changes_only_failures_and_errors(status):
    assert waivers.apply(judged("S", status=status), [waiver()], TODAY).status == status


@pytest.mark.parametrize(
    "other",
    [
        {"criterion": "A"},
        {"device": "cuda"},
        {"expires": TODAY - timedelta(days=1)},
        {"expires": TODAY + timedelta(days=91)},
    ],
    ids=["another criterion", "another device", "expired", "too long"],
)
def test_a_waiver_that_does_not_cover_the_cell_today_changes_nothing(other):
    assert waivers.apply(judged("S", status="fail"), [waiver(**other)], TODAY).status == "fail"


def test_a_waived_finding_does_not_waive_another_one():
    second = msgspec.structs.replace(FINDING, fingerprint="f" * 16)
    known = [waiver(finding=(RULE, FILE, PRINT))]
    assert waivers.apply(with_findings(FINDING), known, TODAY).status == "waived"
    assert waivers.apply(with_findings(FINDING, second), known, TODAY).status == "fail"


def test_a_waived_finding_does_not_waive_another_outcome():
    known = [waiver(finding=(RULE, FILE, PRINT))]
    verdict = with_findings(FINDING, mismatches=("findings", "scanned"))
    assert waivers.apply(verdict, known, TODAY).status == "fail"


def test_a_waived_finding_does_not_waive_a_scan_that_failed():
    known = [waiver(finding=(RULE, FILE, PRINT))]
    assert waivers.apply(judged("S", status="error"), known, TODAY).status == "error"


def test_a_waiver_that_matches_nothing_any_more_is_a_problem():
    found = waivers.problems([waiver()], [judged("S")], TODAY)
    assert found == ["the waiver of S matches nothing any more; remove it"]
    gone = waiver(finding=(RULE, FILE, PRINT))
    assert waivers.problems([gone], [judged("S", status="fail")], TODAY) == [
        f"the waiver of S, {RULE} in {FILE} ({PRINT}) matches nothing any more; remove it"
    ]


def test_a_waiver_of_a_criterion_that_was_not_judged_is_not_missed():
    assert waivers.problems([waiver()], [judged("A")], TODAY) == []
    assert waivers.problems([waiver()], [judged("S", status="blocked")], TODAY) == []


def test_an_expired_waiver_names_its_owner():
    late = waiver(expires=TODAY - timedelta(days=1))
    assert waivers.problems([late], [], TODAY) == [
        "the waiver of S expired on 2026-11-22 (owner: o)"
    ]


def test_a_waiver_lasts_at_most_90_days():
    longest = waiver(expires=TODAY + timedelta(days=90))
    too_long = waiver(expires=TODAY + timedelta(days=91))
    assert waivers.in_force(longest, TODAY)
    assert waivers.problems([longest], [], TODAY) == []
    assert "more than 90 days ahead" in waivers.problems([too_long], [], TODAY)[0]


@pytest.mark.parametrize(("days", "told"), [(-1, 0), (0, 1), (14, 1), (15, 0)])
def test_waivers_that_end_within_14_days_are_told(days, told):
    assert len(waivers.expiring([waiver(expires=TODAY + timedelta(days=days))], TODAY)) == told


code = st.text(alphabet="ab \t(=)", max_size=12)


@given(st.lists(st.tuples(st.just(RULE), st.just(FILE), code), max_size=8))
def test_fingerprints_tell_every_finding_of_a_run_apart(findings):
    prints = waivers.fingerprints(findings)
    assert len(set(prints)) == len(findings)


@given(code, st.integers(0, 3))
def test_a_fingerprint_survives_reindentation_and_what_stands_before(text, before):
    others = [(RULE, FILE, f"other{i}") for i in range(before)]
    (alone,) = waivers.fingerprints([(RULE, FILE, text)])
    moved = waivers.fingerprints([*others, (RULE, FILE, f"    {text}  ")])
    assert moved[-1] == alone


def test_the_decision_passes_with_a_waiver_and_says_so():
    spec = parse(SPEC + entry())
    waived = judged("A", status="waived", waiver="waived until 2026-12-01: r (owner: o)")
    decision = decide(spec, [report(spec, verdicts=[waived, judged("S")])], today=TODAY)
    assert decision.conclusion == "passed"
    told = [remark.text for remark in decision.remarks]
    assert told == [
        "A@cpu: waived until 2026-12-01: r (owner: o)",
        "the waiver of A expires on 2026-12-01 (owner: o)",
    ]


@pytest.mark.parametrize(
    ("spec_text", "today"),
    [(SPEC, TODAY), (SPEC + "waivers: []\n", TODAY), (None, date(2026, 12, 2)), (None, date.max)],
    ids=["no waiver", "empty list", "expired since", "no day given"],
)
def test_a_report_cannot_waive_what_the_spec_does_not(spec_text, today):
    spec = parse(spec_text if spec_text is not None else SPEC + entry())
    forged = report(spec, verdicts=[judged("A", status="waived"), judged("S")])
    decision = decide(spec, [forged], today=today)
    assert decision.conclusion != "passed"
    assert any("no waiver for it today" in problem for problem in decision.problems)


def entry(expires: str = "2026-12-01", **more: str) -> str:
    lines = [f"    {key}: {value}\n" for key, value in more.items()]
    start = "waivers:\n  - criterion: A\n    reason: r\n    owner: o\n"
    return f'{start}    expires: "{expires}"\n{"".join(lines)}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (entry("2026-02-30"), "waivers[0].expires: '2026-02-30' is no date; write YYYY-MM-DD"),
        (entry("20261201"), "waivers[0].expires: '20261201' is no date; write YYYY-MM-DD"),
        (entry(device="gpu"), "waivers[0].device: unknown value 'gpu'"),
        (entry().replace("    owner: o\n", ""), "waivers[0]: missing owner"),
        (entry().replace("owner: o", 'owner: ""'), "waivers[0].owner: must not be empty"),
        (entry().replace(": A", ": B"), "waives 'B', no criterion"),
    ],
)
def test_the_loader_refuses_an_incomplete_waiver(text, message):
    found = problems(SPEC + text)
    assert len(found) == 1
    assert message in found[0]
