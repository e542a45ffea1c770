"""Reports → one decision. Pure: no files, no clock, no environment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from tiergate.errors import ExitCode
from tiergate.fields import Device
from tiergate.plan import Cell, all_cells
from tiergate.spec import Spec
from tiergate.verdict import PASSING, Report, Source, Verdict

Conclusion = Literal["passed", "failed", "not evaluated"]


@dataclass(frozen=True)
class TierDecision:
    """The decision on one tier."""

    gate: str
    next: str
    conclusion: Conclusion

    @property
    def sentence(self) -> str:
        """The line that people and scripts look for."""
        if self.conclusion == "passed":
            return f"{self.gate} GATE PASSED" + (f" — proceed to {self.next}" if self.next else "")
        if self.conclusion == "failed":
            return f"{self.gate} GATE FAILED — fix before proceeding"
        return f"{self.gate} GATE NOT EVALUATED — not a pass"


@dataclass(frozen=True)
class CellDecision:
    """One expected cell and its verdict, if there is exactly one."""

    cell: Cell
    verdict: Verdict | None

    @property
    def passed(self) -> bool:
        """Whether the cell lets the gate pass."""
        return self.verdict is not None and self.verdict.status in PASSING


@dataclass(frozen=True)
class Decision:
    """PASSED or not, and why."""

    conclusion: Conclusion
    tiers: tuple[TierDecision, ...]
    cells: tuple[CellDecision, ...]
    problems: tuple[str, ...]
    """Why reports cannot be believed, or what is missing; with any, the gate does not pass."""
    partial: tuple[str, ...] = ()
    """Cells of the spec that this decision was told to leave out."""

    @property
    def exit_code(self) -> ExitCode:
        """The contract's exit code."""
        if self.conclusion == "passed":
            return ExitCode.PASSED
        return ExitCode.FAILED if self.conclusion == "failed" else ExitCode.NOT_EVALUATED


def decide(
    spec: Spec,
    reports: Sequence[Report],
    *,
    devices: Collection[Device] | None = None,
    only: Collection[str] | None = None,
    source: Source | None = None,
    unreadable: Sequence[str] = (),
) -> Decision:
    """Put the reports of all legs together.

    Args:
        spec: says which cells there must be.
        reports: one per leg, in any order.
        devices: the legs to expect; by default all of the spec.
        only: the criteria to expect; by default all of the spec.
        source: the state of the repository that the reports must be of; by default, whichever it
            is, they must agree.
        unreadable: reports that could not be read, in words; each is a problem.
    """
    everything = all_cells(spec)
    expected = [
        cell for cell in all_cells(spec, devices) if only is None or cell.criterion.id in only
    ]
    problems = [*unreadable, *_identity_problems(spec, reports, source)]
    by_cell: dict[str, list[Verdict]] = defaultdict(list)
    for report in reports:
        for verdict in report.verdicts:
            by_cell[verdict.cell].append(verdict)
    names = {cell.name for cell in everything}
    problems.extend(
        f"{name}: a verdict on a cell that the spec does not have"
        for name in by_cell
        if name not in names
    )
    if not expected:
        problems.append("no cell is expected: an empty gate does not pass")
    cells = []
    for cell in expected:
        found = by_cell.get(cell.name, [])
        if len(found) != 1:
            problems.append(_miscounted(cell, len(found), reports))
        elif found[0].status == "waived":
            problems.append(f"{cell.name}: waived, but the spec has no waiver for it")
        cells.append(CellDecision(cell, found[0] if len(found) == 1 else None))
    problems.extend(_unmet_needs(cells))
    tiers = _tiers(spec, cells, believed=not problems)
    return Decision(
        conclusion=_overall(cells, believed=not problems),
        tiers=tiers,
        cells=tuple(cells),
        problems=tuple(problems),
        partial=tuple(c.name for c in everything if c.name not in {e.name for e in expected}),
    )


def _identity_problems(spec: Spec, reports: Sequence[Report], source: Source | None) -> list[str]:
    problems = []
    for report in reports:
        leg = f"report of the {report.device} leg"
        if report.spec.digest != spec.digest:
            problems.append(
                f"{leg}: made from another spec ({report.spec.path}, sha256 "
                f"{report.spec.digest[:12]}; this one is {spec.digest[:12]})"
            )
        if not report.complete:
            problems.append(f"{leg}: incomplete: {report.interruption or 'the run did not end'}")
        misplaced = sorted({v.cell for v in report.verdicts if v.device != report.device})
        if misplaced:
            problems.append(f"{leg}: carries verdicts of another device: {', '.join(misplaced)}")
        if report.device == "cuda" and not report.device_proof and _any_pass(report):
            problems.append(f"{leg}: carries no proof of a CUDA device")
        if source is not None and report.source.tree != source.tree:
            problems.append(
                f"{leg}: of another state of the repository (commit "
                f"{report.source.commit[:12] or 'none'}, tree {report.source.tree[:12] or 'none'}; "
                f"expected commit {source.commit[:12] or 'none'}, "
                f"tree {source.tree[:12] or 'none'})"
            )
    for what, values in {
        "commits": {r.source.commit for r in reports},
        "trees": {r.source.tree for r in reports},
        "runs": {r.run.id for r in reports},
    }.items():
        if len(values) > 1:
            shown = ", ".join(sorted(value[:12] or "none" for value in values))
            problems.append(f"the reports are of different {what}: {shown}")
    if len(reports) > 1 and any(not r.source.tree for r in reports):
        problems.append(
            "several reports, but not all say which state of the repository they judged"
        )
    return problems


def _any_pass(report: Report) -> bool:
    return any(verdict.status in PASSING for verdict in report.verdicts)


def _miscounted(cell: Cell, found: int, reports: Sequence[Report]) -> str:
    if found:
        return f"{cell.name}: {found} verdicts, where there must be exactly one"
    legs = [report for report in reports if report.device == cell.device]
    if not legs:
        return f"{cell.name}: no verdict: the {cell.device} leg has no report"
    return f"{cell.name}: no verdict in the report of the {cell.device} leg"


def _unmet_needs(cells: list[CellDecision]) -> list[str]:
    """No honest leg passes a cell when one that it needs did not pass."""
    passed = {decision.cell.name: decision.passed for decision in cells}
    return [
        f"{decision.cell.name}: passed, although {need} did not"
        for decision in cells
        if decision.passed
        for need in decision.cell.needs
        if not passed.get(need, True)
    ]


def _tiers(spec: Spec, cells: list[CellDecision], *, believed: bool) -> tuple[TierDecision, ...]:
    """A tier passes when its cells and all tiers under it pass."""
    tiers: list[TierDecision] = []
    for index, tier in enumerate(spec.tiers):
        own = [decision for decision in cells if decision.cell.tier == index]
        if not own:
            continue
        conclusion = _overall(own, believed=believed)
        if any(lower.conclusion != "passed" for lower in tiers) and conclusion == "passed":
            conclusion = "not evaluated"
        tiers.append(TierDecision(tier.gate, tier.next, conclusion))
    return tuple(tiers)


def _overall(cells: list[CellDecision], *, believed: bool) -> Conclusion:
    statuses = {decision.verdict.status for decision in cells if decision.verdict is not None}
    if "fail" in statuses:
        return "failed"
    if believed and cells and all(decision.passed for decision in cells):
        return "passed"
    return "not evaluated"
