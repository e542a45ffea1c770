"""``tiergate explain``: what a criterion means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    import msgspec

    from tiergate.waivers import Waiver


@click.command(
    "explain",
    epilog=options.examples(
        "explain",
        ("ISS-003", "what it means, how to reproduce it, who mends it"),
        exits=("it was explained", "", options.WRONG),
    ),
)
@click.argument("criterion_id", metavar="ID", shell_complete=options.criterion_ids)
@options.spec
@options.repo
@options.python
def command(criterion_id: str, spec_path: Path | None, repo: Path, python: str | None) -> int:
    """Say what a criterion means, what it expects, how to reproduce it and who mends it."""
    from tiergate import candidate, checkers, spec
    from tiergate.errors import UserError
    from tiergate.processes import Cancellation
    from tiergate.render import fold
    from tiergate.render.text import one_line, remedy_rows
    from tiergate.repository import Repository
    from tiergate.reproduce import cell_command

    gate = spec.load(options.spec_of(spec_path, repo))
    criterion = gate.criterion(criterion_id)
    checker = checkers.get(criterion.uses)
    repository = Repository(repo)
    try:
        interpreter = candidate.find_python(python, repository.root)
    except UserError:
        interpreter = Path("python")
    judged = candidate.Candidate(interpreter, repository, gate, 1, Cancellation())
    outcomes = checker.outcomes(criterion.parameters)
    zero = [name for name in outcomes.strict if name not in criterion.expect]
    tier = next(t for t in gate.tiers if criterion in t.criteria)
    rows = [
        ("holds when", criterion.name),
        ("tier", tier.gate),
        ("checker", f"{criterion.uses}: {_summary(checker)}"),
        *_parameters(criterion.parameters),
        ("expects", ", ".join(f"{k}: {v}" for k, v in criterion.expect.items()) or "(nothing)"),
        ("must be zero", ", ".join(zero)),
        ("devices", ", ".join(criterion.devices)),
        ("needs", ", ".join(criterion.needs)),
        ("timeout", f"{criterion.timeout:g} s"),
        ("gpu-memory", f"{criterion.gpu_memory:g} GB" if criterion.gpu_memory else ""),
        ("retries", f"{criterion.retries}, flaky: {criterion.flaky}" if criterion.retries else ""),
        *(("waived", _waiver(w)) for w in gate.waivers if w.criterion == criterion.id),
        ("defined at", f"{gate.path}:{criterion.mark.line}"),
    ]
    width = fold.columns()
    lines = [criterion.id]
    for name, value in rows:
        if value:
            lines += fold.words(f"  {name:<13} ", one_line(value), width)
    for device in criterion.devices:
        context = checkers.Context(criterion, judged, device, lambda _: None)
        lines.append(f"  reproduce on {device}, at the repository's root:")
        commands = checker.reproduce(criterion.parameters, context)
        for line in (cell_command(criterion.id, device), *commands):
            lines += fold.command("    ", one_line(line), width)
    if remedy := remedy_rows(criterion.remedy):
        lines.append("  remedy")
        for name, value in remedy:
            lines += fold.words(f"    {name:<9} ", one_line(value), width)
    click.echo("\n".join(lines))
    return 0


def _parameters(parameters: msgspec.Struct) -> list[tuple[str, str]]:
    """Return what stands under ``with:``, and the defaults."""
    import msgspec

    from tiergate.yaml_text import flow

    given = msgspec.to_builtins(parameters)
    shown = {key: value for key, value in given.items() if value not in (None, [], {})}
    return [
        ("with" if number == 0 else "", f"{k}: {flow(v)}")
        for number, (k, v) in enumerate(shown.items())
    ]


def _waiver(waiver: Waiver) -> str:
    return f"{waiver.what} until {waiver.expires}: {waiver.reason} ({waiver.owner})"


def _summary(checker: object) -> str:
    """Return the first line of the checker's docstring, without its name."""
    first = (checker.__doc__ or "").strip().split("\n", 1)[0]
    return first.split(": ", 1)[-1].rstrip(".")
