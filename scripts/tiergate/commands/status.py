"""``tiergate status``: where each tier and criterion stands, and since when."""

from __future__ import annotations

import os
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.progress import Sighting
    from tiergate.spec import Criterion, Spec
    from tiergate.verdict import Report

_MOST_COMMITS = 500
"""Commits of the spec that are read, the newest first."""


@click.command(
    "status",
    epilog=options.examples(
        "status",
        ("", "what the last run on this machine recorded"),
        ("--report reports/ --write STATUS.md", "a table in a file, from the reports of all legs"),
        (
            "--report reports/ --write STATUS.md --commit main",
            "in a workflow, as a commit through GitHub's API",
        ),
        ("--format json", "for programs"),
        exits=("it was shown, whatever it shows", "", options.WRONG),
    ),
)
@options.spec
@options.repo
@click.option(
    "--report",
    "report_paths",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="A report, or a folder with reports, of this or of earlier commits; repeatable.  "
    "[default: .tiergate of the repository]",
)
@options.histories(
    "A history that `tiergate history --export` wrote; its runs of a workflow say since when "
    "a cell holds; repeatable."
)
@options.shard_plan
@click.option(
    "--write",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the table between the two markers of this file, which is made if it is missing.",
)
@click.option(
    "--commit",
    "branch",
    metavar="BRANCH",
    help="In a workflow: write --write's file, a path from the repository's root, as a commit on "
    "this branch; nothing is written here. The token comes from GITHUB_TOKEN or GH_TOKEN.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
)
def command(
    spec_path: Path | None,
    repo: Path,
    report_paths: tuple[Path, ...],
    histories: tuple[Path, ...],
    plan_path: Path | None,
    target: Path | None,
    branch: str | None,
    output_format: str,
) -> int:
    """Show where each tier and criterion stands, since when, and what is to be done.

    Nothing is judged: the state comes from recorded reports under the spec as it is now, the
    commit since which a criterion holds from all reports and histories that are given and from the
    table that --write wrote before. What is not recorded is unknown. Reports of shards need their
    --plan; a history has whole runs of them where `tiergate history --plan` added them. The status
    decides nothing: `tiergate decide` is the gate.
    """
    import msgspec

    from tiergate import progress, spec
    from tiergate.errors import ExitCode
    from tiergate.render import fold
    from tiergate.render import progress as render

    gate = spec.load(options.spec_of(spec_path, repo))
    place = _place(target, branch)
    before = place.read() if place else ""
    found = progress.progress(
        gate,
        _whole(report_paths, gate.path, repo, plan_path)
        if plan_path is not None
        else _reports(report_paths, repo),
        earlier=[*render.recorded(before), *_earlier(histories, repo)],
        defined=_defined(gate, repo),
        today=_today(),
    )
    if place is not None:
        after = render.between_markers(before, render.markdown(found), str(target))
        if after != before:
            place.write(after)
        click.echo(f"{target}: {'written' if after != before else 'up to date'}", err=True)
    if output_format == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    elif output_format == "markdown":
        click.echo(render.markdown(found).strip())
    elif target is None:
        click.echo(render.text(found, fold.columns()))
    return ExitCode.PASSED


class _Place(Protocol):
    """Where the table is kept."""

    def read(self) -> str:
        """Return the file's text, empty where there is none."""

    def write(self, text: str) -> None:
        """Replace it."""


class _Here:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        return self._path.read_text(encoding="utf-8") if self._path.exists() else ""

    def write(self, text: str) -> None:
        from tiergate.verdict import write_atomically

        write_atomically(self._path, text.encode())


class _OnGitHub:
    def __init__(self, path: Path, branch: str) -> None:
        from tiergate.github.client import Client, repository_name
        from tiergate.github.contents import PERMISSION, RemoteFile

        repository = repository_name(os.environ.get("GITHUB_REPOSITORY", ""))
        self._file = RemoteFile(Client(permission=PERMISSION), repository, branch, path.as_posix())
        self._version = ""

    def read(self) -> str:
        from tiergate.github.client import understood

        with understood():
            text, self._version = self._file.read()
        return text

    def write(self, text: str) -> None:
        self._file.write(text, self._version, f"Update {self._file.path}")


def _place(target: Path | None, branch: str | None) -> _Place | None:
    from tiergate.errors import UserError

    if branch is None:
        return _Here(target) if target is not None else None
    if target is None or not branch:
        raise UserError("--commit needs a branch, and the file that --write names")
    return _OnGitHub(target, branch)


def _reports(paths: tuple[Path, ...], repo: Path) -> list[Report]:
    from tiergate import verdict
    from tiergate.errors import UserError

    if not paths:
        path = repo / ".tiergate" / verdict.REPORT_NAME
        return [verdict.read(path)] if path.exists() else []
    reports = []
    for path in paths:
        files = sorted(path.rglob(verdict.REPORT_NAME)) if path.is_dir() else [path]
        if not files:
            raise UserError(f"--report {path}: no {verdict.REPORT_NAME} in it")
        reports += [verdict.read(file) for file in files]
    return reports


def _whole(paths: tuple[Path, ...], spec_path: Path, repo: Path, plan: Path) -> list[Report]:
    """Return the reports of shards as one leg of each device would have left them."""
    from tiergate import assembly
    from tiergate.commands.report import rendering
    from tiergate.errors import NotEvaluatedError

    found = rendering(paths or (repo / ".tiergate",), spec_path, repo, plan_path=plan)
    if found.decision.problems:
        raise NotEvaluatedError(f"--plan {plan}: no whole run: {found.decision.problems[0]}")
    verdicts = [cell.verdict for cell in found.decision.cells if cell.verdict is not None]
    return assembly.whole(found.reports, verdicts)


def _earlier(histories: tuple[Path, ...], repo: Path) -> list[Sighting]:
    """Return how cells ended in a workflow's runs: elsewhere a run may be of no commit's state."""
    from tiergate.commands.history import known_runs
    from tiergate.progress import Sighting
    from tiergate.repository import Repository
    from tiergate.verdict import PASSING

    runs = known_runs(Repository(repo).root, histories) if histories else []
    return [
        Sighting(cell, run.started, run.commit, record.status in PASSING)
        for run in runs
        if run.run.id and not run.shard
        for cell, record in run.cells.items()
    ]


def _defined(gate: Spec, repo: Path) -> dict[str, str]:
    """Return the commit since which each criterion is as it is now, from git's history."""
    from tiergate import spec
    from tiergate.errors import UserError
    from tiergate.repository import Repository, git

    repository = Repository(repo)
    path = gate.path.resolve()
    if not repository.is_git or repository.root not in path.parents:
        return {}
    name = path.relative_to(repository.root).as_posix()
    log = git(repository.root, "log", f"-{_MOST_COMMITS}", "--format=%H", "--", f"./{name}")
    now = {criterion.id: _meaning(criterion) for criterion in gate.criteria}
    defined: dict[str, str] = {}
    open_ = set(now)
    for commit in log.decode().split():
        try:
            data = git(repository.root, "show", f"{commit}:./{name}")
            then = {c.id: _meaning(c) for c in spec.parse(data, gate.path).criteria}
        except UserError:
            break  # it was not there, or not valid, or of another version: no more is known
        open_ = {name for name in open_ if then.get(name) == now[name]}
        defined |= dict.fromkeys(open_, commit)
        if not open_:
            break
    return defined


def _meaning(criterion: Criterion) -> object:
    """Return what decides about a criterion: not its name, its remedy or its place."""
    return (
        criterion.uses,
        criterion.parameters,
        dict(criterion.expect),
        criterion.devices,
        criterion.retries,
        criterion.flaky,
    )


def _today() -> date:
    return datetime.now(timezone.utc).date()
