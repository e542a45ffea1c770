"""Commands that a person can paste into a shell at the repository's root."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiergate.checkers import Context


def python_command(context: Context, *arguments: str) -> str:
    """Return a command of the candidate's interpreter with the environment it is judged in."""
    candidate = context.candidate
    variables = {"TIERGATE_DEVICE": context.device, **candidate.spec.env}
    if candidate.spec.pythonpath:
        variables = {"PYTHONPATH": os.pathsep.join(candidate.spec.pythonpath), **variables}
    assignments = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    python = _shown(candidate.python, candidate.repository.root)
    return " ".join([*assignments, shlex.quote(python), shlex.join(arguments)])


def cell_command(criterion: str, device: str) -> str:
    """Return the command that judges one cell again."""
    return f"tiergate run --only {shlex.quote(criterion)} --device {device}"


def _shown(path: Path, root: Path) -> str:
    try:
        return str(path.relative_to(root))
    except ValueError:
        return str(path)
