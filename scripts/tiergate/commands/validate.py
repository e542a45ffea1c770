"""``tiergate validate``: whether specs can be read, and what is wrong where."""

from __future__ import annotations

from pathlib import Path

import click

from tiergate.commands.options import examples


@click.command(
    "validate",
    epilog=examples(
        "validate",
        ("", "check gate.yaml in the current folder"),
        ("gate.yaml services/*/gate.yaml", "check several; every problem of each is listed"),
        exits=("each spec is right", "", "one is wrong, or cannot be read"),
    ),
)
@click.argument("specs", type=click.Path(path_type=Path), nargs=-1, metavar="[SPEC]...")
def command(specs: tuple[Path, ...]) -> int:
    """Check specs as `tiergate run` would read them, without judging anything.

    Each problem is one line, file:line:column: message, as editors and problem matchers read it.
    """
    from tiergate import spec
    from tiergate.errors import ExitCode, UserError

    wrong = False
    for path in specs or (Path("gate.yaml"),):
        try:
            gate = spec.load(path)
        except UserError as error:
            wrong = True
            click.echo(str(error) if error.located else f"tiergate: {error}", err=True)
            continue
        tiers = ", ".join(tier.gate for tier in gate.tiers)
        criteria = "1 criterion" if len(gate.criteria) == 1 else f"{len(gate.criteria)} criteria"
        click.echo(f"{path}: valid: {criteria} in {tiers}, on {', '.join(gate.devices)}")
    return ExitCode.USAGE if wrong else ExitCode.PASSED
