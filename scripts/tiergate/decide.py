"""Reports → one decision. Pure: no files, no clock, no environment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date
from typing import Literal

import msgspec

from tiergate import assembly, checkers, drift, waivers
from tiergate.errors import ExitCode
from tiergate.expectation import mismatches
from tiergate.fields import Device
from tiergate.plan import Cell, all_cells
from tiergate.shards import ShardPlan, mismatch, uncovered
from tiergate.spec import Spec
from tiergate.verdict import PASSING, Change, Part, Report, Source, Verdict
from tiergate.waivers import Waiver

Conclusion = Literal["passed", "failed", "not evaluated"]

_REMARKABLE = ("flaky: ", "renamed since the base: ")
"""Notes of a passing verdict that are never silent."""

_DEVICE_PROOF = ("name", "capability", "result")
"""What a leg must show of its CUDA device."""


class TierDecision(msgspec.Struct, frozen=True):
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


class CellDecision(msgspec.Struct, frozen=True):
    """One expected cell and its verdict, if there is exactly one."""

    cell: Cell
    verdict: Verdict | None

    @property
    def passed(self) -> bool:
        """Whether the cell lets the gate pass."""
        return self.verdict is not None and self.verdict.status in PASSING


class Remark(msgspec.Struct, frozen=True):
    """A sentence on the decision as a whole."""

    text: str
    severe: bool = False
    """Whether it is a reason why the gate does not pass."""


class Decision(msgspec.Struct, frozen=True):
    """PASSED or not, and why."""

    conclusion: Conclusion
    tiers: tuple[TierDecision, ...]
    cells: tuple[CellDecision, ...]
    problems: tuple[str, ...]
    """Why reports cannot be believed, or what is missing; with any, the gate does not pass."""
    partial: tuple[str, ...] = ()
    """Cells of the spec that this decision was told to leave out."""
    head: tuple[CellDecision, ...] = ()
    """Cells of the criteria that the head weakens, as the head has them; they decide nothing."""
    drift: tuple[Change, ...] = ()
    """What the head changed in the spec."""
    weakened: bool = False
    """Whether the drift weakens the gate, and nobody allowed it."""
    notes: tuple[str, ...] = ()
    """What decides nothing but must be seen: waivers that end soon, files that judge."""

    @property
    def remarks(self) -> list[Remark]:
        """What must be seen beside the verdicts, the mild first."""
        verdicts = [d.verdict for d in (*self.cells, *self.head) if d.verdict is not None]
        found = [Remark(f"{v.cell}: {v.waiver}") for v in verdicts if v.status == "waived"]
        found += [
            Remark(f"{v.cell}: {note}")
            for v in verdicts
            if v.status == "pass"
            for note in v.evidence.notes
            if note.startswith(_REMARKABLE)
        ]
        found += [Remark(note) for note in self.notes]
        found += [
            Remark(
                f"spec: {change.where}: {change.message}" + (" (weaker)" * change.weakening),
                severe=self.weakened and change.weakening,
            )
            for change in self.drift
        ]
        if self.weakened:
            found.append(
                Remark("the head weakens the spec; --allow-weakening lets that pass", severe=True)
            )
        return found + [Remark(problem, severe=True) for problem in self.problems]

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
    today: date = date.max,
    base: str = "",
    head: Spec | None = None,
    run: str = "",
    allow_weakening: bool = False,
    allow_cached: bool = False,
    shards: ShardPlan | None = None,
) -> Decision:
    """Put the reports of all legs together.

    Args:
        spec: says which cells there must be.
        reports: one per leg, in any order.
        devices: the legs to expect; by default all of the spec.
        only: the criteria to expect; by default all of the spec. With it no tier is decided.
        source: the state of the repository that the reports must be of; by default, whichever it
            is, they must agree.
        unreadable: reports that could not be read, in words; each is a problem.
        today: the day, UTC, for waivers; by default every waiver has expired.
        base: the commit of the base branch that the reports must have been compared with, or ""
            when no base was asked for.
        head: the head's own spec, where it differs from ``spec``, which then is the base's.
        run: the run of the workflow that decides, whose reports they must be; "" on a laptop.
        allow_weakening: let a head pass that weakens the spec.
        allow_cached: take verdicts that were answered from a cache.
        shards: the plan by which several legs share the cells of a device; None where none do.
    """
    reports = _latest_attempts(reports, shards)
    deciding = drift.deciding(spec, head, allow_weakening=allow_weakening)
    everything = all_cells(deciding)

    def wanted(cell: Cell) -> bool:
        return only is None or cell.criterion.id in only

    expected = [cell for cell in all_cells(deciding, devices) if wanted(cell)]
    problems = [*unreadable, *_identity_problems(spec, reports, source)]
    problems += _base_problems(reports, base, head)
    problems += [
        f"report of the {report.device} leg: of run {report.run.id or 'none'}, this is run {run}"
        for report in reports
        if run and report.run.id != run
    ]
    problems += [] if allow_cached else _cached_problems(reports)
    if not expected:
        problems.append("no cell is expected: an empty gate does not pass")
    together = assembly.assemble(shards, expected, reports, deciding.waivers, today, base)
    problems += together.problems
    verdicts = [verdict for report in reports for verdict in report.verdicts]
    verdicts += together.verdicts
    names = {cell.name for cell in everything}
    problems += _strangers(verdicts, names, "the spec")
    cells = _gather(expected, verdicts, reports, problems)
    if shards is not None:
        cells = _blocked(cells, shards)
    problems += _unmet_needs(cells)

    own: list[CellDecision] = []
    changes: list[Change] = []
    if head is not None:
        changes = drift.compare(spec, head)
        ids = frozenset() if allow_weakening else drift.weakened_criteria(spec, head)
        demanded = [c for c in all_cells(head, devices) if c.criterion.id in ids and wanted(c)]
        verdicts_on_head = [verdict for report in reports for verdict in report.head_verdicts]
        own = _gather(demanded, verdicts_on_head, reports, problems, "the head's own ")
        problems += _strangers(verdicts_on_head, {c.name for c in demanded}, "the head's spec")
    if shards is not None:
        problems += _plan_problems(shards, deciding, head, source, everything, own)

    in_scope = [w for w in deciding.waivers if only is None or w.criterion in only]
    problems += _unwaived([*cells, *own], deciding.waivers, today)
    problems += _contradictions([*cells, *own])
    judged = [decision.verdict for decision in cells if decision.verdict is not None]
    unfit = waivers.problems(in_scope, judged, today)
    problems += unfit
    weakened = not allow_weakening and any(change.weakening for change in changes)
    outcome = _Outcome(believed=not problems, refused=weakened or bool(unfit))
    return Decision(
        conclusion=outcome.of(cells),
        # A choice of criteria says nothing about a tier.
        tiers=_tiers(deciding, cells, outcome) if only is None else (),
        cells=tuple(cells),
        problems=tuple(problems),
        partial=tuple(c.name for c in everything if c.name not in {e.name for e in expected}),
        head=tuple(own),
        drift=tuple(changes),
        weakened=weakened,
        notes=(*waivers.expiring(in_scope, today), *_relevant(reports)),
    )


def _latest_attempts(reports: Sequence[Report], shards: ShardPlan | None) -> list[Report]:
    """Of a leg that a workflow ran again, keep the reports of the latest attempt of that run.

    What the same run reported before the plan was made is of an earlier plan.
    """
    if shards is not None:
        plan = shards.run
        reports = [r for r in reports if r.run.id != plan.id or r.run.attempt >= plan.attempt]
    latest: dict[tuple[str, str], int] = {}
    for report in reports:
        key = (report.leg, report.run.id)
        latest[key] = max(latest.get(key, 0), report.run.attempt)
    return [r for r in reports if r.run.attempt == latest[r.leg, r.run.id]]


def _blocked(cells: Sequence[CellDecision], shards: ShardPlan) -> list[CellDecision]:
    """Block what needs a cell of another shard that did not pass, as one leg would have."""
    verdicts = {d.cell.name: d.verdict for d in cells if d.verdict is not None}
    again = True
    while again:  # what needs a blocked cell is blocked as well
        again = False
        for decision in cells:
            name, before = decision.cell.name, verdicts.get(decision.cell.name)
            if before is not None and decision.cell.device in shards.devices:
                verdicts[name] = assembly.blocked(decision.cell, before, verdicts)
                again |= verdicts[name].status != before.status
    return [CellDecision(d.cell, verdicts.get(d.cell.name)) for d in cells]


def _plan_problems(
    shards: ShardPlan,
    deciding: Spec,
    head: Spec | None,
    source: Source | None,
    cells: Sequence[Cell],
    own: Sequence[CellDecision],
) -> list[str]:
    """Say why the plan of shards is not one of what is decided here."""
    says = [mismatch(shards, deciding.digest, head.digest if head else "", source)]
    for device, spread in shards.devices.items():
        names = [cell.name for cell in cells if cell.device == device]
        heads = [decision.cell.name for decision in own if decision.cell.device == device]
        if reason := uncovered(spread, names, heads):
            says.append(f"on {device}, it {reason}")
    return [f"the plan of shards: {reason}" for reason in says if reason]


def _strangers(verdicts: Sequence[Verdict], names: Collection[str], whose: str) -> list[str]:
    found = dict.fromkeys(verdict.cell for verdict in verdicts)
    return [f"{n}: a verdict on a cell that {whose} does not have" for n in found if n not in names]


def _gather(
    expected: Sequence[Cell],
    verdicts: Sequence[Verdict],
    reports: Sequence[Report],
    problems: list[str],
    whose: str = "",
) -> list[CellDecision]:
    """Find each expected cell's only verdict; say in ``problems`` where there is not just one."""
    by_cell: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_cell[verdict.cell].append(verdict)
    cells = []
    for cell in expected:
        found = by_cell.get(cell.name, [])
        if len(found) != 1:
            problems.append(whose + _miscounted(cell, len(found), reports))
        cells.append(CellDecision(cell, found[0] if len(found) == 1 else None))
    return cells


def _unwaived(cells: Sequence[CellDecision], known: Sequence[Waiver], today: date) -> list[str]:
    """A verdict may only say ``waived`` where the deciding spec waives it today."""
    result = []
    for decision in cells:
        verdict = decision.verdict
        if verdict is not None and verdict.status == "waived":
            failed = msgspec.structs.replace(verdict, status="fail")
            if waivers.apply(failed, known, today).status != "waived":
                result.append(f"{verdict.cell}: waived, but the spec has no waiver for it today")
    return result


def _contradictions(cells: Sequence[CellDecision]) -> list[str]:
    """A verdict may only say ``pass`` where what it counted is what the spec expects."""
    result = []
    for decision in cells:
        verdict, criterion = decision.verdict, decision.cell.criterion
        if verdict is not None and verdict.status == "pass" and verdict.evidence.observed:
            outcomes = checkers.get(criterion.uses).outcomes(criterion.parameters)
            wrong = mismatches(criterion.expect, verdict.evidence.observed, outcomes)
            if wrong:
                result.append(
                    f"{verdict.cell}: says that it passed, and counts otherwise: {wrong[0]}"
                )
    return result


def _base_problems(reports: Sequence[Report], base: str, head: Spec | None) -> list[str]:
    problems = []
    for report in reports:
        leg = f"report of the {report.leg}"
        compared = report.base.commit if report.base else ""
        if compared != base:
            problems.append(
                f"{leg}: compared with {f'the base {compared[:12]}' if compared else 'no base'}, "
                f"but this decision is {f'against {base[:12]}' if base else 'against none'}"
            )
        elif report.base and head and report.base.head_spec_digest != head.digest:
            problems.append(f"{leg}: judged another spec of the head than the one that is here")
    return problems


def _cached_problems(reports: Sequence[Report]) -> list[str]:
    """A verdict from a cache is as good as the cache: whoever takes it has to say so."""
    return [
        f"{verdict.cell}: answered from the cache of a run of {verdict.cached.at}, not evaluated; "
        "--allow-cached takes it"
        for report in reports
        for verdict in (*report.verdicts, *report.head_verdicts)
        if verdict.cached is not None
    ]


def _relevant(reports: Sequence[Report]) -> list[str]:
    """Say which files the head changed that judge-relevant things depend on, once."""
    files = dict.fromkeys(
        name for report in reports if report.base for name in report.base.judge_relevant
    )
    if not files:
        return []
    return [f"judge-relevant changes of the head: {', '.join(files)}"]


def _identity_problems(spec: Spec, reports: Sequence[Report], source: Source | None) -> list[str]:
    problems = []
    for report in reports:
        leg = f"report of the {report.leg}"
        if report.spec.digest != spec.digest:
            problems.append(
                f"{leg}: made from another spec ({report.spec.path}, sha256 "
                f"{report.spec.digest[:12]}; this one is {spec.digest[:12]})"
            )
        if not report.complete:
            problems.append(f"{leg}: incomplete: {report.interruption or 'the run did not end'}")
        found: list[Verdict | Part] = [*report.verdicts, *report.parts]
        misplaced = sorted({each.cell for each in found if each.device != report.device})
        if misplaced:
            problems.append(f"{leg}: carries verdicts of another device: {', '.join(misplaced)}")
        proven = all(report.device_proof.get(name) for name in _DEVICE_PROOF)
        ran = _any_pass(report) or any(not part.error for part in report.parts)
        if report.device == "cuda" and not proven and ran:
            problems.append(f"{leg}: carries no proof of a CUDA device")
        if source is not None and _state(report.source) != _state(source):
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


def _state(source: Source) -> tuple[str, str]:
    return source.commit, source.tree


def _any_pass(report: Report) -> bool:
    # A waiver accepts that there is no device: it claims no result of one.
    return any(verdict.status == "pass" for verdict in report.verdicts)


def _miscounted(cell: Cell, found: int, reports: Sequence[Report]) -> str:
    if found:
        return f"{cell.name}: {found} verdicts, where there must be exactly one"
    legs = [report for report in reports if report.device == cell.device]
    if legs and any(report.shard for report in legs):
        return f"{cell.name}: no verdict, because of the {cell.device} leg's shards"
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


class _Outcome(msgspec.Struct, frozen=True):
    """What holds for the decision as a whole, and so for every tier."""

    believed: bool
    refused: bool
    """The spec is not in order: it is weakened, or a waiver of it is expired or of no use."""

    def of(self, cells: Sequence[CellDecision]) -> Conclusion:
        """Conclude from some cells; red beats unknown, and both beat green."""
        if self.refused or any(d.verdict and d.verdict.status == "fail" for d in cells):
            return "failed"
        if self.believed and cells and all(decision.passed for decision in cells):
            return "passed"
        return "not evaluated"


def _tiers(
    spec: Spec, cells: Sequence[CellDecision], outcome: _Outcome
) -> tuple[TierDecision, ...]:
    """A tier passes when its cells and all tiers under it pass."""
    tiers: list[TierDecision] = []
    for index, tier in enumerate(spec.tiers):
        own = [decision for decision in cells if decision.cell.tier == index]
        if not own:
            continue
        conclusion = outcome.of(own)
        if any(lower.conclusion != "passed" for lower in tiers) and conclusion == "passed":
            conclusion = "not evaluated"
        tiers.append(TierDecision(tier.gate, tier.next, conclusion))
    return tuple(tiers)
