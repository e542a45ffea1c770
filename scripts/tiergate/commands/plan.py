"""``tiergate plan``: cells and waves; the matrix for GitHub; the order of mending."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.remediation import Task
    from tiergate.spec import Spec


@click.command("plan", epilog="Example: tiergate plan --failed .tiergate/report.json")
@options.spec
@options.repo
@click.option(
    "--failed",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="REPORT",
    help="Print the order in which to mend what failed in this report; repeatable.",
)
@click.option("--github-matrix", is_flag=True, help="Print the matrix of legs as one line of JSON.")
def command(
    spec_path: Path | None, repo: Path, failed: tuple[Path, ...], github_matrix: bool
) -> int:
    """Show which cells there are, what may run in parallel and what waits for what."""
    from tiergate import plan, spec
    from tiergate.errors import UserError

    gate = spec.load(options.spec_of(spec_path, repo))
    if failed and github_matrix:
        raise UserError("--failed and --github-matrix exclude each other")
    if github_matrix:
        click.echo(json.dumps({"include": [{"device": device} for device in gate.devices]}))
    elif failed:
        _remediation(gate, failed)
    else:
        for device in gate.devices:
            planned = {cell.name: cell for cell in plan.cells(gate, device)}
            click.echo(f"{device} leg: {len(planned)} cells")
            for number, wave in enumerate(plan.cell_waves(list(planned.values())), start=1):
                click.echo(f"  wave {number}")
                for name in wave:
                    cell = planned[name]
                    waits = f"  after {', '.join(cell.needs)}" if cell.needs else ""
                    click.echo(f"    {name:<18} {cell.criterion.uses:<11}{waits}")
    return 0


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
