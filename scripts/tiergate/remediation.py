"""Failed criteria → the order in which to mend them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tiergate.fields import Remedy
from tiergate.reproduce import cell_command
from tiergate.spec import Spec
from tiergate.verdict import PASSING, Report
from tiergate.waves import find_cycle, waves


@dataclass
class Task:
    """Something to do: a remedy's task, or a criterion whose remedy names none."""

    name: str
    remedy: Remedy
    criteria: list[str] = field(default_factory=list)
    verify: list[str] = field(default_factory=list)


def failed_cells(reports: Collection[Report]) -> dict[str, list[str]]:
    """Return the criteria with a cell that did not pass, and the devices concerned."""
    failed: dict[str, list[str]] = {}
    for report in reports:
        for verdict in report.verdicts:
            devices = failed.setdefault(verdict.criterion, [])
            if verdict.status not in PASSING and verdict.device not in devices:
                devices.append(verdict.device)
    return {criterion: devices for criterion, devices in failed.items() if devices}


def order(spec: Spec, failed: dict[str, list[str]]) -> list[list[Task]]:
    """Return the tasks in waves: those of one wave can be done in parallel.

    A task waits for the tasks of the failed criteria that its own criteria need, and for those of
    lower tiers; the task that closes a tier waits for all the others of that tier. Tasks that wait
    for each other can only be done together.
    """
    tasks: dict[str, Task] = {}
    needs: dict[str, set[str]] = {}
    task_of = {c.id: c.remedy.task or c.id for c in spec.criteria if c.id in failed}
    for tier in spec.tiers:
        own: list[str] = []
        lower = set(tasks)
        for criterion in tier.criteria:
            if criterion.id not in failed:
                continue
            name = task_of[criterion.id]
            task = tasks.setdefault(name, Task(name, criterion.remedy))
            task.criteria.append(criterion.id)
            task.verify += [cell_command(criterion.id, d) for d in failed[criterion.id]]
            waits = {task_of[need] for need in criterion.needs if need in failed}
            needs.setdefault(name, set(lower)).update(waits - {name})
            own.append(name)
        if own and tier.remedy.task and tier.remedy.task not in tasks:
            closing = tier.remedy.task
            tasks[closing] = Task(closing, tier.remedy, [tier.gate], ["tiergate run"])
            needs[closing] = set(own)
    while cycle := find_cycle({name: sorted(wanted) for name, wanted in needs.items()}):
        for name in cycle:
            needs[name].difference_update(cycle)
    return [
        [tasks[name] for name in wave]
        for wave in waves({name: sorted(wanted) for name, wanted in needs.items()})
    ]
