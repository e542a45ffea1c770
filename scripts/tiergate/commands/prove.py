"""``tiergate prove``: show that every criterion can fail."""

from __future__ import annotations

import os
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate import __version__
from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.candidate import Isolation
    from tiergate.fields import Device
    from tiergate.prove.proof import Proof, Tried
    from tiergate.verdict import Verdict


@click.command(
    "prove",
    epilog=options.examples(
        "prove",
        ("", "every criterion of the CPU leg"),
        ("--only ISS-003", "one criterion"),
        ("--since origin/main", "those whose proofs the change touches"),
        exits=(
            "each criterion failed on its counter-examples, and passed without them",
            "a criterion did not turn red, or has no counter-example",
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
    help="Which leg's criteria to prove.",
)
@click.option("--only", metavar="ID", multiple=True, help="Prove this criterion alone; repeatable.")
@click.option(
    "--report",
    "report_directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where proof.json is written.  [default: .tiergate of the repository]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Counter-examples tried at the same time.  [default: the usable processors]",
)
@options.isolation
@click.option(
    "--since",
    metavar="REF",
    help="Prove only criteria whose files changed since this commit; all of them where the spec, "
    "the judge or a file that steers tests did.",
)
@click.option("--list", "list_only", is_flag=True, help="Print the ids of what would be proven.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="json: the proof on standard output; github: annotations and job summary as well.",
)
def command(
    spec_path: Path | None,
    repo: Path,
    python: str | None,
    device: Device,
    only: tuple[str, ...],
    report_directory: Path | None,
    jobs: int | None,
    isolation: Isolation,
    since: str | None,
    list_only: bool,
    output_format: str,
) -> int:
    """Show that every criterion can fail: try changes of the repository that must turn it red.

    Every change is made in a copy; the repository itself is never touched.
    """
    from tiergate import base, candidate, plan, prove_scope, spec, verdict
    from tiergate.commands.output import coloured, prepare, workflow_commands_stopped
    from tiergate.environment import usable_cpus
    from tiergate.errors import UserError
    from tiergate.interruption import cancelled_by_signals
    from tiergate.prove import proof, prover
    from tiergate.render import proof as render
    from tiergate.repository import Repository
    from tiergate.reproduce import shown_path

    gate = spec.load(options.spec_of(spec_path, repo))
    chosen = {gate.criterion(criterion_id).id for criterion_id in only}
    cells = [c for c in plan.cells(gate, device) if not chosen or c.criterion.id in chosen]
    if absent := sorted(chosen - {c.criterion.id for c in cells}):
        raise UserError(f"{', '.join(absent)}: not judged on {device!r} by {gate.path}")
    if not cells:
        raise UserError(f"{gate.path}: no criterion is judged on {device!r}")
    repository = Repository(repo)
    if since:
        changed_files = base.changed_files(repository, base.resolve(repository, since))
        touched = prove_scope.touched(gate, changed_files)
        cells = [cell for cell in cells if cell.criterion.id in touched]
    if list_only or not cells:
        click.echo("\n".join(cell.criterion.id for cell in cells), nl=bool(cells))
        return 0
    interpreter = candidate.find_python(python, repository.root)
    directory = report_directory or repository.root / ".tiergate"
    prepare(directory, proof.PROOF_NAME)
    jobs = jobs or usable_cpus()
    threads = max(1, usable_cpus() // jobs)
    quiet = output_format == "json"
    with (
        cancelled_by_signals() as cancellation,
        workflow_commands_stopped(output_format),
        candidate.warmed(
            candidate.Candidate(interpreter, repository, gate, threads, cancellation),
            device,
            isolation,
        ) as judged,
    ):
        started, clock = datetime.now(timezone.utc), time.monotonic()
        source = repository.source()
        if not quiet:
            noun = "criterion" if len(cells) == 1 else "criteria"
            click.echo(
                f"{gate.path}: {len(cells)} {noun} on {device}, {jobs} at a time, "
                f"with {shown_path(interpreter, Path.cwd())}"
            )
        proofs = prover.prove(cells, judged, jobs=jobs, listener=_Progress(quiet=quiet))
        changed = Repository(repo).source() != source
        made = proof.Proof(
            schema_version=proof.SCHEMA_VERSION,
            tool_version=__version__,
            spec=verdict.SpecIdentity(str(gate.path), gate.digest),
            source=source,
            device=device,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 3),
            criteria=proofs,
            interruption=cancellation.reason
            or ("the repository changed while it was copied or after" if changed else ""),
        )
        written = proof.write(made, directory)
    if quiet:
        sys.stdout.write(proof.encode(made).decode())
        return made.exit_code
    with workflow_commands_stopped(output_format):
        columns = shutil.get_terminal_size((render.COLUMNS, 24)).columns
        table = render.table(made, colour=coloured(), width=columns)
        click.echo(f"\n{table}\n{shown_path(written, Path.cwd())}  ({made.seconds:.1f} s)")
    if output_format == "github":
        _tell_github(made)
    return made.exit_code


def _tell_github(made: Proof) -> None:
    from tiergate.render import proof as render

    if lines := render.workflow_commands(made):
        click.echo(lines)
    if target := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(render.summary(made))


class _Progress:
    """Prints a line for each verdict."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def untouched(self, verdict: Verdict, when: str) -> None:
        from tiergate.render import fold
        from tiergate.render.text import cut, one_line

        if not self._quiet:
            mark = "✓" if verdict.status == "pass" else "✗"
            name = f"{verdict.criterion} untouched, {when}"
            line = f"{mark} {one_line(name):<34} {verdict.seconds:5.1f} s  "
            click.echo(cut(line + one_line(verdict.summary), fold.columns()))

    def tried(self, criterion: str, tried: Tried) -> None:
        from tiergate.render import fold
        from tiergate.render.proof import tried_line
        from tiergate.render.text import cut

        if not self._quiet:
            click.echo(cut(tried_line(criterion, tried), fold.columns()))
