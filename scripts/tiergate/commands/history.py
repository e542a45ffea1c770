"""``tiergate history``: how long runs took, the slowest tests and the flaky ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.history import RunRecord


@click.command(
    "history",
    epilog=options.examples(
        "history",
        ("", "the trend of this machine's runs, the slowest tests and the flaky ones"),
        ("--add reports/ --export history.json", "in a workflow: keep what the legs took"),
        exits=("it was shown", "", options.WRONG, "a file cannot be written"),
    ),
)
@options.repo
@options.histories(
    "Read this file, or every timings.json and history.json of a folder; repeatable.  "
    "[default: this machine's own runs; none in CI]"
)
@click.option(
    "--add",
    "added",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="Add the runs of this file or folder, such as the reports of all legs; repeatable.",
)
@options.spec
@options.shard_plan
@click.option(
    "--export",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write all runs that are kept into one file.",
)
@click.option(
    "--find-run",
    "branch",
    metavar="BRANCH",
    help="In a workflow: print the id of its latest successful run for a push to this branch, and "
    "nothing else; nothing where there is none.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    default=10,
    show_default=True,
    help="How many slowest and flaky tests to show.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
)
def command(
    repo: Path,
    histories: tuple[Path, ...],
    added: tuple[Path, ...],
    spec_path: Path | None,
    plan_path: Path | None,
    target: Path | None,
    branch: str | None,
    top: int,
    output_format: str,
) -> int:
    """Show the trend of runs, the slowest tests and the flaky ones.

    A history balances shards and orders cells; it decides nothing, and one that cannot be read is
    no history. The latest 50 runs of a device are kept, and 32 MiB in all. With --plan the shards
    that --add reads are put together to one run, with the verdicts of whole cells.
    """
    if branch is not None:
        return _find_run(branch)
    import msgspec

    from tiergate import history, history_report
    from tiergate.errors import NotEvaluatedError
    from tiergate.repository import Repository

    root = Repository(repo).root
    more, problems = history.read_files(added)
    for problem in problems:
        _say(f"{problem}; it is left out")
    if plan_path is not None:
        more = _whole(more, added, options.spec_of(spec_path, repo), repo, plan_path)
    runs = history.kept([*known_runs(root, histories), *more])
    place = history.database(root, os.environ)
    if more and place is not None and not histories:
        from tiergate.history_store import Database

        Database(place, _say).add(more)
    if target is not None:
        try:
            history.write(target, history.encode(runs))
        except history.HistoryError as error:
            raise NotEvaluatedError(str(error)) from None
    report = history_report.make(runs, top)
    if output_format == "json":
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    else:
        click.echo(history_report.text(report))
    return 0


def _find_run(branch: str) -> int:
    from tiergate.errors import UserError
    from tiergate.github import runs
    from tiergate.github.client import Client, repository_name, understood

    this, repository = (os.environ.get(f"GITHUB_{name}", "") for name in ("RUN_ID", "REPOSITORY"))
    if not branch or not this.isdecimal():
        raise UserError(
            "--find-run: needs a branch, and GITHUB_RUN_ID and GITHUB_REPOSITORY as workflows have "
            "them"
        )
    with understood():
        client = Client(permission=runs.PERMISSION)
        found = runs.latest_push(client, repository_name(repository), this, branch)
    if found is None:
        _say(f"no run of this workflow succeeded for a push to {branch}: there is no history yet")
    else:
        click.echo(found)
    return 0


def _whole(
    runs: list[RunRecord], added: tuple[Path, ...], spec_path: Path, repo: Path, plan_path: Path
) -> list[RunRecord]:
    """Put the runs of shards together, if their reports together are one decision."""
    from tiergate import history
    from tiergate.commands.report import rendering

    decision = rendering(added, spec_path, repo, plan_path=plan_path).decision
    if decision.problems:
        _say(f"{decision.problems[0]}; the shards are recorded as they are")
        return runs
    verdicts = [cell.verdict for cell in decision.cells if cell.verdict is not None]
    return history.whole(runs, {verdict.cell: verdict.status for verdict in verdicts})


def known_runs(root: Path, histories: tuple[Path, ...]) -> list[RunRecord]:
    """Return the runs of the given files, or those of this machine; what is missing is said."""
    from tiergate import history

    if histories:
        runs, problems = history.read_files(histories)
        for problem in problems:
            _say(f"{problem}; it counts as no history")
        return runs
    place = history.database(root, os.environ)
    if place is None or not place.exists():
        return []
    from tiergate.history_store import Database

    return Database(place, _say).runs()


def _say(line: str) -> None:
    click.echo(f"tiergate: {line}", err=True)
