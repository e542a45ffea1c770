"""Attacks between the legs: on the reports, the spec and the base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from attack_sample import Changes

from tiergate import plan, spec, verdict
from tiergate.decide import Decision, decide
from tiergate.errors import UserError
from tiergate.spec import Spec
from tiergate.verdict import Evidence, Report, Run, Source, Verdict

GATE = """\
gate: SAMPLE
devices: [cpu, cuda]
criteria:
  - {id: tests, uses: pytest, with: {paths: [tests]}, expect: {passed: 3}, devices: [cpu, cuda]}
  - {id: rules, uses: semgrep, with: {rules: [unsafe-torch-load], paths: [src]}, needs: [tests]}
"""
SOURCE = Source(commit="c" * 40, tree="7" * 64)
RUN = Run(id="1001", attempt=1)


@dataclass(frozen=True)
class ReportAttack:
    """What a platform hands to the decision instead of two good reports."""

    name: str
    way: str
    reports: Callable[[Spec], list[Report]]
    shows: str


@dataclass(frozen=True)
class SpecAttack:
    """A spec that would always pass, and its honest neighbour."""

    name: str
    way: str
    gate: str
    shows: str
    control: str


@dataclass(frozen=True)
class BaseAttack:
    """A change that only a comparison with the base branch shows, and its honest neighbour."""

    name: str
    way: str
    base: Changes
    head: Changes
    shows: str
    control: Changes


def good(of: Spec, device: Any, **changes: Any) -> Report:
    """Return the report of a leg in which every cell passed."""
    cells = plan.cells(of, device)
    made = Report(
        schema_version=verdict.SCHEMA_VERSION,
        tool_version="0",
        spec=verdict.SpecIdentity("gate.yaml", of.digest),
        source=SOURCE,
        device=device,
        planned=[cell.name for cell in cells],
        selected=[cell.name for cell in cells],
        complete=True,
        started="2026-01-02T03:04:05+00:00",
        seconds=1.0,
        verdicts=[Verdict(cell.criterion.id, device, "pass", "as expected") for cell in cells],
        device_proof={"name": "GPU", "capability": "9.0", "result": "1"}
        if device == "cuda"
        else {},
        run=RUN,
    )
    return msgspec.structs.replace(made, **changes)


def _counting(of: Spec, **observed: int) -> Report:
    """Return the report of the CPU's leg, with what the tests came to."""
    leg = good(of, "cpu")
    tests, *others = leg.verdicts
    counted = msgspec.structs.replace(tests, evidence=Evidence(observed=observed))
    return msgspec.structs.replace(leg, verdicts=[counted, *others])


def both(of: Spec) -> list[Report]:
    """Return the reports of two legs in which all is well: the control of every report attack."""
    return [good(of, "cpu"), good(of, "cuda")]


def counted(of: Spec) -> list[Report]:
    """Return two good reports, one of which says what it counted."""
    return [_counting(of, passed=3), good(of, "cuda")]


def decision(reports: Callable[[Spec], list[Report]]) -> Decision:
    """Decide over what a platform hands over."""
    gate = spec.parse(GATE.encode(), Path("gate.yaml"))
    return decide(gate, reports(gate), source=SOURCE)


def refusal(gate: str) -> str:
    """Return why a spec is refused, or nothing."""
    try:
        spec.parse(gate.encode(), Path("gate.yaml"))
    except UserError as error:
        return str(error)
    return ""


def _failing(of: Spec, *, needed: bool) -> list[Report]:
    cpu, cuda = both(of)
    failed = msgspec.structs.replace(cpu.verdicts[0], status="fail")
    verdicts = [failed, cpu.verdicts[1]] if needed else [failed]
    return [msgspec.structs.replace(cpu, verdicts=verdicts), cuda]


REPORTS = [
    ReportAttack(
        "leg-skipped",
        "a leg is skipped, cancelled, or taken out of the matrix: its job counts as no failure",
        lambda of: [good(of, "cpu")],
        "the cuda leg has no report",
    ),
    ReportAttack("no-report", "every leg is skipped", lambda of: [], "has no report"),
    ReportAttack(
        "leg-interrupted",
        "a leg is cancelled half-way and its report is kept",
        lambda of: [
            good(of, "cpu", complete=False, interruption="interrupted by SIGTERM"),
            good(of, "cuda"),
        ],
        "incomplete: interrupted by SIGTERM",
    ),
    ReportAttack(
        "leg-tolerated",
        "`continue-on-error` makes the failed leg's job a success",
        lambda of: _failing(of, needed=False),
        "no verdict in the report of the cpu leg",
    ),
    ReportAttack(
        "need-failed",
        "a cell passes although what it needs failed",
        lambda of: _failing(of, needed=True),
        "passed, although tests@cpu did not",
    ),
    ReportAttack(
        "contradictory",
        "a report says that a cell passed, in which a test failed",
        lambda of: [_counting(of, passed=2, failed=1), good(of, "cuda")],
        "tests@cpu: says that it passed, and counts otherwise: failed: expected 0, observed 1",
    ),
    ReportAttack(
        "doubled",
        "a job of another workflow uploads a second, passing report",
        lambda of: [*both(of), good(of, "cpu")],
        "2 verdicts, where there must be exactly one",
    ),
    ReportAttack(
        "other-spec",
        "a report that was made from another spec",
        lambda of: [
            good(of, "cpu", spec=verdict.SpecIdentity("gate.yaml", "0" * 64)),
            good(of, "cuda"),
        ],
        "made from another spec",
    ),
    ReportAttack(
        "other-commit",
        "a report of the head, where the merged state is to be judged",
        lambda of: [good(of, "cpu", source=Source("d" * 40, "8" * 64)), good(of, "cuda")],
        "of another state of the repository",
    ),
    ReportAttack(
        "other-run",
        "an artifact of an earlier run",
        lambda of: [good(of, "cpu", run=Run("1000", 1)), good(of, "cuda")],
        "the reports are of different runs",
    ),
    ReportAttack(
        "earlier-attempt",
        "the failed latest attempt stands beside a passing earlier one",
        lambda of: [
            good(of, "cpu"),
            *(msgspec.structs.replace(r, run=Run("1001", 2)) for r in _failing(of, needed=False)),
        ],
        "no verdict in the report of the cpu leg",
    ),
    ReportAttack(
        "no-device",
        "the CUDA leg ran on a machine, or with a build, without CUDA",
        lambda of: [good(of, "cpu"), good(of, "cuda", device_proof={})],
        "carries no proof of a CUDA device",
    ),
    ReportAttack(
        "misplaced",
        "the CPU leg's verdicts are handed in for the CUDA leg",
        lambda of: [
            good(of, "cpu"),
            good(of, "cuda", verdicts=good(of, "cpu").verdicts),
        ],
        "carries verdicts of another device",
    ),
    ReportAttack(
        "strange-cell",
        "verdicts on cells that the spec does not have",
        lambda of: [
            good(
                of, "cpu", verdicts=[*good(of, "cpu").verdicts, Verdict("more", "cpu", "pass", "")]
            ),
            good(of, "cuda"),
        ],
        "a verdict on a cell that the spec does not have",
    ),
    ReportAttack(
        "waived",
        "a verdict says that it is waived",
        lambda of: [
            good(
                of,
                "cpu",
                verdicts=[
                    Verdict(v.criterion, "cpu", "waived", "") for v in good(of, "cpu").verdicts
                ],
            ),
            good(of, "cuda"),
        ],
        "waived, but the spec has no waiver",
    ),
]

_HEAD = "gate: SAMPLE\ncriteria:\n"
_PYTEST = "  - {id: tests, uses: pytest, with: {paths: [tests]}, expect: {passed: 3}}\n"
_SEMGREP = "  - {id: rules, uses: semgrep, with: {rules: [unsafe-torch-load], paths: [src]}}\n"

SPECS = [
    SpecAttack(
        "empty-gate",
        "a gate without criteria: `all([])` is true",
        "gate: SAMPLE\ncriteria: []\n",
        "an empty gate would always pass",
        _HEAD + _PYTEST,
    ),
    SpecAttack(
        "nothing-expected",
        "a criterion without a count",
        _HEAD + _PYTEST.replace("passed: 3", "errors: 0"),
        "without it the criterion could not fail",
        _HEAD + _PYTEST,
    ),
    SpecAttack(
        "vacuous-count",
        "a count that always holds",
        _HEAD + _PYTEST.replace("passed: 3", 'passed: ">=0"'),
        "always holds",
        _HEAD + _PYTEST,
    ),
    SpecAttack(
        "or-true",
        "`|| true`",
        _HEAD + "  - {id: lint, uses: command, with: {run: [ruff, check, '||', 'true']}}\n",
        "means nothing without a shell",
        _HEAD + "  - {id: lint, uses: command, with: {run: [ruff, check]}}\n",
    ),
    SpecAttack(
        "pipe",
        "`pytest | tee`: the status of the last program counts",
        _HEAD + "  - {id: lint, uses: command, with: {run: [pytest, '|', tee, log]}}\n",
        "means nothing without a shell",
        _HEAD + "  - {id: lint, uses: command, with: {run: [pytest]}}\n",
    ),
    SpecAttack(
        "arguments",
        "`--collect-only` among a criterion's arguments",
        _HEAD + _PYTEST.replace("[tests]}", "[tests], args: [--collect-only]}"),
        "would change what is judged",
        _HEAD + _PYTEST.replace("[tests]}", "[tests], args: [-x]}"),
    ),
    SpecAttack(
        "unknown-rule",
        "a rule that does not exist finds nothing",
        _HEAD + _SEMGREP.replace("unsafe-torch-load", "unsafe-load"),
        "unknown rule",
        _HEAD + _SEMGREP,
    ),
    SpecAttack(
        "no-rules",
        "no rules: they find nothing",
        _HEAD + _SEMGREP.replace("[unsafe-torch-load]", "[]"),
        "rules",
        _HEAD + _SEMGREP,
    ),
    SpecAttack(
        "excluded",
        "`exclude:` in a semgrep criterion",
        _HEAD + _SEMGREP.replace("[src]", "[src], exclude: [x]"),
        "exclude",
        _HEAD + _SEMGREP,
    ),
]

_PRICES = "tests/test_prices.py"
_TOTAL = ("def test_total():\n    assert total([1, 2]) == 3\n", "")
_BY_ID = {"gate.yaml": ("{passed: 3}", '{passed: ">=base"}')}

BASES = [
    BaseAttack(
        "same-count",
        "the failing test is deleted, and another one counts twice",
        _BY_ID,
        {
            "src/shop/prices.py": ("return sum(prices)", "return sum(prices) + 1"),
            _PRICES: (
                _TOTAL[0] + "\n\ndef test_discount():",
                '@pytest.mark.parametrize("again", [1, 2])\ndef test_discount(again):',
            ),
        },
        "test_total",
        {_PRICES: ("def test_total()", "def test_the_sum()")},
    ),
    BaseAttack(
        "lowered",
        "the change lowers the expectation that it does not meet",
        {"gate.yaml": ("{passed: 3}", '{passed: ">=3"}')},
        {_PRICES: _TOTAL, "gate.yaml": ('">=3"', '">=2"')},
        "passed: expected >=3, observed 2",
        {
            _PRICES: (_TOTAL[0], _TOTAL[0] + "\n\ndef test_none():\n    assert total([]) == 0\n"),
            "gate.yaml": ('">=3"', '">=4"'),
        },
    ),
]
