"""Judges one criterion of an attacked repository, in this process."""

from __future__ import annotations

import io
import os
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from attack_sample import Changes, apply, make

from tiergate import checkers, cli, judge, spec
from tiergate.candidate import Candidate
from tiergate.checkers import Context
from tiergate.environment import candidate_environment
from tiergate.processes import Cancellation
from tiergate.repository import Repository
from tiergate.verdict import Verdict
from tiergate.warm import WarmInterpreter


@dataclass(frozen=True)
class Interpreter:
    """What the attacked repository's code runs in."""

    python: Path
    warm: WarmInterpreter


def lean_environment(folder: Path) -> Path:
    """Make an environment with the packages of this one, but without their entry points.

    Only so is a session short: no plugin of an installed package is loaded.

    Returns:
        its interpreter.
    """
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if package.suffix not in {".dist-info", ".pth"}:
            (packages / package.name).symlink_to(package)
    return folder / "bin" / "python"


@contextmanager
def interpreter(python: Path) -> Iterator[Interpreter]:
    """Start a warm interpreter that has imported pytest."""
    environment = candidate_environment(os.environ, device="cpu", threads=1, set_={})
    with WarmInterpreter(python, environment, ("pytest",)) as warm:
        yield Interpreter(python, warm)


def verdict_on(
    root: Path,
    changes: Changes,
    criterion_id: str,
    interpreter: Interpreter,
    environment: Mapping[str, str],
) -> Verdict:
    """Make the changed sample in ``root`` and judge one of its criteria.

    Raises:
        SpecError: the changed gate.yaml is refused.
    """
    make(root, changes)
    gate = spec.load(root / "gate.yaml")
    candidate = Candidate(
        interpreter.python, Repository(root), gate, 1, Cancellation(), interpreter.warm
    )
    criterion = gate.criterion(criterion_id)
    checker = checkers.get(criterion.uses)
    context = Context(criterion, candidate, "cpu", lambda _: None)
    started = time.monotonic()
    with mock.patch.dict("os.environ", environment):
        observation = checker.observe(criterion.parameters, context)
    return judge.judge(context, checker, observation, time.monotonic() - started)


def words(verdict: Verdict) -> str:
    """Return all that a verdict says, for finding what it must name."""
    evidence = verdict.evidence
    said = [verdict.status, verdict.summary, evidence.running, *evidence.notes]
    for failure in evidence.failures:
        where = f"{failure.path}:{failure.line}"
        said += [failure.outcome, failure.id, failure.message, failure.details, where]
    said += [f"{finding.path}:{finding.line}" for finding in evidence.findings]
    return "\n".join(said)


def run_against_base(
    root: Path, base: Changes, head: Changes, running: Interpreter
) -> tuple[int, str]:
    """Commit the sample as the base, change it, and run the gate's tests criterion against it.

    Returns:
        the exit code, and what the gate printed.
    """
    make(root, base)
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "base"]):
        subprocess.run([*git, *arguments], cwd=root, check=True, capture_output=True)
    apply(root, head)
    printed = io.StringIO()
    arguments = ["run", "--repo", str(root), "--only", "tests", "--base", "HEAD"]
    with redirect_stdout(printed), redirect_stderr(printed):
        code = cli.run([*arguments, "--python", str(running.python), "--jobs", "1"])
    return code, printed.getvalue()
