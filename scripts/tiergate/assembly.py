"""Puts the cells together that several shards evaluated. Pure.

A shared cell has a verdict only where every shard of the plan gave its part, once, of its own files
and of this plan; then the parts are judged together, by the judge of whole cells.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date

import msgspec

from tiergate import checkers, judge, waivers
from tiergate.baseline import against
from tiergate.checkers import Observation
from tiergate.fields import Device
from tiergate.plan import Cell
from tiergate.sessions.files import TEST_FILES, is_test_file
from tiergate.shards import Assignment, DevicePlan, ShardPlan
from tiergate.verdict import PASSING, Evidence, Part, Report, Verdict
from tiergate.waivers import Waiver


class Assembled(msgspec.Struct):
    """What came of the shards."""

    verdicts: list[Verdict] = []
    """On the shared cells whose parts are all there."""
    problems: list[str] = []


def assemble(
    plan: ShardPlan | None,
    cells: Sequence[Cell],
    reports: Sequence[Report],
    accepted: Sequence[Waiver],
    today: date,
    base: str = "",
) -> Assembled:
    """Put the parts of shared cells together.

    Args:
        plan: says which shard evaluates what; None where no cell may be shared.
        cells: the cells that are expected.
        reports: of all legs; those of no shard are only looked at for being in the plan's way.
        accepted: the waivers of the deciding spec.
        today: for the waivers.
        base: the commit that criteria are compared with.
    """
    result = Assembled()
    if plan is None:
        result.problems += [
            f"report of the {report.leg}: of a shard, but this decision has no plan of shards; "
            "give the one that the legs had with --plan"
            for report in reports
            if report.shard or report.parts
        ]
        return result
    digest = plan.digest
    for device, spread in plan.devices.items():
        own = [report for report in reports if report.device == device]
        expected = [cell for cell in cells if cell.device == device]
        if expected or own:
            by_shard = _by_shard(spread, device, own, digest, result)
            for cell in expected:
                _cell(cell, spread, by_shard, result, accepted, today, base)
    result.problems += [
        f"report of the {report.leg}: the plan has no shards of this device"
        for report in reports
        if report.device not in plan.devices and (report.shard or report.parts)
    ]
    return result


def whole(reports: Sequence[Report], verdicts: Sequence[Verdict]) -> list[Report]:
    """Return the report of each device as one leg would have left it.

    Args:
        reports: of all shards, of one run.
        verdicts: of all cells, those that shards shared among them.
    """
    first: dict[Device, Report] = {}
    for report in sorted(reports, key=lambda report: report.started):
        first.setdefault(report.device, report)
    return [
        msgspec.structs.replace(
            report,
            shard=None,
            parts=[],
            selected=report.planned,
            verdicts=[verdict for verdict in verdicts if verdict.device == device],
        )
        for device, report in first.items()
    ]


def blocked(cell: Cell, verdict: Verdict, verdicts: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict, or ``blocked`` where what the cell needs did not pass.

    The need may be another shard's: the leg that evaluated the cell did not know.
    """
    unmet = [n for n in cell.needs if n in verdicts and verdicts[n].status not in PASSING]
    if not unmet:
        return verdict
    return Verdict(
        criterion=verdict.criterion,
        device=verdict.device,
        status="blocked",
        summary=f"needs {', '.join(unmet)}, which did not pass",
        evidence=Evidence(reproduce=verdict.evidence.reproduce[:1]),
        remedy=verdict.remedy,
    )


def _by_shard(
    spread: DevicePlan,
    device: Device,
    reports: Sequence[Report],
    digest: str,
    result: Assembled,
) -> dict[int, Report]:
    """Return the one report of each shard that can be believed; say what is wrong with others."""
    if spread.count == 1 and not any(report.shard or report.parts for report in reports):
        return {}  # an ordinary leg, which has whole cells only
    found: dict[int, list[Report]] = defaultdict(list)
    for report in reports:
        shard = report.shard
        if shard is None:
            says = f"of no shard, but the plan spreads this device over {spread.count}"
        elif shard.plan != digest:
            says = f"of another plan of shards ({shard.plan[:12]}; this one is {digest[:12]})"
        elif shard.count != spread.count or shard.index > spread.count:
            says = f"of a shard that the plan does not have: it has {spread.count}"
        else:
            found[shard.index].append(report)
            continue
        result.problems.append(f"report of the {report.leg}: {says}")
    believed = {}
    for index in range(1, spread.count + 1):
        name = f"{device} leg {index}/{spread.count}"
        if len(found[index]) != 1:
            count = len(found[index])
            says = f"{count} reports, where there must be exactly one" if count else "no report"
            result.problems.append(f"{name}: {says}")
        elif says := _misplaced(found[index][0], spread, index):
            result.problems.append(f"report of the {name}: {says}")
        else:
            believed[index] = found[index][0]
    return believed


def _misplaced(report: Report, spread: DevicePlan, index: int) -> str:
    """Say which cells of a shard's report are not just those that the plan gives to it."""
    mine = {name: spread.cells[name] for name in spread.cells_of(index)}
    whole = Counter(name for name, given in mine.items() if not given.files)
    shared = Counter(name for name, given in mine.items() if given.files)
    verdicts = Counter(verdict.cell for verdict in report.verdicts)
    parts = Counter(part.cell for part in report.parts)
    missing = sorted((whole - verdicts) + (shared - parts))
    if missing:
        return f"has nothing on {', '.join(missing)}, which the plan gives to it"
    strange = sorted((verdicts - whole) + (parts - shared))
    if strange:
        return f"is on {', '.join(strange)}, which the plan does not give to it so"
    return ""


def _cell(
    cell: Cell,
    spread: DevicePlan,
    reports: Mapping[int, Report],
    result: Assembled,
    accepted: Sequence[Waiver],
    today: date,
    base: str,
) -> None:
    assignment = spread.cells.get(cell.name)
    if assignment is None or not assignment.files:
        return
    parts = {
        index: part
        for index in assignment.shards
        if index in reports
        for part in reports[index].parts
        if part.cell == cell.name
    }
    if len(parts) != len(assignment.shards):
        return  # which leg is missing, or wrong, is a problem already
    if says := _overlap(parts, assignment, spread.count):
        result.problems.append(f"{cell.name}: {says}")
        return
    result.verdicts.append(
        waivers.apply(_verdict(cell, parts, assignment, spread.count, base), accepted, today)
    )


def _overlap(parts: Mapping[int, Part], assignment: Assignment, count: int) -> str:
    """Say that a shard went beyond its files, or left one of them out; else nothing."""
    seen: dict[str, int] = {}
    for index, part in parts.items():
        share = assignment.share(index, count)
        assert share is not None, index
        if part.error:
            continue  # the cell is an error in any case
        for test in part.collected:
            if test in seen:
                return f"shards {seen[test]}/{count} and {share.shard} both collected {test}"
            seen[test] = index
            if not share.owns(test.split("::")[0]):
                return f"shard {share.shard} collected {test}, which is another shard's"
        found = part.collection
        ignored = {failure.id for failure in found.failures if failure.outcome == "ignored"}
        unseen = [
            file
            for file in share.mine - set(part.files) - ignored
            if is_test_file(file, TEST_FILES)
        ]
        # More were ignored than a report lists.
        if len(unseen) > found.counts.get("ignored", 0) - len(ignored):
            return f"shard {share.shard} says nothing of {min(unseen)}, which is its own"
    return ""


def _verdict(
    cell: Cell, parts: Mapping[int, Part], assignment: Assignment, count: int, base: str
) -> Verdict:
    criterion = cell.criterion
    checker = checkers.splittable(criterion.uses)
    if checker is None:
        error = f"{criterion.uses} criteria cannot be shared by shards"
        observation = Observation(error=error)
        return judge.verdict(
            criterion, cell.device, checkers.get(criterion.uses), observation, 0.0, reproduce=[]
        )
    several = len({part.error for part in parts.values()}) > 1
    told = [
        msgspec.structs.replace(part, error=f"shard {index}/{count}: {part.error}")
        if several and part.error
        else part
        for index, part in parts.items()
    ]
    observation = checker.assemble(criterion.parameters, told, criterion, cell.device)
    if criterion.needs_base and not observation.error:
        tests = parts[assignment.shard].base
        if tests is None or tests.commit != base:
            error = "expects no less than the base branch has: name the base with --base REF"
            observation = msgspec.structs.replace(observation, error=error)
        else:
            observation = against(tests, observation, criterion)
    return judge.verdict(
        criterion,
        cell.device,
        checker,
        observation,
        sum(part.seconds for part in parts.values()),
        reproduce=next(iter(parts.values())).reproduce,
    )
