"""Starts semgrep: its core directly, or the program as it is installed."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tiergate import processes
from tiergate.scanning import rules

if TYPE_CHECKING:
    from tiergate.checkers import Context

_OUTPUT_LIMIT = 256 * 1024 * 1024
_FILE_TIMEOUT = 30


def scan(
    chosen: Sequence[str], folder: Path, engine: Path | None, context: Context
) -> processes.Completed:
    """Scan all files of a folder with an engine's core or the default.

    Semgrep looks at every file of the project that a target lies in, environments included: the
    folder is better none of a repository.
    """
    start: list[str | Path] = (
        ["osemgrep", "scan", "--experimental"] if engine else [default(), "scan"]
    )
    configs = [part for rule in chosen for part in ("--config", rules.RULES / f"{rule}.yaml")]
    flags = [
        "--json",
        "--metrics=off",
        "--disable-version-check",
        "--disable-nosem",
        "--no-git-ignore",
        "--x-ignore-semgrepignore-files",
        "--scan-unknown-extensions",
        "--strict",
        "--max-target-bytes=0",
        f"--timeout={_FILE_TIMEOUT}",
        "-j",
        "1",
    ]
    with tempfile.TemporaryDirectory(prefix="tiergate-") as home:
        # A home of its own: a person's semgrep settings must not change a verdict.
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": home, "LC_ALL": "C.UTF-8"}
        return processes.run(
            [*start, *configs, *flags, "--", folder],
            executable=engine,
            cwd=folder,
            env=environment,
            timeout=context.criterion.timeout,
            cancellation=context.candidate.cancellation,
            output_limit=_OUTPUT_LIMIT,
        )


@cache
def fast() -> Path | None:
    """Return semgrep's core, where the installation has one."""
    spec = importlib.util.find_spec("semgrep")
    if spec is None or spec.origin is None:
        return None
    core = Path(spec.origin).parent / "bin" / "semgrep-core"
    return core if os.access(core, os.X_OK) else None


def default() -> Path:
    """Return the program that drives the core."""
    return Path(sys.executable).parent / "semgrep"


def installed_version() -> str:
    """Return semgrep's version; the program would ask the network for a newer one."""
    from importlib import metadata  # noqa: PLC0415 - slow, and only who scans needs it

    return metadata.version("semgrep")
