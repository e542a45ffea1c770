"""Small real repositories that the judge is tried on."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiergate import checkers, judge, spec, verdict
from tiergate.candidate import Candidate
from tiergate.checkers import Context, Observation
from tiergate.processes import Cancellation
from tiergate.repository import Repository
from tiergate.verdict import Report, Verdict
from tiergate.warm import WarmInterpreter

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

FILES = {
    "src/shop/__init__.py": "from shop.prices import total\n",
    "src/shop/prices.py": "def total(prices):\n    return sum(prices)\n",
    "tests/test_prices.py": (
        "from shop import total\n\n\n"
        "def test_total():\n    assert total([1, 2]) == 3\n\n\n"
        "def test_nothing_costs_nothing():\n    assert total([]) == 0\n"
    ),
}

PASSES: dict[str, Any] = {
    "id": "prices",
    "uses": "pytest",
    "with": {"paths": ["tests/test_prices.py"]},
    "expect": {"passed": 2},
}


# Prints where an interpreter has what it needs to run pytest: its home, and the files of each.
_PARTS_OF_PYTEST = """
import importlib.util, json, pathlib, sys, sysconfig
from importlib import metadata
parts = []
names = "pytest pluggy iniconfig packaging pygments"
if sys.version_info < (3, 11):
    names += " exceptiongroup tomli typing_extensions"
for name in names.split():
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    tops = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
    parts += sorted(str(found.locate_file(top)) for top in tops)
version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
print(json.dumps([sys.base_prefix, version, parts]))
"""


def light_environment(python: Path, folder: Path) -> Path:
    """Make an environment that borrows pytest, and nothing else, from that of ``python``.

    Samples need no torch, and without it the judge does not spend seconds on importing it.
    """
    asked = subprocess.run(
        [python, "-I", "-c", _PARTS_OF_PYTEST], capture_output=True, check=True, text=True
    )
    base, version, parts = json.loads(asked.stdout)
    site = folder / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    for part in parts:
        (site / Path(part).name).symlink_to(part)
    (folder / "bin").mkdir()
    alone = "include-system-site-packages = false"
    (folder / "pyvenv.cfg").write_text(f"home = {base}/bin\n{alone}\n")
    made = folder / "bin" / "python"
    made.symlink_to(Path(base) / "bin" / version)
    return made


@dataclass
class Sample:
    """A git repository with a package, its tests and a gate."""

    root: Path
    python: Path
    cancellation: Cancellation = field(default_factory=Cancellation)
    warm: WarmInterpreter | None = None

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file, and the folders above it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def git(self, *arguments: str) -> str:
        """Run git as somebody whose own settings do not matter."""
        who = {"NAME": "A", "EMAIL": "a@example.org"}
        people = {f"GIT_{r}_{k}": v for r in ("AUTHOR", "COMMITTER") for k, v in who.items()}
        nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env={"PATH": os.environ["PATH"], **people, **nobody},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def commit(self) -> None:
        """Commit all that is there."""
        if not (self.root / ".git").exists():
            self.git("init", "-q", "-b", "main", "--template=")
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a state")

    def gate(self, *criteria: Mapping[str, Any], **top: Any) -> Path:
        """Write gate.yaml, as JSON, which YAML contains."""
        document = {
            "gate": "TIER 0",
            "next": "TIER 1",
            "pythonpath": ["src"],
            "timeout": 60,
            "criteria": list(criteria),
            **top,
        }
        if "tiers" in top:
            for name in ("gate", "next", "criteria"):
                del document[name]
        return self.write("gate.yaml", json.dumps(document, indent=1))

    def candidate(self) -> Candidate:
        """Return the candidate that gate.yaml describes."""
        loaded = spec.load(self.root / "gate.yaml")
        repository = Repository(self.root)
        return Candidate(self.python, repository, loaded, 1, self.cancellation, self.warm)

    def context(
        self, criterion: Mapping[str, Any], progress: Callable[[str], None] = lambda _: None
    ) -> Context:
        """Return where a criterion is evaluated, when it is the only one of the gate."""
        self.gate(criterion)
        candidate = self.candidate()
        return Context(candidate.spec.criteria[0], candidate, "cpu", progress)

    def observe(self, criterion: Mapping[str, Any]) -> Observation:
        """Evaluate one criterion."""
        context = self.context(criterion)
        checker = checkers.get(context.criterion.uses)
        return checker.observe(context.criterion.parameters, context)

    def verdict(
        self, criterion: Mapping[str, Any], progress: Callable[[str], None] = lambda _: None
    ) -> Verdict:
        """Evaluate and judge one criterion in this process, when it is the only one of the gate."""
        return _judged(self.context(criterion, progress))

    def judged(self, criterion_id: str) -> Verdict:
        """Evaluate and judge one criterion of gate.yaml in this process."""
        candidate = self.candidate()
        criterion = candidate.spec.criterion(criterion_id)
        return _judged(Context(criterion, candidate, "cpu", lambda _: None))

    def shell(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Paste a command into a shell at the repository's root."""
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.root,
            env=caller_environment(environment),
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``tiergate`` at the repository's root."""
        return subprocess.Popen(
            [sys.executable, "-m", "tiergate", *arguments],
            cwd=self.root,
            env=caller_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def tiergate(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``tiergate`` at the repository's root."""
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``tiergate run`` with the candidate's interpreter."""
        return self.tiergate("run", "--python", str(self.python), *arguments, **environment)

    def report(self) -> Report:
        """Read the report of the last run."""
        return verdict.read(self.root / ".tiergate")

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdicts of the last run by criterion."""
        return {found.criterion: found for found in self.report().verdicts}


def _judged(context: Context) -> Verdict:
    checker = checkers.get(context.criterion.uses)
    observation = checker.observe(context.criterion.parameters, context)
    return judge.judge(context, checker, observation, 0.0)


def caller_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return what a person's shell would give to ``tiergate``."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG", "TMPDIR"}}
    return {**kept, "PYTHONPATH": str(SCRIPTS), "TIERGATE_CACHE": "0", **more}


def ended(pid: int, seconds: float = 10) -> bool:
    """Tell whether a process has ended, or ends within ``seconds``."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def copy_of_this_repository(to: Path, python: Path) -> Sample:
    """Copy what belongs to this repository, uncommitted work included, and commit it there."""
    for name in Repository(ROOT).files:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    sample = Sample(to, python)
    sample.commit()
    return sample
