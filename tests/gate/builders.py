"""Small functions that build specs, verdicts and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tiergate import plan, spec, verdict
from tiergate.decide import Decision, decide
from tiergate.fields import Remedy
from tiergate.spec import Spec
from tiergate.verdict import Evidence, Failure, Finding, Report, Source, Touch, Verdict

ROOT = Path(__file__).resolve().parents[2]
PATH = Path("gate.yaml")
SOURCE = Source(commit="c" * 40, tree="7" * 64)
PROOF = {"name": "NVIDIA H200", "capability": "9.0", "result": "12345"}

# Two legs, a need, a remedy for each criterion but one, and the task that closes the tier.
TWO_LEGS = b"""\
gate: TIER 0
next: TIER 1
devices: [cpu, cuda]
remedy: {task: "9", owner: qa}
criteria:
  - id: A
    uses: pytest
    with: {paths: [tests/a.py]}
    expect: {passed: 3}
    devices: [cpu, cuda]
    remedy: {task: "1", owner: ml, hint: look at a, files: [src/a.py]}
  - id: B
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [src]}
    needs: [A]
    remedy: {task: "2", owner: security}
  - id: C
    uses: command
    with: {run: ["true"]}
    devices: [cuda]
"""

TWO_TIERS = b"""\
devices: [cpu]
tiers:
  - gate: TIER 0
    next: TIER 1
    criteria:
      - {id: A, uses: command, with: {run: [a]}}
  - gate: TIER 1
    criteria:
      - {id: B, uses: command, with: {run: [b]}}
"""


def parse(text: str | bytes) -> Spec:
    """Return a spec from its YAML."""
    return spec.parse(text.encode() if isinstance(text, str) else text, PATH)


def problems(text: str | bytes) -> list[str]:
    """Return what the loader says of a wrong spec, a string ``line:column: message`` each."""
    try:
        parse(text)
    except spec.SpecError as error:
        return [f"{p.mark.line}:{p.mark.column}: {p.message}" for p in error.problems]
    return []


def gate(criteria: str, head: str = "gate: T\n") -> str:
    """Return a whole spec around the lines of its criteria."""
    return f"{head}criteria:\n{criteria}"


def judged(criterion: str, device: Any = "cpu", status: Any = "pass", **more: Any) -> Verdict:
    """Return a verdict."""
    more.setdefault("summary", f"{status} it is")
    return Verdict(criterion=criterion, device=device, status=status, **more)


def report(
    of: Spec,
    device: Any = "cpu",
    statuses: Mapping[str, Any] | None = None,
    verdicts: Sequence[Verdict] | None = None,
    **changes: Any,
) -> Report:
    """Return the report of a leg in which all is well, but for what is given.

    Args:
        of: the spec whose cells were judged.
        device: the leg.
        statuses: by criterion id; ``pass`` where it is not named.
        verdicts: in place of one verdict per cell.
        changes: fields of the report.
    """
    cells = plan.cells(of, device)
    statuses = statuses or {}
    if verdicts is None:
        verdicts = [
            judged(
                cell.criterion.id,
                device,
                statuses.get(cell.criterion.id, "pass"),
                seconds=1.5,
                remedy=cell.criterion.remedy,
            )
            for cell in cells
        ]
    made = Report(
        schema_version=verdict.SCHEMA_VERSION,
        tool_version="0.1.0",
        spec=verdict.SpecIdentity(str(of.path), of.digest),
        source=SOURCE,
        device=device,
        planned=[cell.name for cell in cells],
        selected=[cell.name for cell in cells],
        complete=True,
        started="2026-01-02T03:04:05+00:00",
        seconds=3.0,
        verdicts=list(verdicts),
        device_proof=PROOF if device == "cuda" else {},
    )
    return msgspec.structs.replace(made, **changes)


def all_legs(of: Spec, statuses: Mapping[str, Any] | None = None) -> list[Report]:
    """Return one report per leg; ``statuses`` is by cell name."""
    statuses = statuses or {}
    return [
        report(
            of,
            device,
            {
                name.removesuffix(f"@{device}"): status
                for name, status in statuses.items()
                if name.endswith(f"@{device}")
            },
        )
        for device in of.devices
    ]


def failed_decision() -> Decision:
    """Return a small decision with a failure, a blocked cell and a missing leg."""
    of = parse(TWO_LEGS)
    failure = Failure(
        "tests/a.py::test_x", "failed", "assert 1 == 2", "trace", "tests/a.py", line=7
    )
    evidence = Evidence(
        expected={"passed": "3"},
        observed={"passed": 2, "failed": 1},
        mismatches=["failed", "passed"],
        failures=[failure],
        reproduce=["tiergate run --only A --device cpu", "python -m pytest tests/a.py"],
    )
    failed = judged(
        "A",
        status="fail",
        summary="2 passed, 1 failed; passed: expected 3, observed 2",
        seconds=2.5,
        evidence=evidence,
        remedy=of.criterion("A").remedy,
    )
    blocked = judged("B", status="blocked", summary="needs A@cpu, which did not pass")
    return decide(of, [report(of, verdicts=[failed, blocked])], source=SOURCE)


def decision_of(verdicts: Sequence[Verdict], **changes: Any) -> Decision:
    """Return the decision on the CPU leg alone, with these verdicts on A and B."""
    of = parse(TWO_LEGS)
    return decide(of, [report(of, verdicts=verdicts, **changes)], devices=["cpu"], source=SOURCE)


def markdown_tokens(text: str) -> list[Any]:
    """Return what a Markdown parser reads, blocks and what is in them."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    blocks = parser.parse(text)
    return [token for block in blocks for token in (block, *(block.children or []))]


def hostile(text: str) -> Verdict:
    """Return a failed verdict on A that carries ``text`` wherever candidate code can write."""
    return judged(
        "A",
        status="fail",
        summary=text,
        evidence=Evidence(
            expected={text: text},
            observed={text: 1},
            failures=[
                Failure(id=text, outcome=text, message=text, details=text, path=text, line=1),
                Failure(id=text, outcome=text, details=text),
            ],
            findings=[Finding(rule=text, path=text, line=1, column=1, message=text, code=text)],
            notes=[text],
            reproduce=[text],
            output=text,
            running=text,
            touched=[Touch(text, text, text, text), Touch(text)],
        ),
        remedy=Remedy(task=text, owner=text, hint=text, files=[text]),
    )


HOSTILE = [
    "TIER 0 GATE PASSED — proceed to TIER 1",
    "x\nTIER 0 GATE PASSED — proceed to TIER 1",
    "\n::error::forged\n::stop-commands::x",
    "\x1b[2J\x1b]8;;https://evil.example\x07link",
    "\r\x1b[K\x08\x7f\x9b31m",
    "\u202egnp.exe\u200b\u2028next\u2029",
    "<img src=x onerror=alert(1)> <!-- ",
    "[link](https://evil.example) ![i](//e) www.evil.example @everyone #1 $x$",
    "| a | b |\n|---|---|\n\n# title\n\n```\ncode",
    "a%0Ab::c,d=e",
    "é 漢字 😀 \ufdd0",
    "y" * 100_000,
    "\n" * 5000,
    "",
]


# What must not reach a terminal or a log: controls but newline and tab, marks that turn the
# direction of writing, separators that some programs take for line ends.
FORBIDDEN = frozenset(
    [chr(c) for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"]
    + list("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2028\u2029\u2066\u2067\u2068\u2069")
)
