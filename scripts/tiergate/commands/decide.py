"""``tiergate decide``: from the reports of all legs to one decision."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.fields import Device


@click.command(
    "decide",
    epilog=options.examples(
        "decide",
        ("reports/cpu reports/cuda", "from the reports of both legs"),
        ("--plan plan.json reports/", "over shards, by the plan that they had"),
        ("reports/ --format github", "in a workflow, with annotations and the job summary"),
        exits=("the gate passed", "the gate failed", options.WRONG, options.UNABLE),
    ),
)
@click.argument("reports", nargs=-1, metavar="REPORT…", type=click.Path(path_type=Path))
@options.spec
@options.repo
@options.devices
@options.only
@click.option(
    "--job",
    "jobs",
    metavar="NAME=RESULT",
    multiple=True,
    help="How a job of the workflow ended; anything but success fails the decision. Repeatable.",
)
@options.shard_plan
@options.base
@options.allow_weakening
@click.option(
    "--allow-cached",
    is_flag=True,
    help="Take verdicts that a laptop's run answered from its cache.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "github"]),
    default="text",
    show_default=True,
    help="github: annotations and job summary as well.",
)
def command(
    reports: tuple[Path, ...],
    spec_path: Path | None,
    repo: Path,
    devices: tuple[Device, ...],
    only: tuple[str, ...],
    jobs: tuple[str, ...],
    plan_path: Path | None,
    base_ref: str | None,
    allow_weakening: bool,
    allow_cached: bool,
    output_format: str,
) -> int:
    """Decide over reports: files, or folders in which every report.json counts.

    The gate passes only if every cell that the spec expects is there exactly once, of this spec and
    of the state that the repository is in now, and passed.
    """
    from datetime import datetime, timezone

    from tiergate import base, decide, shards, spec, verdict
    from tiergate.commands import output
    from tiergate.errors import UserError
    from tiergate.render.text import Text
    from tiergate.repository import Repository

    repository = Repository(repo)
    path = options.spec_of(spec_path, repo)
    commit = base.resolve(repository, base_ref) if base_ref else ""
    specs = base.specs(repository, commit, path) if commit else None
    gate = specs.base if specs else spec.load(path)
    if absent := [device for device in devices if device not in gate.devices]:
        raise UserError(f"--device {absent[0]}: {gate.path} has no such leg")
    read: list[verdict.Report] = []
    unreadable = _job_problems(jobs)
    for path in files(reports):
        try:
            read.append(verdict.read(path))
        except verdict.ReportError as error:
            unreadable.append(str(error))
    decision = decide.decide(
        gate,
        read,
        devices=devices or None,
        only=frozenset(gate.criterion(criterion_id).id for criterion_id in only) or None,
        source=repository.source(),
        unreadable=unreadable,
        today=datetime.now(timezone.utc).date(),
        base=commit,
        run=os.environ.get("GITHUB_RUN_ID", ""),
        head=specs.head if specs else None,
        allow_weakening=allow_weakening,
        allow_cached=allow_cached,
        shards=shards.read(plan_path) if plan_path is not None else None,
    )
    text = Text(colour=output.coloured(), folded=sys.stdout.isatty())
    body = text.selection(decision, len(decision.cells)) if only else text.decision(decision)
    output.show(body, decision, output_format)
    return decision.exit_code


def _job_problems(jobs: tuple[str, ...]) -> list[str]:
    """Say which jobs did not end well: GitHub takes a skipped one for a success."""
    from tiergate.errors import UserError

    problems = []
    for job in jobs:
        name, equals, result = job.partition("=")
        if not name or not equals:
            raise UserError(f"--job {job}: write it NAME=RESULT, such as judge=success")
        if result != "success":
            problems.append(
                f"the {name} job ended with {result or 'no result'!r}: this is not a pass, "
                "whatever its reports say; its log says why"
            )
    return problems


def files(reports: tuple[Path, ...]) -> list[Path]:
    """Return the report files: those named, and every one below a folder."""
    from tiergate.verdict import REPORT_NAME

    files: list[Path] = []
    for path in reports:
        files += sorted(path.rglob(REPORT_NAME)) if path.is_dir() else [path]
    return files
