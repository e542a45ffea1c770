"""``tiergate run``: judge one leg on this machine."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate import __version__
from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.fields import Device
    from tiergate.processes import Cancellation
    from tiergate.render.text import Text
    from tiergate.runner import Listener
    from tiergate.verdict import Verdict


@click.command("run", epilog="Example: tiergate run --only ISS-003 --device cuda")
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
@click.option("--only", metavar="ID", multiple=True, help="Judge this criterion alone; repeatable.")
@click.option(
    "--report",
    "report_directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where report.json is written.  [default: .tiergate of the repository]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds per criterion, in place of the spec's.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Criteria evaluated at the same time.  [default: the usable processors]",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="json: the report on standard output; github: annotations and job summary as well.",
)
def command(
    spec_path: Path | None,
    repo: Path,
    python: str | None,
    device: Device,
    only: tuple[str, ...],
    report_directory: Path | None,
    timeout: float | None,
    jobs: int | None,
    output_format: str,
) -> int:
    """Run the criteria of the spec on this machine and decide.

    Writes report.json, prints what failed with the command that reproduces it, and exits with 0
    only if every cell of the leg passed.
    """
    # Imported here: what `--help` and the other commands need not pay for.
    from dataclasses import replace

    from tiergate import candidate, decide, plan, runner, spec, verdict
    from tiergate.environment import usable_cpus
    from tiergate.errors import UserError
    from tiergate.processes import Cancellation
    from tiergate.render.text import Text
    from tiergate.repository import Repository

    gate = spec.load(options.spec_of(spec_path, repo))
    if timeout is not None:
        tiers = tuple(
            replace(t, criteria=tuple(replace(c, timeout=timeout) for c in t.criteria))
            for t in gate.tiers
        )
        gate = replace(gate, tiers=tiers)
    planned = plan.cells(gate, device)
    if not planned:
        raise UserError(f"{gate.path}: no criterion is judged on {device!r}")
    chosen = {gate.criterion(criterion_id).id for criterion_id in only}
    selected = [c.name for c in planned if not chosen or c.criterion.id in chosen]
    if absent := sorted(chosen - {c.criterion.id for c in planned}):
        raise UserError(f"{', '.join(absent)}: not judged on {device!r} by {gate.path}")
    repository = Repository(repo)
    interpreter = candidate.find_python(python, repository.root)
    directory = report_directory or repository.root / ".tiergate"
    prepare(directory)
    jobs = jobs or min(usable_cpus(), len(selected))
    threads = max(1, usable_cpus() // jobs)

    text = Text(colour=_colour(), width=None)
    quiet = output_format == "json"
    with cancelled_by_signals(Cancellation()) as cancellation:
        judged = candidate.Candidate(interpreter, repository, gate, threads, cancellation)
        listener: Listener = _Progress(text, quiet=quiet)
        started = datetime.now(timezone.utc)
        clock = time.monotonic()
        source = repository.source()
        if not quiet:
            click.echo(
                f"{gate.path}: {len(selected)} cells on {device}, {jobs} at a time, "
                f"with {interpreter}"
            )
        leg = runner.run_leg(
            planned, judged, device=device, selected=selected, jobs=jobs, listener=listener
        )
        changed = repository_changed(repo, source)
        interruption = cancellation.reason or changed
        report = verdict.Report(
            schema_version=verdict.SCHEMA_VERSION,
            tool_version=__version__,
            spec=verdict.SpecIdentity(str(gate.path), gate.digest),
            source=source,
            device=device,
            planned=[cell.name for cell in planned],
            selected=selected,
            complete=not interruption and {v.cell for v in leg.verdicts} == set(selected),
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 3),
            verdicts=leg.verdicts,
            environment=leg.environment,
            device_proof=leg.device_proof,
            run=verdict.Run(
                os.environ.get("GITHUB_RUN_ID", ""),
                int(os.environ.get("GITHUB_RUN_ATTEMPT", "0") or 0),
            ),
            interruption=interruption,
        )
        written = verdict.write(report, directory)
    decision = decide.decide(gate, [report], devices=[device], only=chosen or None, source=source)
    if quiet:
        sys.stdout.write(verdict.encode(report).decode())
        return decision.exit_code
    body = text.selection(decision, len(selected)) if chosen else text.decision(decision)
    show(f"\n{body}\n{written}  ({report.seconds:.1f} s)", decision, output_format)
    return decision.exit_code


def show(body: str, decision: object, output_format: str) -> None:
    """Print a decision; for GitHub with annotations, and the summary into the job's file."""
    if output_format != "github":
        click.echo(body)
        return
    from tiergate.decide import Decision
    from tiergate.render import github

    assert isinstance(decision, Decision)
    # What candidate code printed must not be read as workflow commands.
    token = secrets.token_hex(16)
    click.echo(f"::stop-commands::{token}\n{body}\n::{token}::")
    if lines := github.workflow_commands(decision):
        click.echo(lines)
    if target := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(github.summary(decision))


def prepare(directory: Path) -> None:
    """Make the report's folder, out of git's sight, and remove the report of an earlier run.

    Raises:
        UserError: the folder cannot be written.
    """
    from tiergate.errors import UserError
    from tiergate.verdict import REPORT_NAME

    try:
        directory.mkdir(parents=True, exist_ok=True)
        ignore = directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="ascii")
        (directory / REPORT_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"--report {directory}: cannot write there: {error.strerror}; choose another folder"
        ) from None


def repository_changed(repo: Path, before: object) -> str:
    """Say that the repository changed while it was judged, or return an empty string."""
    from tiergate.repository import Repository

    if Repository(repo).source() == before:
        return ""
    return "the repository changed while it was judged: the verdicts are of no single state"


@contextmanager
def cancelled_by_signals(cancellation: Cancellation) -> Iterator[Cancellation]:
    """Turn the first Ctrl-C or SIGTERM into a cancellation that still writes the report."""

    def cancel(number: int, _: object) -> None:
        name = signal.Signals(number).name
        cancellation.cancel(f"interrupted by {name}")
        click.echo(f"\ntiergate: {name}: ending what runs, then writing the report", err=True)

    previous = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancellation
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class _Progress:
    """Prints a line per cell when it starts and ends; on a terminal, also the running test."""

    def __init__(self, text: Text, *, quiet: bool) -> None:
        self._text = text
        self._quiet = quiet
        self._live = not quiet and sys.stdout.isatty()

    def started(self, cell: str) -> None:
        if not self._quiet:
            self._line(f"→ {'start':<9}{cell}")

    def progress(self, cell: str, what: str) -> None:
        if self._live:
            click.echo(f"\r\033[K  {cell}: {what}"[:120], nl=False)

    def finished(self, verdict: Verdict) -> None:
        if not self._quiet:
            self._line(self._text.verdict_line(verdict))

    def _line(self, line: str) -> None:
        click.echo(f"\r\033[K{line}" if self._live else line)
        sys.stdout.flush()
