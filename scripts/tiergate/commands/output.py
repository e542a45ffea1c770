"""What commands share of their output: the decision, and the folder of the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def coloured() -> bool:
    """Say whether standard output is a terminal that takes colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def show(body: str, decision: object, output_format: str) -> None:
    """Print a decision; for GitHub with annotations, and the summary into the job's file."""
    with workflow_commands_stopped(output_format):
        click.echo(body)
    if output_format != "github":
        return
    from tiergate.decide import Decision
    from tiergate.render import github, markdown

    assert isinstance(decision, Decision)
    if lines := github.workflow_commands(decision):
        click.echo(lines)
    if target := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(markdown.summary(decision))
    if target := os.environ.get("GITHUB_OUTPUT"):
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(github.outputs(decision))


@contextmanager
def workflow_commands_stopped(output_format: str) -> Iterator[None]:
    """Keep GitHub from finding workflow commands in what candidate code made us print."""
    if output_format != "github":
        yield
        return
    token = os.urandom(16).hex()
    click.echo(f"::stop-commands::{token}")
    try:
        yield
    finally:
        click.echo(f"::{token}::")


def prepare(directory: Path, name: str) -> None:
    """Make the report's folder, out of git's sight, and remove ``name`` of an earlier run.

    Raises:
        UserError: the folder cannot be written.
    """
    from tiergate.errors import UserError

    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Only where it is ours alone: in a folder with other files it would hide them from git.
        if not any(directory.iterdir()):
            (directory / ".gitignore").write_text("*\n", encoding="ascii")
        (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"--report {directory}: cannot write there: {error.strerror}; choose another folder"
        ) from None
