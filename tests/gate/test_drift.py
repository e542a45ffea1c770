"""What weakens the gate is seen, and what strengthens it passes."""

from __future__ import annotations

import pytest
from builders import judged, parse, report

from tiergate import drift
from tiergate.decide import decide
from tiergate.verdict import BaseIdentity

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


def decide_on(old: str, new: str, **options):
    base, head = parse(BASE), parse(BASE.replace(old, new))
    identity = BaseIdentity("b" * 40, "base", head.digest)
    changed = drift.changed_criteria(base, head)
    reports = []
    for device in ("cpu", "cuda"):
        own = [
            judged(c.id, device) for c in head.criteria if c.id in changed and device in c.devices
        ]
        reports.append(report(base, device, base=identity, head_verdicts=own))
    return decide(base, reports, base="b" * 40, head=head, **options)


def test_a_weakened_spec_fails_unless_it_is_allowed():
    decision = decide_on(*WEAKER["an exact number is lowered"])
    assert decision.conclusion == "failed"
    assert decision.exit_code == 1
    assert "the head weakens the spec" in decision.remarks[-1].text
    assert decide_on(*WEAKER["an exact number is lowered"], allow_weakening=True).exit_code == 0


def test_a_strengthened_spec_passes_when_the_head_holds_it():
    assert decide_on(*STRONGER["a criterion is added"]).exit_code == 0


def test_the_heads_own_criteria_must_pass_too():
    base, head = parse(BASE), parse(BASE.replace(*STRONGER["an exact number is raised"]))
    identity = BaseIdentity("b" * 40, "base", head.digest)
    legs = [
        report(base, "cpu", base=identity, head_verdicts=[judged("TESTS", status="fail")]),
        report(base, "cuda", base=identity, head_verdicts=[judged("TESTS", "cuda")]),
    ]
    assert decide(base, legs, base="b" * 40, head=head).conclusion == "failed"


def test_a_missing_verdict_on_the_heads_own_criterion_is_no_pass():
    base, head = parse(BASE), parse(BASE.replace(*STRONGER["an exact number is raised"]))
    identity = BaseIdentity("b" * 40, "base", head.digest)
    legs = [report(base, device, base=identity) for device in ("cpu", "cuda")]
    decision = decide(base, legs, base="b" * 40, head=head)
    assert decision.exit_code == 3
    assert "the head's own TESTS@cpu: no verdict in the report of the cpu leg" in decision.problems


@pytest.mark.parametrize(
    ("made", "asked"),
    [("", "b" * 40), ("b" * 40, ""), ("a" * 40, "b" * 40)],
    ids=["report without a base", "decision without a base", "another base"],
)
def test_reports_against_another_base_are_refused(made, asked):
    base = parse(BASE)
    identity = BaseIdentity(made, "base", base.digest) if made else None
    legs = [report(base, device, base=identity) for device in ("cpu", "cuda")]
    assert decide(base, legs, base=asked).exit_code == 3


def test_a_report_on_another_spec_of_the_head_is_refused():
    base, head = parse(BASE), parse(BASE.replace(*STRONGER["a floor is raised"]))
    identity = BaseIdentity("b" * 40, "base", "e" * 64)
    legs = [
        report(base, device, base=identity, head_verdicts=own)
        for device, own in (("cpu", [judged("SUITE")]), ("cuda", []))
    ]
    decision = decide(base, legs, base="b" * 40, head=head)
    assert decision.exit_code == 3
    assert any("another spec of the head" in problem for problem in decision.problems)
