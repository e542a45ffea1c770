"""What weakens the gate is seen, and what strengthens it passes."""

from __future__ import annotations

import msgspec
import pytest
from builders import judged, parse, report

from tiergate import drift
from tiergate.decide import Decision, decide
from tiergate.spec import Spec
from tiergate.verdict import BaseIdentity, Report

BASE = """\
gate: T
devices: [cpu, cuda]
pythonpath: [src]
criteria:
  - id: IMPORTS
    uses: imports
    with: {module: a, names: [x, y]}
  - id: TESTS
    uses: pytest
    with: {paths: [tests/a.py, tests/b.py], args: [--import-mode=importlib]}
    expect: {passed: 11}
    devices: [cpu, cuda]
  - id: SUITE
    uses: collection
    expect: {collected: ">=605"}
    retries: 1
  - id: LOADS
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [src]}
"""

WEAKER = {
    "a criterion is removed": (
        "  - id: LOADS\n    uses: semgrep\n    with: {rules: [unsafe-torch-load], paths: [src]}\n",
        "",
    ),
    "an exact number is lowered": ("passed: 11", "passed: 10"),
    "an exact number becomes a floor": ("passed: 11", 'passed: ">=11"'),
    "a floor is lowered": (">=605", ">=604"),
    "a floor becomes relative": (">=605", ">=base"),
    "a bad outcome is allowed": ("{passed: 11}", "{passed: 11, skipped: 1}"),
    "a bad outcome is let free": ("{passed: 11}", '{passed: 11, failed: ">=0"}'),
    "findings are allowed": ("paths: [src]}\n", "paths: [src]}\n    expect: {findings: 1}\n"),
    "a device is dropped": ("    devices: [cpu, cuda]\n", "    devices: [cuda]\n"),
    "a path is dropped": ("[tests/a.py, tests/b.py]", "[tests/a.py]"),
    "a path is replaced": ("tests/b.py", "tests/c.py"),
    "a name is dropped": ("[x, y]", "[x]"),
    "another module is imported": ("module: a", "module: b"),
    "the origin does not matter": ("names: [x, y]", "names: [x, y], origin: anywhere"),
    "arguments change": ("[--import-mode=importlib]", "[--import-mode=append]"),
    "tests are only collected": (
        "args: [--import-mode=importlib]}\n    expect: {passed: 11}",
        "args: [--import-mode=importlib], collect-only: true}\n    expect: {collected: 11}",
    ),
    "another checker": (
        'uses: collection\n    expect: {collected: ">=605"}',
        "uses: command\n    with: {run: [a]}",
    ),
    "more retries": ("retries: 1", "retries: 2"),
    "flakes only warn": ("retries: 1", "retries: 1\n    flaky: warn"),
    "another path comes first": ("pythonpath: [src]", "pythonpath: [lib, src]"),
    "the environment changes": ("pythonpath: [src]", "pythonpath: [src]\nenv: {A: b}"),
    "a variable is passed": ("pythonpath: [src]", "pythonpath: [src]\npass-env: [A]"),
    "a waiver is added": (
        "criteria:\n",
        'waivers:\n  - {criterion: LOADS, reason: r, owner: o, expires: "2026-12-01"}\ncriteria:\n',
    ),
}

STRONGER = {
    "a criterion is added": (
        "criteria:\n",
        "criteria:\n  - {id: NEW, uses: command, with: {run: [a]}}\n",
    ),
    "an exact number is raised": ("passed: 11", "passed: 12"),
    "a floor is raised": (">=605", ">=606"),
    "a floor becomes exact": ('">=605"', "605"),
    "a path is added": ("paths: [src]", "paths: [src, tests]"),
    "a name is added": ("[x, y]", "[x, y, z]"),
    "a device is added": ("    retries: 1\n", "    retries: 1\n    devices: [cpu, cuda]\n"),
    "fewer retries": ("retries: 1", "retries: 0"),
    "something free is expected": (
        "paths: [src]}\n",
        'paths: [src]}\n    expect: {findings: 0, scanned: ">=9"}\n',
    ),
}

NEUTRAL = {
    "names and remedies": ("uses: imports", "uses: imports\n    name: n\n    remedy: {task: '1'}"),
    "the order": ("gate: T\ndevices: [cpu, cuda]", "devices: [cpu, cuda]\ngate: T"),
    "comments": ("gate: T", "# why\ngate: T"),
    "a zero that was implied": ("{passed: 11}", "{passed: 11, failed: 0}"),
    "a timeout": ("    retries: 1", "    retries: 1\n    timeout: 5"),
    "a need": ("    retries: 1", "    retries: 1\n    needs: [TESTS]"),
}


def changes(old: str, new: str):
    assert BASE.count(old) == 1
    return drift.compare(parse(BASE), parse(BASE.replace(old, new)))


@pytest.mark.parametrize("way", WEAKER)
def test_weakening_is_seen(way):
    assert any(change.weakening for change in changes(*WEAKER[way]))


@pytest.mark.parametrize("way", STRONGER)
def test_strengthening_is_shown_and_not_taken_for_weakening(way):
    found = changes(*STRONGER[way])
    assert found
    assert not any(change.weakening for change in found)


@pytest.mark.parametrize("way", NEUTRAL)
def test_what_decides_nothing_is_no_drift(way):
    assert changes(*NEUTRAL[way]) == []


def test_a_criterion_moved_to_a_later_tier_is_weaker():
    tiers = (
        "devices: [cpu]\ntiers:\n  - gate: T\n    criteria: [{}]\n  - gate: U\n    criteria: [{}]"
    )
    one, two = (f"{{id: {name}, uses: command, with: {{run: [a]}}}}" for name in "AB")
    three = one.replace("A,", "C,")
    before = parse(tiers.format(f"{one}, {three}", two))
    after = parse(tiers.format(three, f"{two}, {one}"))
    assert [(c.where, c.message) for c in drift.compare(before, after)] == [
        ("A", "moved to a later tier")
    ]


def test_the_message_says_what_was_and_what_is():
    (change,) = changes("passed: 11", "passed: 10")
    assert (change.where, change.message) == ("TESTS", "expects passed 10 instead of 11")


def legs(base: Spec, head: Spec, allow: bool = False, **statuses: str) -> list[Report]:
    """Return the reports of both legs, by the spec that decides on this base and head."""
    deciding = drift.deciding(base, head, allow_weakening=allow)
    weakened = frozenset() if allow else drift.weakened_criteria(base, head)
    identity = BaseIdentity("b" * 40, "base", head.digest)
    made = []
    for device in ("cpu", "cuda"):
        own = [
            judged(c.id, device) for c in head.criteria if c.id in weakened and device in c.devices
        ]
        made.append(report(deciding, device, statuses, base=identity, head_verdicts=own))
    return made


def decide_on(old: str, new: str, *, allow: bool = False, **statuses: str) -> Decision:
    base, head = parse(BASE), parse(BASE.replace(old, new))
    reports = legs(base, head, allow, **statuses)
    return decide(base, reports, base="b" * 40, head=head, allow_weakening=allow)


@pytest.mark.parametrize("way", WEAKER)
def test_a_weakened_spec_fails_unless_it_is_allowed(way):
    decision = decide_on(*WEAKER[way])
    assert decision.conclusion == "failed"
    assert decision.exit_code == 1
    assert any("the head weakens the spec" in remark.text for remark in decision.remarks)
    if "waiver" not in way:  # no criterion fails here, so that a waiver would match nothing
        assert decide_on(*WEAKER[way], allow=True).exit_code == 0


@pytest.mark.parametrize("way", STRONGER)
def test_a_strengthened_spec_passes_when_the_head_holds_it(way):
    assert decide_on(*STRONGER[way]).exit_code == 0


def test_a_criterion_that_the_head_strengthens_is_judged_as_the_head_has_it():
    base, head = parse(BASE), parse(BASE.replace(*STRONGER["an exact number is raised"]))
    deciding = drift.deciding(base, head, allow_weakening=False)
    assert str(deciding.criterion("TESTS").expect["passed"]) == "12"
    assert deciding.digest == base.digest


def test_a_criterion_that_the_head_weakens_is_judged_as_the_base_has_it():
    base, head = parse(BASE), parse(BASE.replace(*WEAKER["an exact number is lowered"]))
    deciding = drift.deciding(base, head, allow_weakening=False)
    assert str(deciding.criterion("TESTS").expect["passed"]) == "11"
    allowed = drift.deciding(base, head, allow_weakening=True)
    assert str(allowed.criterion("TESTS").expect["passed"]) == "10"


def test_an_added_criterion_decides():
    ways = STRONGER["a criterion is added"]
    assert decide_on(*ways, NEW="fail").exit_code == 1


def test_a_waiver_that_the_head_removes_counts_no_more():
    entry = WEAKER["a waiver is added"][1].replace("criteria:\n", "")
    base, head = parse(BASE + entry), parse(BASE)
    assert drift.deciding(base, head, allow_weakening=False).waivers == ()
    assert len(drift.deciding(head, base, allow_weakening=False).waivers) == 0


def test_a_missing_verdict_on_a_weakened_criterion_is_told():
    base, head = parse(BASE), parse(BASE.replace(*WEAKER["an exact number is lowered"]))
    reports = [msgspec.structs.replace(r, head_verdicts=[]) for r in legs(base, head)]
    decision = decide(base, reports, base="b" * 40, head=head)
    assert decision.exit_code == 1
    assert "the head's own TESTS@cpu: no verdict in the report of the cpu leg" in decision.problems


@pytest.mark.parametrize(
    ("made", "asked"),
    [("", "b" * 40), ("b" * 40, ""), ("a" * 40, "b" * 40)],
    ids=["report without a base", "decision without a base", "another base"],
)
def test_reports_against_another_base_are_refused(made, asked):
    base = parse(BASE)
    identity = BaseIdentity(made, "base", base.digest) if made else None
    reports = [report(base, device, base=identity) for device in ("cpu", "cuda")]
    assert decide(base, reports, base=asked).exit_code == 3


def test_a_report_on_another_spec_of_the_head_is_refused():
    base, head = parse(BASE), parse(BASE.replace(*STRONGER["a floor is raised"]))
    other = BaseIdentity("b" * 40, "base", "e" * 64)
    reports = [msgspec.structs.replace(r, base=other) for r in legs(base, head)]
    decision = decide(base, reports, base="b" * 40, head=head)
    assert decision.exit_code == 3
    assert any("another spec of the head" in problem for problem in decision.problems)
