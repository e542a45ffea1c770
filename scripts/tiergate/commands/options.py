"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

spec = click.option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path),
    help="The spec.  [default: gate.yaml of the repository]",
)
repo = click.option(
    "--repo",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="The repository to judge.  [default: the current folder]",
)
python = click.option(
    "--python",
    metavar="PATH",
    help="The candidate's interpreter.  [default: the active environment's, or .venv's]",
)


def spec_of(spec_path: Path | None, repo: Path) -> Path:
    """Return which spec to read."""
    return spec_path if spec_path is not None else repo / "gate.yaml"
