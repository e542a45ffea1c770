"""``tiergate fix``: mend what can be mended without a person's judgement."""

from __future__ import annotations

import difflib
import stat
import sys
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

    Exit codes: 0 nothing is left, 1 something is (or would be, without --apply), 2 the criterion
    has no fix.
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
    from tiergate.render.text import one_line

    assert isinstance(criterion.parameters, semgrep.With)
    inventory, seen, unreadable = semgrep.places(criterion.parameters, context)
    root = context.candidate.repository.root
    mended = left = 0
    for path, places in sorted(seen.items()):
        file = inventory.files[path]
        wanted = [(p.line, p.column) for p in places if p.fixable and file.lines is None]
        source, done = mending.mend(file.source, wanted)
        why = _obstacle(root / path, file.source) if done else ""
        if done and write and not why:
            why = _write(root / path, source)
        elif done and not why:
            click.echo(_difference(path, file.source, source), nl=False)
        if why:
            done = []
        mended += len(done)
        for place in places:
            if (place.line, place.column) not in done:
                left += 1
                where = f"{path}:{file.line(place.line)}:{place.column}"
                also = f"; {why}" if why else ""
                click.echo(one_line(f"{where}: left to you: {place.message}{also}"), err=True)
    for problem in unreadable:
        click.echo(one_line(f"not read: {problem}"), err=True)
    word = "mended" if write else "can be mended"
    if mended and not write:
        word += "; --apply writes them"
    calls = "call" if mended == 1 else "calls"
    click.echo(f"{mended} {calls} {word}; {left} left to you", err=True)
    return ExitCode.FAILED if left or unreadable or (mended and not write) else ExitCode.PASSED


def _obstacle(target: Path, source: bytes) -> str:
    """Say why a file must not be replaced, or return an empty string."""
    if target.is_symlink():
        return "it is a symbolic link: mend the file that it leads to"
    try:
        return "" if target.read_bytes() == source else "it was changed since it was read"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _write(target: Path, source: bytes) -> str:
    """Replace a file whole, and say why that was not possible, or return an empty string."""
    from tiergate.verdict import write_atomically

    try:
        write_atomically(target, source, stat.S_IMODE(target.stat().st_mode))
    except OSError as error:
        return f"it cannot be written: {error.strerror}"
    return ""


def _difference(path: str, before: bytes, after: bytes) -> str:
    """Return a patch that git applies; on a terminal, control characters are shown instead."""
    from tiergate.render.text import printable

    old, new = (data.decode("utf-8").split("\n") for data in (before, after))
    lines = difflib.unified_diff(
        [f"{line}\n" for line in old[:-1]] + old[-1:] * bool(old[-1]),
        [f"{line}\n" for line in new[:-1]] + new[-1:] * bool(new[-1]),
        f"a/{path}",
        f"b/{path}",
    )
    if sys.stdout.isatty():
        return "".join(f"{printable(line.rstrip(chr(10)))}\n" for line in lines)
    mark = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else f"{line}{mark}" for line in lines)
