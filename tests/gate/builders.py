"""Small functions that build specs, verdicts and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tiergate import plan, spec, verdict
from tiergate.spec import Spec
from tiergate.verdict import Report, Source, Verdict

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
