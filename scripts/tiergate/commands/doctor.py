"""``tiergate doctor``: can this machine judge, and would GitHub obey?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.fields import Device


@click.command(
    "doctor",
    epilog=options.examples(
        "doctor",
        ("", "everything that judging on the CPU needs, tried"),
        ("--device cuda", "the driver, torch's build and a computed result as well"),
        ("--github octo/transformer", "would a red gate block a merge there?"),
        exits=(
            "all is well",
            "there is a problem; each is said with how to mend it",
            options.WRONG,
            "something could not be looked at: that is no pass",
        ),
    ),
)
@click.argument("repository", metavar="[OWNER/REPO]", required=False)
@click.option(
    "--github",
    "on_github",
    is_flag=True,
    help="Look at the branch's rules on GitHub, not at this machine. The repository is that of "
    "the remote 'origin' unless it is named.",
)
@click.option("--branch", default="", help="With --github: the branch.  [default: the default one]")
@click.option("--check", default="gate", show_default=True, help="With --github: the check's name.")
@options.spec
@options.repo
@options.python
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Which leg this machine is to judge.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "github"]),
    default="text",
    show_default=True,
    help="github: for a workflow's log, where nothing of it is read as a command.",
)
def command(
    repository: str | None,
    on_github: bool,
    branch: str,
    check: str,
    spec_path: Path | None,
    repo: Path,
    python: str | None,
    device: Device,
    output_format: str,
) -> int:
    """Look for what keeps the gate from being judged, or obeyed, and say how to mend it.

    Of this machine it tries all that judging needs; with --github it looks for each way around a
    red gate in the rules of the branch.
    """
    from tiergate import diagnosis
    from tiergate.commands.output import workflow_commands_stopped
    from tiergate.errors import UserError
    from tiergate.render import fold

    if on_github:
        from tiergate.github import doctor
        from tiergate.github.client import Client, understood
        from tiergate.github.target import Target

        with understood():
            target = Target(Client(), repository or _origin(repo), branch)
            lines = doctor.examine(target, check)
        subject = f"{target.name}, branch {target.branch}"
        verdicts = ("a red gate blocks the merge", "a red gate may not block the merge")
    else:
        from tiergate import machine

        if repository or branch:
            raise UserError("OWNER/REPO and --branch are for doctor --github")
        lines = machine.examine(repo, options.spec_of(spec_path, repo), python, device)
        subject = f"this machine, for the {device} leg"
        verdicts = ("ready to judge", "not ready to judge")
    code = diagnosis.exit_code(lines)
    with workflow_commands_stopped(output_format):
        click.echo(subject)
        click.echo(diagnosis.render(lines, fold.columns()))
        click.echo(verdicts[0] if code == 0 else verdicts[1])
    return code


def _origin(repo: Path) -> str:
    """Return ``OWNER/REPO`` of the remote ``origin``."""
    import re

    from tiergate.errors import NotEvaluatedError, UserError
    from tiergate.repository import git

    try:
        address = git(repo.resolve(), "remote", "get-url", "origin").decode().strip()
    except NotEvaluatedError:
        address = ""
    found = re.search(r"[/:]([\w.-]+/[\w.-]+?)(\.git)?/?$", address)
    if not found:
        raise UserError("which repository? No remote 'origin' names one; give OWNER/REPO")
    return found[1]
