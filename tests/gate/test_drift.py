"""What weakens the gate is seen, and what strengthens it passes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from builders import judged, parse, report

from tiergate import checkers, drift, drift_criteria, spec
from tiergate.decide import Decision, decide
from tiergate.prove import declared
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
    needs: [IMPORTS]
    timeout: 60
  - id: PROVEN
    uses: pytest
    with: {paths: [tests/c.py]}
    expect: {passed: 12}
    proofs:
      - name: a module is gone
        delete: src/a.py
        status: error
        evidence: No module
      - name: it does not add up
        replace: {file: src/b.py, old: a + b, new: a - b}
        expect: {passed: 8, failed: ">=3"}
  - id: SUITE
    uses: collection
    with: {args: [-rA]}
    expect: {collected: ">=605"}
    retries: 1
  - id: LOADS
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [src]}
  - id: PICKLES
    uses: checkpoints
    with: {paths: [models]}
  - id: LINT
    uses: command
    with: {run: [ruff, check]}
  - id: OTHER
    uses: script
    with: {run: [./other], parameters: {level: 3}}
"""

WAIVED = (
    BASE
    + """\
waivers:
  - criterion: LOADS
    reason: r
    owner: o
    expires: "2026-11-20"
    finding: {rule: unsafe-torch-load, path: src/a.py, fingerprint: "0123456789abcdef"}
"""
)
WAIVER = '  - {criterion: PICKLES, reason: r, owner: o, expires: "2026-11-20"}\n'
PROOF = "      - {name: another, append: {file: src/a.py, text: x}}\n"
REPLACE = "replace: {file: src/b.py, old: a + b, new: a - b}\n"
REPLACED = REPLACE + '        expect: {passed: 8, failed: ">=3"}'

WEAKER = {
    "a criterion is removed": (
        "  - id: PICKLES\n    uses: checkpoints\n    with: {paths: [models]}\n",
        "",
    ),
    "a criterion gets another id": ("id: PICKLES", "id: PICKLE"),
    "an exact number is lowered": ("passed: 11", "passed: 10"),
    "an exact number becomes a floor": ("passed: 11", 'passed: ">=11"'),
    "an exact number becomes relative": ("passed: 11", 'passed: ">=base"'),
    "a floor is lowered": (">=605", ">=604"),
    "a floor becomes relative": (">=605", ">=base"),
    "a bad outcome is allowed": ("{passed: 11}", "{passed: 11, skipped: 1}"),
    "a bad outcome is let free": ("{passed: 11}", '{passed: 11, failed: ">=0"}'),
    "findings are allowed": ("[models]}\n", "[models]}\n    expect: {findings: 1}\n"),
    "another exit code": ("[ruff, check]}\n", "[ruff, check]}\n    expect: {exit-code: 1}\n"),
    "a device is dropped": ("    devices: [cpu, cuda]\n", "    devices: [cuda]\n"),
    "a path is dropped": ("[tests/a.py, tests/b.py]", "[tests/a.py]"),
    "a path is replaced": ("tests/b.py", "tests/c.py"),
    "another suite": ("{args: [-rA]}", "{args: [-rA], paths: [tests/unit]}"),
    "another folder is scanned": ("paths: [src]", "paths: [src/a]"),
    "another folder of models": ("[models]", "[models/small]"),
    "another rule": ("[unsafe-torch-load]", "[item-on-batch]"),
    "an older torch is taken for safe": ("paths: [src]}", "paths: [src], policy: floor-2.6}"),
    "harmless pickles are let through": ("[models]}", "[models], policy: scan}"),
    "a name is dropped": ("[x, y]", "[x]"),
    "another module is imported": ("module: a", "module: b"),
    "the origin does not matter": ("names: [x, y]", "names: [x, y], origin: anywhere"),
    "arguments change": ("[--import-mode=importlib]", "[--import-mode=append]"),
    "arguments of the suite change": ("[-rA]", "[-rA, --import-mode=append]"),
    "another command": ("[ruff, check]", "[ruff, version]"),
    "another script": ("[./other]", "[./another]"),
    "a script's parameters": ("level: 3", "level: 2"),
    "tests are only collected": (
        "args: [--import-mode=importlib]}\n    expect: {passed: 11}",
        "args: [--import-mode=importlib], collect-only: true}\n    expect: {collected: 11}",
    ),
    "another checker": (
        'uses: collection\n    with: {args: [-rA]}\n    expect: {collected: ">=605"}',
        "uses: command\n    with: {run: [a]}",
    ),
    "a need is dropped": ("    needs: [IMPORTS]\n", ""),
    "more time": ("timeout: 60", "timeout: 61"),
    "more time for all": ("gate: T\n", "gate: T\ntimeout: 601\n"),
    "more retries": ("retries: 1", "retries: 2"),
    "flakes only warn": ("retries: 1", "retries: 1\n    flaky: warn"),
    "another path comes first": ("pythonpath: [src]", "pythonpath: [lib, src]"),
    "the environment changes": ("pythonpath: [src]", "pythonpath: [src]\nenv: {A: b}"),
    "a variable is passed": ("pythonpath: [src]", "pythonpath: [src]\npass-env: [A]"),
    "a waiver is added": ("waivers:\n", "waivers:\n" + WAIVER),
    "a waiver is prolonged": ('"2026-11-20"', '"2026-11-21"'),
    "a waiver of another criterion": ("criterion: LOADS", "criterion: LINT"),
    "a waiver of every finding": (
        '    finding: {rule: unsafe-torch-load, path: src/a.py, fingerprint: "0123456789abcdef"}\n',
        "",
    ),
    "a waiver of another finding": ("0123456789abcdef", "0123456789abcdee"),
    "a waiver of another rule": ("rule: unsafe-torch-load", "rule: item-on-batch"),
    "a waiver of another file": ("path: src/a.py, f", "path: src/b.py, f"),
    "a proof is removed": (
        (
            "      - name: a module is gone\n        delete: src/a.py\n        status: error\n"
            "        evidence: No module\n"
        ),
        "",
    ),
    "a proof becomes another one": (
        "name: a module is gone\n        delete: src/a.py",
        "name: another is gone\n        delete: src/b.py",
    ),
    "a proof deletes something else": ("delete: src/a.py", "delete: src/b.py"),
    "a proof replaces in another file": ("{file: src/b.py, old", "{file: src/c.py, old"),
    "a proof replaces another text": ("old: a + b", "old: a"),
    "a proof puts another text": ("new: a - b", "new: fail"),
    "a proof appends instead": (REPLACED, "append: {file: src/a.py, text: fail}"),
    "a proof creates instead": (REPLACED, "create: {file: src/a.py, text: fail}"),
    "a proof patches instead": (REPLACED, "patch: tests/a.patch"),
    "a proof expects less of it": ('failed: ">=3"}', 'failed: ">=2"}'),
    "a proof expects another number": ("passed: 8,", "passed: 7,"),
    "a proof says no number": ("passed: 8, failed", "failed"),
    "a proof allows what it did not": ('failed: ">=3"}', 'failed: ">=3", errors: ">=0"}'),
    "a proof says no numbers": ('\n        expect: {passed: 8, failed: ">=3"}', ""),
    "a proof is content with an error": (REPLACED, REPLACE + "        status: error"),
    "a proof becomes a failure": ("        status: error\n", ""),
    "a proof names less": ("evidence: No module", "evidence: No"),
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
    "a need is added": ("    retries: 1", "    retries: 1\n    needs: [TESTS]"),
    "less time": ("    retries: 1", "    retries: 1\n    timeout: 5"),
    "fewer retries": ("retries: 1", "retries: 0"),
    "no pickle at all": ("[models]}", "[models], policy: none}"),
    "something free is expected": (
        "paths: [src]}\n",
        'paths: [src]}\n    expect: {findings: 0, scanned: ">=9"}\n',
    ),
    "a waiver is shortened": ('"2026-11-20"', '"2026-11-19"'),
    "a waiver of one device": ("    owner: o\n", "    owner: o\n    device: cpu\n"),
    "a proof is added": ("    proofs:\n", "    proofs:\n" + PROOF),
    "a proof expects more of it": ('failed: ">=3"', "failed: 3"),
    "a proof names more": ("evidence: No module", "evidence: No module named a"),
}

NEUTRAL = {
    "names": ("uses: imports", "uses: imports\n    name: n"),
    "remedies": ("uses: imports", "uses: imports\n    remedy: {task: '1'}"),
    "the remedy of the tier": ("gate: T\n", "gate: T\nremedy: {task: '1'}\n"),
    "the name of the gate": ("gate: T\n", "gate: U\n"),
    "what a pass unlocks": ("gate: T\n", "gate: T\nnext: U\n"),
    "the order": ("gate: T\ndevices: [cpu, cuda]", "devices: [cpu, cuda]\ngate: T"),
    "comments": ("gate: T", "# why\ngate: T"),
    "a zero that was implied": ("{passed: 11}", "{passed: 11, failed: 0}"),
    "the engine": ("paths: [src]}", "paths: [src], engine: default}"),
    "memory of the GPU": ("uses: imports", "uses: imports\n    gpu-memory: 8"),
    "the name of a proof": ("name: a module is gone", "name: the module is gone"),
}

SHOWN_BY = {
    "GateFile.gate": "the name of the gate",
    "GateFile.next": "what a pass unlocks",
    "GateFile.criteria": "a criterion is removed",
    "GateFile.remedy": "the remedy of the tier",
    "GateFile.tiers": "test_a_criterion_moved_to_a_later_tier_is_weaker",
    "GateFile.devices": "test_a_leg_that_is_removed_weakens_and_one_that_is_added_does_not",
    "GateFile.pythonpath": "another path comes first",
    "GateFile.env": "the environment changes",
    "GateFile.pass-env": "a variable is passed",
    "GateFile.timeout": "more time for all",
    "GateFile.waivers": "a waiver is added",
    "TierEntry.gate": "the name of the gate",
    "TierEntry.next": "what a pass unlocks",
    "TierEntry.criteria": "test_a_criterion_moved_to_a_later_tier_is_weaker",
    "TierEntry.remedy": "the remedy of the tier",
    "CriterionEntry.id": "a criterion gets another id",
    "CriterionEntry.uses": "another checker",
    "CriterionEntry.name": "names",
    "CriterionEntry.with": "arguments change",
    "CriterionEntry.expect": "an exact number is lowered",
    "CriterionEntry.devices": "a device is dropped",
    "CriterionEntry.needs": "a need is dropped",
    "CriterionEntry.timeout": "more time",
    "CriterionEntry.gpu-memory": "memory of the GPU",
    "CriterionEntry.remedy": "remedies",
    "CriterionEntry.retries": "more retries",
    "CriterionEntry.flaky": "flakes only warn",
    "CriterionEntry.proofs": "a proof is removed",
    "WaiverEntry.criterion": "a waiver of another criterion",
    "WaiverEntry.reason": "test_other_words_of_a_waiver_are_shown_and_weaken_nothing",
    "WaiverEntry.owner": "test_other_words_of_a_waiver_are_shown_and_weaken_nothing",
    "WaiverEntry.expires": "a waiver is prolonged",
    "WaiverEntry.device": "a waiver of one device",
    "WaiverEntry.finding": "a waiver of every finding",
    "FindingEntry.rule": "a waiver of another rule",
    "FindingEntry.path": "a waiver of another file",
    "FindingEntry.fingerprint": "a waiver of another finding",
    "ProofEntry.name": "the name of a proof",
    "ProofEntry.replace": "a proof appends instead",
    "ProofEntry.append": "a proof appends instead",
    "ProofEntry.create": "a proof creates instead",
    "ProofEntry.delete": "a proof deletes something else",
    "ProofEntry.patch": "a proof patches instead",
    "ProofEntry.expect": "a proof expects less of it",
    "ProofEntry.status": "a proof is content with an error",
    "ProofEntry.evidence": "a proof names less",
    "Replacement.file": "a proof replaces in another file",
    "Replacement.old": "a proof replaces another text",
    "Replacement.new": "a proof puts another text",
    "Addition.file": "a proof appends instead",
    "Addition.text": "a proof appends instead",
    "imports.module": "another module is imported",
    "imports.names": "a name is dropped",
    "imports.origin": "the origin does not matter",
    "pytest.paths": "a path is dropped",
    "pytest.collect-only": "tests are only collected",
    "pytest.args": "arguments change",
    "collection.paths": "another suite",
    "collection.args": "arguments of the suite change",
    "semgrep.rules": "another rule",
    "semgrep.paths": "another folder is scanned",
    "semgrep.engine": "the engine",
    "semgrep.policy": "an older torch is taken for safe",
    "checkpoints.paths": "another folder of models",
    "checkpoints.policy": "harmless pickles are let through",
    "command.run": "another command",
    "script.run": "another script",
    "script.parameters": "a script's parameters",
}
"""Each key of the spec, and the case that shows what its change counts for."""


def keys_of_the_spec() -> Iterator[str]:
    entries = (
        spec.GateFile,
        spec.TierEntry,
        spec.CriterionEntry,
        spec.WaiverEntry,
        spec.FindingEntry,
        declared.ProofEntry,
        declared.Replacement,
        declared.Addition,
    )
    for entry in entries:
        yield from (f"{entry.__name__}.{name}" for name in entry.__struct_encode_fields__)
    for uses in checkers.BUILT_IN:
        of_checker = checkers.get(uses).With
        yield from (f"{uses}.{name}" for name in of_checker.__struct_encode_fields__)


def test_every_key_of_the_spec_has_a_case():
    assert sorted(SHOWN_BY) == sorted(keys_of_the_spec())
    tests = {name for name in globals() if name.startswith("test_")}
    assert set(SHOWN_BY.values()) <= {*WEAKER, *STRONGER, *NEUTRAL, *tests}


@pytest.mark.parametrize(
    ("of", "compared"),
    [
        (spec.Spec, drift.SETTINGS),
        (spec.Tier, drift.OF_TIERS),
        (spec.Criterion, drift_criteria.FIELDS),
    ],
    ids=["the whole", "a tier", "a criterion"],
)
def test_every_field_is_compared_or_named_as_one_that_decides_nothing(of, compared):
    assert list(of.__struct_fields__) == sorted(compared, key=list(of.__struct_fields__).index)


@pytest.mark.parametrize(
    "name",
    [name for name in spec.Criterion.__struct_fields__ if name not in {"uses", "parameters"}],
)
def test_a_field_of_a_criterion_that_is_not_known_counts_as_weaker(monkeypatch, name):
    known = {field: how for field, how in drift_criteria.FIELDS.items() if field != name}
    monkeypatch.setattr(drift_criteria, "FIELDS", known)
    old = parse(BASE).criterion("TESTS")
    (change,) = drift_criteria.compare(old, msgspec.structs.replace(old, **{name: "other"}))
    assert (change.message, change.weakening) == (f"{name.replace('_', '-')} changed", True)


@pytest.mark.parametrize(
    ("table", "name", "old", "new", "message"),
    [
        ("SETTINGS", "env", "pythonpath: [src]", "pythonpath: [src]\nenv: {A: b}", "changed"),
        ("OF_TIERS", "next", "gate: T\n", "gate: T\nnext: U\n", "next changed"),
    ],
)
def test_another_field_that_is_not_known_counts_as_weaker(
    monkeypatch, table, name, old, new, message
):
    known = {field: how for field, how in getattr(drift, table).items() if field != name}
    monkeypatch.setattr(drift, table, known)
    (change,) = changes(old, new)
    assert (change.message, change.weakening) == (message, True)


def test_a_parameter_of_a_foreign_checker_counts_as_weaker_whatever_its_name(monkeypatch):
    monkeypatch.setattr(drift_criteria, "GROWING", frozenset())
    assert [c.weakening for c in changes("[x, y]", "[x, y, z]")] == [True]


def specs(old: str, new: str) -> tuple[Spec, Spec]:
    base = BASE if old in BASE else WAIVED
    assert base.count(old) == 1
    return parse(base), parse(base.replace(old, new))


def changes(old: str, new: str):
    return drift.compare(*specs(old, new))


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


@pytest.mark.parametrize(("old", "new"), [("reason: r", "reason: s"), ("owner: o", "owner: p")])
def test_other_words_of_a_waiver_are_shown_and_weaken_nothing(old, new):
    found = changes(old, new)
    assert [(c.where, c.weakening) for c in found] == [("waivers", False)]
    base, head = specs(old, new)
    assert drift.deciding(base, head, allow_weakening=False).waivers == head.waivers


def test_a_leg_that_is_removed_weakens_and_one_that_is_added_does_not():
    one, two = parse(BASE.replace("[cpu, cuda]", "[cpu]")), parse(BASE)
    removed = [(c.message, c.weakening) for c in drift.compare(two, one) if c.where == "devices"]
    added = [(c.message, c.weakening) for c in drift.compare(one, two) if c.where == "devices"]
    assert (removed, added) == ([("cuda leg removed", True)], [("cuda leg added", False)])


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
    base, head = specs(old, new)
    reports = legs(base, head, allow, **statuses)
    return decide(base, reports, base="b" * 40, head=head, allow_weakening=allow)


@pytest.mark.parametrize("way", WEAKER)
def test_a_weakened_spec_fails_unless_it_is_allowed(way):
    decision = decide_on(*WEAKER[way])
    assert decision.conclusion == "failed"
    assert decision.exit_code == 1
    assert any("the head weakens the spec" in remark.text for remark in decision.remarks)
    if "waive" not in way:  # no criterion fails here, so that a waiver would match nothing
        assert decide_on(*WEAKER[way], allow=True).exit_code == 0


@pytest.mark.parametrize("way", STRONGER)
def test_a_strengthened_spec_passes_when_the_head_holds_it(way):
    decision = decide_on(*STRONGER[way])
    assert not decision.weakened
    if "waiver" not in way:  # no criterion fails here, so that a waiver matches nothing
        assert decision.exit_code == 0


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
    base, head = parse(WAIVED), parse(BASE)
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
