"""``tiergate run``: judge one leg on this machine."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.candidate import Isolation
    from tiergate.fields import Device
    from tiergate.history import RunRecord
    from tiergate.leg import Leg
    from tiergate.render.text import Text
    from tiergate.repository import Repository
    from tiergate.runner import Listener
    from tiergate.shards import ShardPlan
    from tiergate.spec import Spec
    from tiergate.splitting import Durations
    from tiergate.verdict import Part, Report, Verdict


@click.command(
    "run",
    epilog=options.examples(
        "run",
        ("", "judge the repository you are in, on the CPU"),
        ("--only ISS-003 --device cuda", "one criterion on the GPU"),
        ("--base origin/main", "by the criteria of the branch to merge into"),
        ("--quiet --no-cache", "what is red alone, every cell evaluated again"),
        exits=(
            "every cell passed or is waived; of a shard: nothing stands against a pass",
            "the gate failed",
            options.WRONG,
            options.UNABLE,
        ),
    ),
)
@options.spec
@options.repo
@options.python
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Which leg to judge.",
)
@options.only
@click.option(
    "--report",
    "report_directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where report.json is written.  [default: .tiergate of the repository]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For each criterion, in place of the spec's.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Criteria evaluated at the same time.  [default: the usable processors]",
)
@click.option(
    "--unjudged",
    default="",
    metavar="WHY",
    help="Evaluate nothing: report each cell as an error for this reason, such as that the leg has "
    "no runner. Only a waiver lets it pass.",
)
@click.option(
    "--shard",
    "shard_name",
    metavar="INDEX/COUNT",
    help="Judge this shard's part of the plan alone, such as 2/4; `tiergate decide` puts the "
    "shards together.",
)
@options.shard_plan
@options.base
@options.allow_weakening
@options.isolation
@options.cache
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "plain", "json", "github"]),
    default="text",
    show_default=True,
    help="plain: text without colour, links or a live table; json: the report on standard output; "
    "github: annotations and job summary as well.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print what is red and the decision alone.")
@click.option("-v", "--verbose", is_flag=True, help="Print every failure with its traceback.")
def command(
    spec_path: Path | None,
    repo: Path,
    python: str | None,
    device: Device,
    only: tuple[str, ...],
    report_directory: Path | None,
    timeout: float | None,
    jobs: int | None,
    unjudged: str,
    shard_name: str | None,
    plan_path: Path | None,
    base_ref: str | None,
    allow_weakening: bool,
    isolation: Isolation,
    cache: bool | None,
    output_format: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run the criteria of the spec on this machine and decide.

    Writes report.json, and prints of each failure what was expected and observed, the places, whose
    change it concerns, the command that shows it without the gate, and who mends it. At a terminal
    the cells are drawn while they are judged; piped, each is a line when it starts and ends.
    """
    # Imported here: what `--help` and the other commands need not pay for.
    from tiergate import base, cache_cells, candidate, drift, leg, spec, verdict
    from tiergate.commands import output
    from tiergate.environment import usable_cpus
    from tiergate.errors import NotEvaluatedError, UserError
    from tiergate.interruption import cancelled_by_signals
    from tiergate.render.text import Text
    from tiergate.repository import Repository
    from tiergate.reproduce import shown_path

    if platform.system() == "Windows":
        raise NotEvaluatedError(
            "run needs a POSIX system (Linux or macOS): only there can all that a candidate starts "
            "be ended with it"
        )
    repository = Repository(repo)
    path = options.spec_of(spec_path, repo)
    commit = base.resolve(repository, base_ref) if base_ref else ""
    specs = base.specs(repository, commit, path) if commit else None
    directory = report_directory or repository.root / ".tiergate"
    kept = click.get_current_context().with_resource(options.opened_cache(directory, asked=cache))
    gate = specs.base if specs else spec.load(path, partial(cache_cells.document, kept))
    gate = _with_timeout(gate, timeout)
    head = specs.head and _with_timeout(specs.head, timeout) if specs else None
    deciding = drift.deciding(gate, head, allow_weakening=allow_weakening)
    chosen, judged_here = _criteria(deciding, only, device)
    shards, index = _shard(
        shard_name, plan_path, device, gate.digest, head.digest if head else "", repository
    )
    if shards and chosen:
        raise UserError("--only and --shard exclude each other: a shard is a part of every cell")
    interpreter = Path("python") if unjudged else candidate.find_python(python, repository.root)
    output.prepare(directory, verdict.REPORT_NAME)
    keeper = _Keeper(repository.root, directory)
    jobs = jobs or min(usable_cpus(), len(chosen or judged_here))
    threads = max(1, usable_cpus() // jobs)

    terminal = output_format == "text" and output.coloured()
    text = Text(
        colour=terminal,
        links=repository.root if terminal else None,
        verbose=verbose,
        folded=sys.stdout.isatty(),
    )
    silent = quiet or output_format == "json"
    with (
        cancelled_by_signals() as cancellation,
        output.workflow_commands_stopped(output_format),
    ):
        task = leg.Leg(
            candidate.Candidate(interpreter, repository, gate, threads, cancellation),
            device,
            chosen,
            jobs,
            directory,
            commit,
            head,
            specs.origin if specs else "base",
            allow_weakening=allow_weakening,
            isolation="process" if unjudged else isolation,
            # What a shard observes is no verdict, and only verdicts are kept.
            cache=None if unjudged or shards else kept,
            unjudged=unjudged,
            shards=shards,
            shard=index,
            expected=keeper.expected,
        )
        if not silent:
            _announce(task, shard_name)
        names = [cell.name for cell in (*task.cells, *task.head_cells)]
        with _listener(text, names, silent=silent, live=terminal) as listener:
            report = leg.judge(task, listener, keeper.keep)
        written = verdict.write(report, directory)
    if shards:
        return _show_shard(task, report, written, output_format)
    decision = leg.decision(task, report)
    if output_format == "json":
        sys.stdout.write(verdict.encode(report).decode())
        return decision.exit_code
    if quiet:
        output.show(text.brief(decision), decision, output_format)
        return decision.exit_code
    body = text.selection(decision, len(task.cells)) if chosen else text.decision(decision)
    end = f"{shown_path(written, Path.cwd())}  ({report.seconds:.1f} s)"
    output.show(f"\n{body}\n{end}", decision, output_format)
    return decision.exit_code


def _criteria(
    deciding: Spec, only: tuple[str, ...], device: Device
) -> tuple[frozenset[str], set[str]]:
    """Return the criteria that were asked for, none for all, and those that the leg has."""
    from tiergate.errors import UserError

    chosen = frozenset(deciding.criterion(criterion_id).id for criterion_id in only)
    judged_here = {c.id for c in deciding.criteria if device in c.devices}
    if not judged_here:
        raise UserError(f"{deciding.path}: no criterion is judged on {device!r}")
    if absent := sorted(chosen - judged_here):
        raise UserError(f"{', '.join(absent)}: not judged on {device!r} by {deciding.path}")
    return chosen, judged_here


def _announce(task: Leg, shard_name: str | None) -> None:
    """Say what is judged, by what and with what."""
    from tiergate.reproduce import shown_path

    gate = task.candidate.spec
    origin = f" of {task.commit[:12]}" if gate.base else ""
    part = f", shard {shard_name}" if shard_name else ""
    click.echo(
        f"{gate.path}{origin}: {len(task.cells)} cells on {task.device}{part}, {task.jobs} at a "
        f"time, with {shown_path(task.candidate.python, Path.cwd())}"
    )


def _shard(
    name: str | None,
    path: Path | None,
    device: Device,
    spec_digest: str,
    head_digest: str,
    repository: Repository,
) -> tuple[ShardPlan | None, int]:
    """Return the plan and which shard of it to judge, or none where the whole leg is."""
    from tiergate import shards
    from tiergate.errors import UserError

    if (name is None) != (path is None):
        raise UserError("--shard and --plan belong together: a shard is a part of a plan")
    if name is None or path is None:
        return None, 0
    plan = shards.read(path)
    if reason := shards.mismatch(plan, spec_digest, head_digest, repository.source()):
        raise UserError(f"--plan {path}: {reason}")
    return plan, shards.chosen(plan, device, name, name=path)


def _show_shard(task: Leg, report: Report, written: Path, output_format: str) -> int:
    """Print what a shard came to: never a pass, for that is the decision's to say."""
    from tiergate import verdict
    from tiergate.commands import output
    from tiergate.errors import ExitCode
    from tiergate.leg import objections
    from tiergate.render.text import one_line

    found = objections(task, report)
    if output_format == "json":
        sys.stdout.write(verdict.encode(report).decode())
    else:
        lines = [f"! {one_line(text)}" for text in found]
        lines.append(
            f"{report.leg}: {len(report.verdicts)} cells and {len(report.parts)} parts judged: "
            + (f"{len(found)} against a pass" if found else "nothing against a pass")
            + ". Only `tiergate decide` decides, over all shards."
        )
        with output.workflow_commands_stopped(output_format):
            click.echo("\n" + "\n".join(lines) + f"\n{written}  ({report.seconds:.1f} s)")
    if not found:
        return ExitCode.PASSED
    red = any(v.status == "fail" for v in report.verdicts) or any(
        not part.error for part in report.parts
    )
    return ExitCode.FAILED if red else ExitCode.NOT_EVALUATED


class _Keeper:
    """Keeps the history of runs, which balances and orders, and decides nothing."""

    def __init__(self, root: Path, directory: Path) -> None:
        from tiergate import history

        self._directory = directory
        self._database = history.database(root, os.environ)

    def expected(self, cell: str) -> float:
        """Return how many seconds a cell is expected to take."""
        return self._durations.cell(cell)

    @cached_property
    def _durations(self) -> Durations:
        """What earlier runs took: not asked where every cell has its answer."""
        from tiergate import history

        return history.durations(self._runs())

    def keep(self, record: RunRecord) -> None:
        """Write a run's record beside its report, and on a laptop into the history."""
        import msgspec

        from tiergate import history

        try:
            history.write(self._directory / history.TIMINGS_NAME, msgspec.json.encode(record))
        except history.HistoryError as error:
            _say(str(error))
        # A run that was answered from the cache measured nothing, and must push out no other.
        if self._database is not None and record.cells:
            from tiergate.history_store import Database

            Database(self._database, _say).add([record])

    def _runs(self) -> list[RunRecord]:
        if self._database is None or not self._database.exists():
            return []
        from tiergate.history_store import Database

        return Database(self._database, _say).runs()


def _say(line: str) -> None:
    click.echo(f"tiergate: {line}", err=True)


def _with_timeout(gate: Spec, timeout: float | None) -> Spec:
    """Return the spec with this timeout for every criterion, where one is given."""
    import msgspec

    from tiergate.errors import UserError

    if timeout is None:
        return gate
    if not math.isfinite(timeout):
        raise UserError(f"--timeout {timeout:g}: give a number of seconds")
    tiers = tuple(
        msgspec.structs.replace(
            t, criteria=tuple(msgspec.structs.replace(c, timeout=timeout) for c in t.criteria)
        )
        for t in gate.tiers
    )
    return msgspec.structs.replace(gate, tiers=tiers)


@contextmanager
def _listener(text: Text, cells: list[str], *, silent: bool, live: bool) -> Iterator[Listener]:
    """Yield who tells a person what happens: a live table on a terminal, or a line per event."""
    if silent or not live:
        yield _Lines(text, max(map(len, cells), default=0), silent=silent)
        return
    from tiergate.render.live import LiveTable

    with LiveTable(cells) as table:
        yield table


class _Lines:
    """Prints a line per cell when it starts and when it ends."""

    def __init__(self, text: Text, room: int, *, silent: bool) -> None:
        self._text = text
        self._room = room
        self._silent = silent

    def started(self, cell: str) -> None:
        self._line(f"→ {'start':<9}{cell}")

    def progress(self, cell: str, what: str) -> None:
        """Say nothing: lines tell of cells."""

    def expected(self, cell: str, tests: int) -> None:
        """Say nothing: lines tell of cells."""

    def finished(self, verdict: Verdict) -> None:
        self._line(self._text.verdict_line(verdict, self._room))

    def observed(self, part: Part) -> None:
        self._line(self._text.part_line(part, self._room))

    def _line(self, line: str) -> None:
        if not self._silent:
            click.echo(line)
            sys.stdout.flush()
