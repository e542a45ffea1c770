"""``tiergate plan``: cells and waves; the matrix for GitHub; the order of mending."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.fields import Device
    from tiergate.remediation import Task
    from tiergate.shards import ShardPlan
    from tiergate.spec import Spec


@click.command(
    "plan",
    epilog=options.examples(
        "plan",
        ("", "cells and waves of each leg"),
        ("--failed .tiergate/report.json", "in which order to mend what failed"),
        ("--github-matrix --runner cpu=ubuntu-24.04", "the matrix of a workflow"),
        ("--shards 4 --device cpu", "each device's cells over four runners"),
        exits=("it was planned", "", options.WRONG, options.UNABLE),
    ),
)
@options.spec
@options.repo
@click.option(
    "--failed",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="REPORT",
    help="Print the order in which to mend what failed in this report; repeatable.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 256),
    metavar="NUMBER",
    help="Spread each device's cells, and the files of test suites, over so many runners, and "
    "write the plan that `run --plan` and `decide --plan` take.",
)
@options.histories(
    "Balance shards by the durations in this file; repeatable.  [default: those of this "
    "machine's own runs; none in CI]"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the plan of shards is written.  [default: .tiergate/plan.json of the repository]",
)
@options.base
@options.allow_weakening
@click.option("--github-matrix", is_flag=True, help="Print the matrix of legs as one line of JSON.")
@options.devices
@click.option(
    "--runner",
    "runners",
    multiple=True,
    metavar="DEVICE=LABEL",
    help="Where the matrix runs a leg: a label, or a JSON list of labels; repeatable. A leg whose "
    "label is empty carries a problem in place of a runner.",
)
def command(
    spec_path: Path | None,
    repo: Path,
    failed: tuple[Path, ...],
    shards: int | None,
    histories: tuple[Path, ...],
    output: Path | None,
    base_ref: str | None,
    allow_weakening: bool,
    github_matrix: bool,
    devices: tuple[Device, ...],
    runners: tuple[str, ...],
) -> int:
    """Show which cells there are, what may run in parallel and what waits for what."""
    from tiergate import spec
    from tiergate.errors import UserError

    if failed and (github_matrix or shards):
        raise UserError("--failed excludes --github-matrix and --shards")
    if runners and not github_matrix:
        raise UserError("--runner says where the legs of --github-matrix run; give both")
    if not shards and (histories or output or base_ref or allow_weakening):
        raise UserError(
            "--history, --output, --base and --allow-weakening belong to a plan of shards: give "
            "--shards as well"
        )
    path = options.spec_of(spec_path, repo)
    labels = _labels(runners)
    if shards:
        spread = _plan_shards(
            repo,
            path,
            shards,
            devices,
            labels,
            histories,
            output,
            base_ref,
            allow_weakening=allow_weakening,
        )
        if github_matrix:
            legs = [leg for device in spread.devices for leg in _legs(device, labels, spread)]
            click.echo(json.dumps({"include": legs}))
        else:
            _show_shards(spread)
        return 0
    gate = spec.load(path)
    if absent := [device for device in devices if device not in gate.devices]:
        raise UserError(f"--device {absent[0]}: {gate.path} has no such leg")
    if github_matrix:
        chosen = devices or gate.devices
        click.echo(json.dumps({"include": [_leg(device, labels) for device in chosen]}))
    elif failed:
        _remediation(gate, failed)
    else:
        _show_waves(gate)
    return 0


def _show_waves(gate: Spec) -> None:
    from tiergate import plan

    for device in gate.devices:
        planned = {cell.name: cell for cell in plan.cells(gate, device)}
        click.echo(f"{device} leg: {len(planned)} cells")
        for number, wave in enumerate(plan.cell_waves(list(planned.values())), start=1):
            click.echo(f"  wave {number}")
            for name in wave:
                cell = planned[name]
                waits = f"  after {', '.join(cell.needs)}" if cell.needs else ""
                click.echo(f"    {name:<18} {cell.criterion.uses:<11}{waits}".rstrip())


def _plan_shards(
    repo: Path,
    path: Path,
    count: int,
    devices: tuple[Device, ...],
    labels: dict[str, str | list[str]],
    histories: tuple[Path, ...],
    output: Path | None,
    base_ref: str | None,
    *,
    allow_weakening: bool,
) -> ShardPlan:
    from tiergate import base, drift, history, shard_planning, shards, spec
    from tiergate.commands.history import known_runs
    from tiergate.errors import UserError
    from tiergate.repository import Repository

    repository = Repository(repo)
    commit = base.resolve(repository, base_ref) if base_ref else ""
    specs = base.specs(repository, commit, path) if commit else None
    gate = specs.base if specs else spec.load(path)
    head = specs.head if specs else None
    deciding = drift.deciding(gate, head, allow_weakening=allow_weakening)
    if absent := [device for device in devices if device not in deciding.devices]:
        raise UserError(f"--device {absent[0]}: {gate.path} has no such leg")
    # A device without a runner is one leg, which says so.
    counts = {
        device: count if labels.get(device, not labels) else 1
        for device in devices or deciding.devices
    }
    durations = history.durations(known_runs(repository.root, histories))
    made = shard_planning.make(
        repository, gate, head, counts, durations, allow_weakening=allow_weakening
    )
    target = output or repository.root / ".tiergate" / shards.PLAN_NAME
    if output is None:
        from tiergate.commands.output import prepare

        prepare(target.parent, target.name)
    shards.write(made, target)
    click.echo(f"{target}: written", err=True)
    return made


def _legs(
    device: Device, labels: dict[str, str | list[str]], planned: ShardPlan
) -> list[dict[str, str | list[str]]]:
    """Return a device's legs: one for each shard, or the one that has it all."""
    leg = _leg(device, labels)
    count = planned.devices[device].count
    if count == 1:
        return [leg]
    return [
        {**leg, "shard": f"{index}/{count}", "leg": f"{device}-{index}-of-{count}"}
        for index in range(1, count + 1)
    ]


def _show_shards(planned: ShardPlan) -> None:
    for device, spread in planned.devices.items():
        many = "leg" if spread.count == 1 else "legs"
        click.echo(f"{device}: {len(spread.cells)} cells over {spread.count} {many}")
        for index, seconds in enumerate(spread.seconds, start=1):
            click.echo(f"  {index}/{spread.count}  about {seconds:.1f} s")
            for name in spread.cells_of(index):
                given = spread.cells[name]
                files = [file for file, owner in given.files.items() if owner == index]
                of = f"{len(files)} of {len(given.files)} files" if given.files else "whole"
                click.echo(f"    {name:<18} {of}")
            for name in (n for n, owner in spread.head.items() if owner == index):
                click.echo(f"    {name:<18} whole, as the head has it")


def _labels(runners: tuple[str, ...]) -> dict[str, str | list[str]]:
    """Return each device's runner, as ``runs-on`` takes it; empty where none is configured."""
    from typing import get_args

    from tiergate.errors import UserError
    from tiergate.fields import Device
    from tiergate.suggest import did_you_mean

    labels: dict[str, str | list[str]] = {}
    for runner in runners:
        device, equals, text = runner.partition("=")
        if not equals:
            raise UserError(f"--runner {runner}: write it DEVICE=LABEL, such as cpu=ubuntu-24.04")
        if device not in get_args(Device):
            hint = did_you_mean(device, get_args(Device))
            raise UserError(f"--runner {runner}: no device {device!r}{hint}")
        if device in labels:
            raise UserError(f"--runner {runner}: {device} has a runner already; give one")
        label = text.strip()
        labels[device] = _label_list(runner, label) if label[:1] in {"[", "{"} else label
    return labels


def _label_list(runner: str, text: str) -> list[str]:
    from tiergate.errors import UserError

    try:
        labels = json.loads(text)
    except ValueError as error:
        raise UserError(f"--runner {runner}: not a JSON list of labels: {error}") from None
    if not isinstance(labels, list) or not all(isinstance(x, str) and x.strip() for x in labels):
        raise UserError(
            f"--runner {runner}: not a list of labels; write it such as "
            """'cuda=["self-hosted", "linux", "cuda"]'"""
        )
    return labels


def _leg(device: Device, labels: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
    if not labels:
        return {"device": device}
    if label := labels.get(device):
        return {"device": device, "runner": label}
    return {
        "device": device,
        "problem": f"the {device} leg has no runner: no label is configured for it. Set the "
        f"repository variable TIERGATE_{device.upper()}_RUNNER to the label of a runner with that "
        "device, or to a JSON list of labels, and run again",
    }


def _remediation(gate: Spec, failed: tuple[Path, ...]) -> None:
    from tiergate import remediation, verdict
    from tiergate.errors import UserError

    reports = [verdict.read(path) for path in failed]
    for path, report in zip(failed, reports, strict=True):
        if report.spec.digest != gate.digest:
            raise UserError(f"{path}: made from another spec than {gate.path}")
    cells = remediation.failed_cells(reports)
    if not cells:
        click.echo("nothing to mend: every judged cell passed")
        return
    for number, wave in enumerate(remediation.order(gate, cells), start=1):
        together = "in parallel" if len(wave) > 1 else "one task"
        click.echo(f"wave {number}: {together}{', after the wave before' if number > 1 else ''}")
        for task in wave:
            _task(task)


def _task(task: Task) -> None:
    from tiergate.render.text import remedy_rows

    click.echo(f"  {task.name}: {', '.join(task.criteria)}")
    for name, value in remedy_rows(task.remedy):
        if name != "task":
            click.echo(f"    {name:<9} {value}")
    for line in task.verify:
        click.echo(f"    verify    {line}")
