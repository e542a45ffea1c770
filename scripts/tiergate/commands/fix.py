"""``tiergate fix``: mend what can be mended without a person's judgement."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.checkers import Context
    from tiergate.spec import Criterion


@click.command(
    "fix",
    epilog=options.examples(
        "fix", ("ISS-004", "show what a program can mend"), ("ISS-004 --apply", "write it")
    ),
)
@click.argument("criterion_id", metavar="ID", shell_complete=options.criterion_ids)
@click.option("--apply", is_flag=True, help="Write the files; without it the changes are shown.")
@options.spec
@options.repo
def command(criterion_id: str, apply: bool, spec_path: Path | None, repo: Path) -> int:
    """Add weights_only=True to the calls of torch.load that leave it out.

    Only to calls that give no weights_only at all and no pickle_module: there the argument says
    what torch 2.6 and later do anyway. A weights_only=False, a value that is not known, or
    torch.load under another name is for a person to decide, and is listed.
    """
    from tiergate import candidate, checkers, spec
    from tiergate.errors import UserError
    from tiergate.processes import Cancellation
    from tiergate.repository import Repository

    gate = spec.load(options.spec_of(spec_path, repo))
    criterion = gate.criterion(criterion_id)
    if criterion.uses != "semgrep":
        raise UserError(
            f"{criterion_id}: nothing to mend by a program; only criteria that use semgrep with "
            "the rule unsafe-torch-load have fixes"
        )
    repository = Repository(repo)
    # Nothing of the candidate's is run: its interpreter is not needed.
    judged = candidate.Candidate(Path("python"), repository, gate, 1, Cancellation())
    context = checkers.Context(criterion, judged, criterion.devices[0], lambda _: None)
    return _mend(criterion, context, write=apply)


def _mend(criterion: Criterion, context: Context, *, write: bool) -> int:
    from tiergate.checkers import semgrep
    from tiergate.errors import ExitCode
    from tiergate.loads import mending
    from tiergate.verdict import write_atomically

    assert isinstance(criterion.parameters, semgrep.With)
    inventory, seen, unreadable = semgrep.places(criterion.parameters, context)
    mended = left = 0
    for path, places in sorted(seen.items()):
        file = inventory.files[path]
        wanted = [(p.line, p.column) for p in places if p.fixable and file.lines is None]
        source, done = mending.mend(file.source, wanted)
        mended += len(done)
        if done and write:
            target = context.candidate.repository.root / path
            mode = target.stat().st_mode
            write_atomically(target, source)
            target.chmod(mode)
        elif done:
            click.echo(_difference(path, file.source, source), nl=False)
        for place in places:
            if (place.line, place.column) not in done:
                left += 1
                where = f"{path}:{file.line(place.line)}:{place.column}"
                click.echo(f"{where}: left to you: {place.message}", err=True)
    for problem in unreadable:
        click.echo(f"not read: {problem}", err=True)
    word = "mended" if write else "can be mended; --apply writes them"
    calls = "call" if mended == 1 else "calls"
    click.echo(f"{mended} {calls} {word}; {left} left to you", err=True)
    return ExitCode.FAILED if left or unreadable or (mended and not write) else ExitCode.PASSED


def _difference(path: str, before: bytes, after: bytes) -> str:
    lines = difflib.unified_diff(
        before.decode("utf-8").splitlines(keepends=True),
        after.decode("utf-8").splitlines(keepends=True),
        f"a/{path}",
        f"b/{path}",
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
