"""Spec + recorded verdicts → how far each tier is, and since when. Pure; it decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Literal

import msgspec

from tiergate import plan, remediation, waivers
from tiergate.fields import Device
from tiergate.spec import Spec
from tiergate.verdict import PASSING, Report, cell_name

State = Literal["holds", "waived", "does not hold", "unknown"]


class Sighting(msgspec.Struct, frozen=True):
    """How a cell stood at a commit."""

    cell: str
    when: str
    """UTC, ISO 8601; sightings are put in its order."""
    commit: str
    passed: bool


class CellProgress(msgspec.Struct, frozen=True):
    """Where one cell stands."""

    tier: str
    criterion: str
    device: Device
    state: State
    summary: str = ""
    since: str = ""
    """The first commit of the unbroken row of recorded passes; empty where none is recorded."""
    waived_until: str = ""
    owner: str = ""
    defined_since: str = ""
    """The commit since which the spec has the criterion as it is; empty where it is not known."""


class TierProgress(msgspec.Struct, frozen=True):
    """Where one tier stands."""

    gate: str
    next: str
    complete: bool
    holds: int
    cells: int


class OpenTask(msgspec.Struct, frozen=True):
    """What is to be done."""

    task: str
    owner: str
    criteria: list[str]
    wave: int
    hint: str = ""


class Progress(msgspec.Struct, frozen=True):
    """Where all stands."""

    commit: str
    """The state that the newest reports judged; empty where there is none."""
    dirty: bool
    tiers: list[TierProgress]
    cells: list[CellProgress]
    tasks: list[OpenTask]
    notes: list[str] = []


def progress(
    spec: Spec,
    reports: Sequence[Report],
    *,
    earlier: Iterable[Sighting] = (),
    defined: Mapping[str, str] | None = None,
    today: date,
) -> Progress:
    """Return where the tiers stand.

    Args:
        spec: the spec as it is now.
        reports: what was recorded; of each cell the newest verdict under this spec counts.
        earlier: what else is known of earlier commits.
        defined: criterion → the commit since which it is as it is.
        today: the day on which waivers must be in force, UTC.
    """
    current = [report for report in reports if report.spec.digest == spec.digest]
    notes = [
        f"the {r.device} report of {r.started} was made from another spec; its states do not count"
        for r in reports
        if r.spec.digest != spec.digest
    ]
    newest: dict[Device, Report] = {}
    for report in sorted(current, key=lambda r: r.started):
        newest[report.device] = report
    if len({report.source.tree for report in newest.values()}) > 1:
        notes.append("the legs were judged in different states of the repository")
    rows = _since(reports, earlier)
    cells = [
        _cell(spec, cell, current, rows, defined or {}, today, tier.gate)
        for tier in spec.tiers
        for device in spec.devices
        for cell in plan.cells(spec, device)
        if cell.criterion in tier.criteria
    ]
    failed: dict[str, list[str]] = {}
    for one in cells:
        if one.state == "does not hold":
            failed.setdefault(one.criterion, []).append(one.device)
    last = max(newest.values(), key=lambda r: r.started, default=None)
    return Progress(
        commit=last.source.commit if last else "",
        dirty=last.source.dirty if last else False,
        tiers=_tiers(spec, cells),
        cells=cells,
        tasks=[
            OpenTask(task.name, task.remedy.owner, task.criteria, number, task.remedy.hint)
            for number, wave in enumerate(remediation.order(spec, failed), start=1)
            for task in wave
        ],
        notes=notes,
    )


def _tiers(spec: Spec, cells: Sequence[CellProgress]) -> list[TierProgress]:
    """A tier is complete only when those under it are."""
    tiers = []
    below = True
    for tier in spec.tiers:
        own = [cell for cell in cells if cell.tier == tier.gate]
        holds = sum(cell.state in {"holds", "waived"} for cell in own)
        below = below and holds == len(own)
        tiers.append(TierProgress(tier.gate, tier.next, below, holds, len(own)))
    return tiers


def _cell(
    spec: Spec,
    cell: plan.Cell,
    reports: Sequence[Report],
    since: Mapping[str, str],
    defined: Mapping[str, str],
    today: date,
    tier: str,
) -> CellProgress:
    found = [
        (report.started, verdict)
        for report in reports
        for verdict in report.verdicts
        if verdict.cell == cell.name
    ]
    verdict = max(found, key=lambda pair: pair[0])[1] if found else None
    covering = [w for w in spec.waivers if verdict is not None and w.covers(verdict)]
    in_force = [w for w in covering if waivers.in_force(w, today)]
    state: State = "unknown"
    if verdict is not None and verdict.status == "waived":
        state = "waived" if in_force else "does not hold"
    elif verdict is not None:
        state = "holds" if verdict.status in PASSING else "does not hold"
    return CellProgress(
        tier=tier,
        criterion=cell.criterion.id,
        device=cell.device,
        state=state,
        summary=verdict.summary if verdict else "no recorded verdict under this spec",
        since=since.get(cell.name, "") if state in {"holds", "waived"} else "",
        waived_until=str(min(w.expires for w in in_force)) if state == "waived" else "",
        owner=cell.criterion.remedy.owner,
        defined_since=defined.get(cell.criterion.id, ""),
    )


def _since(reports: Sequence[Report], earlier: Iterable[Sighting]) -> dict[str, str]:
    """Return the first commit of each cell's unbroken row of passes up to now."""
    sightings = [
        Sighting(cell_name(v.criterion, v.device), r.started, r.source.commit, v.status in PASSING)
        for r in reports
        for v in r.verdicts
        if not r.source.dirty
    ]
    rows: dict[str, str] = {}
    for seen in sorted((*earlier, *sightings), key=lambda s: s.when):
        if not seen.passed:
            rows.pop(seen.cell, None)
        elif seen.commit:
            rows.setdefault(seen.cell, seen.commit)
    return rows
