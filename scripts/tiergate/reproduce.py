"""Commands that a person can paste into a shell at the repository's root."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiergate.candidate import Candidate
    from tiergate.checkers import Context

_WRAPPER = "TIERGATE_COMMAND"
"""Set by a command that starts ``tiergate run`` with an interpreter of its own choice."""


def python_command(context: Context, *arguments: str) -> str:
    """Return a command of the candidate's interpreter with the environment it is judged in."""
    candidate = context.candidate
    variables = {"TIERGATE_DEVICE": context.device, **candidate.spec.env}
    if candidate.spec.pythonpath:
        variables = {"PYTHONPATH": os.pathsep.join(candidate.spec.pythonpath), **variables}
    assignments = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    python = shown_path(candidate.python, candidate.repository.root)
    return " ".join([*assignments, shlex.quote(python), shlex.join(arguments)])


def cell_command(criterion: str, device: str, candidate: Candidate | None = None) -> str:
    """Return the command that judges one cell again; with ``candidate``, by its interpreter."""
    wrapper = os.environ.get(_WRAPPER, "")
    command = [*(shlex.split(wrapper) or ["tiergate", "run"])]
    command += ["--only", criterion, "--device", device]
    if candidate is not None:
        root = candidate.repository.root
        spec = candidate.spec.path.absolute()
        if spec != root / "gate.yaml":
            command += ["--spec", shown_path(spec, root)]
        if candidate.spec.base:
            command += ["--base", candidate.spec.base[:12]]
        if not wrapper:
            command += ["--python", shown_path(candidate.python, root)]
    return shlex.join(command)


def shown_path(path: Path, root: Path) -> str:
    """Return a path from the repository's root where it lies in it, so that any checkout has it."""
    try:
        return str(path.relative_to(root))
    except ValueError:
        return str(path)
