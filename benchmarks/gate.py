"""What the gate costs: against the same checks by other means, against its floor, warm, by test.

    scripts/bench gate [--quick] [--rounds N] [--only NAME]

The judge is a program of its own environment, as users start it; this file only starts programs
and adds up the CPU time of each with all its children. On a busy machine that is what can be
compared: wall time is printed beside it. Every ratio is of two runs of one round, one after the
other; the median over the rounds is reported.

pre-commit and nox are in an environment of their own, which scripts/bench makes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = Path(os.environ.get("TIERGATE_VENVS") or ROOT / ".venvs")
GATE = VENVS / "judge" / "bin" / "tiergate"
PYTHON = VENVS / "candidate" / "bin" / "python"
SEMGREP = VENVS / "judge" / "bin" / "semgrep"
OTHERS = VENVS / "comparisons" / "bin"
RULES = ROOT / "scripts" / "tiergate" / "rules" / "unsafe-torch-load.yaml"
TESTS = 10
"""Tests in a generated file."""


@dataclass(frozen=True)
class Cost:
    """What a program took with all its children, in seconds and MB."""

    cpu: float
    wall: float
    peak: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu + other.cpu, self.wall + other.wall, max(self.peak, other.peak))


def cost(command: list[str], cwd: Path, *, expect: int = 0, **variables: str) -> Cost:
    """Run a program to its end; it must end with the code that is expected."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expect:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, wall, after.ru_maxrss / 1024)


@dataclass(frozen=True)
class Project:
    """A repository with a gate, and the plain commands that check the same."""

    name: str
    root: Path
    commands: list[list[str]]

    def gate(self, *arguments: str, cache: Path | None = None) -> Cost:
        """Judge it; without ``cache`` nothing of earlier runs is used."""
        if cache is None:
            variables = {"TIERGATE_CACHE": "0"}
        else:
            variables = {"TIERGATE_CACHE": "1", "XDG_CACHE_HOME": str(cache)}
        command = [str(GATE), "run", "--python", str(PYTHON), *arguments]
        return cost(command, self.root, **variables)

    def plain(self) -> Cost:
        """Run the plain commands one after another."""
        total = Cost(0, 0, 0)
        for command in self.commands:
            total += cost(command, self.root, PYTHONPATH=f"src{os.pathsep}.")
        return total

    def hooks(self) -> Cost:
        """Run them as local hooks of pre-commit."""
        hooks = [
            {
                "id": f"check-{number}",
                "name": f"check {number}",
                "language": "system",
                "entry": shlex.join(["env", "PYTHONPATH=src:.", *command]),
                "pass_filenames": False,
                "always_run": True,
            }
            for number, command in enumerate(self.commands)
        ]
        config = {"repos": [{"repo": "local", "hooks": hooks}]}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(config, file)  # YAML contains it
            file.flush()
            return cost(
                [str(OTHERS / "pre-commit"), "run", "--all-files", "--config", file.name], self.root
            )

    def sessions(self) -> Cost:
        """Run each as a nox session without an environment of its own."""
        lines = ["import nox", "nox.options.default_venv_backend = 'none'"]
        for number, command in enumerate(self.commands):
            lines += ["", "@nox.session", f"def check_{number}(session):"]
            lines.append(f"    session.chdir({str(self.root)!r})")  # not the file's folder
            lines.append(f"    session.run(*{command!r}, env={{'PYTHONPATH': 'src:.'}})")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "noxfile.py")
            file.write_text("\n".join(lines))
            return cost([str(OTHERS / "nox"), "-R", "-f", str(file)], self.root)


def _check_tools() -> None:
    """End with a line that says what is missing, before anything is measured."""
    for program in (GATE, PYTHON, SEMGREP, OTHERS / "pre-commit", OTHERS / "nox"):
        if not os.access(program, os.X_OK):
            sys.exit(f"{program} is not there: start this with scripts/bench gate, which makes it")


def this_repository(folder: Path) -> Project:
    """A clone of this repository, its gate, and the plan's six commands."""
    root = folder / "this"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    tests = "tests/unit/"
    names = "get_model_size, calculate_safe_batch_size"
    pytest = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    scan = [str(SEMGREP), "scan", f"--config={RULES}", "--metrics=off", "--error"]
    return Project(
        "this repository",
        root,
        [
            [str(PYTHON), "-c", f"from cross_phase.utils import {names}"],
            [*pytest, "--collect-only", f"{tests}test_wandb_integration.py"],
            [*pytest, f"{tests}test_mugrokfast.py"],
            [*scan, "--disable-version-check", "src"],
            [*pytest, f"{tests}test_phase3_architecture.py"],
            [*pytest, "--collect-only", "tests"],
        ],
    )


def generated(folder: Path, files: int) -> Project:
    """A repository of test files that import torch: two criteria run some, one collects all."""
    root = folder / f"files-{files}"
    (root / "tests").mkdir(parents=True)
    tests = "\n\n".join(
        f"def test_{n}():\n    assert torch.ones({n + 1}).sum() == {n + 1}" for n in range(TESTS)
    )
    names = [f"tests/test_{number}.py" for number in range(files)]
    for name in names:
        (root / name).write_text(f"import torch\n\n\n{tests}\n")
    half = (files + 1) // 2
    parts = [names[:half], names[half:]]
    criteria = [
        {
            "id": f"part-{number}",
            "uses": "pytest",
            "with": {"paths": part},
            "expect": {"passed": len(part) * TESTS},
        }
        for number, part in enumerate(parts)
    ]
    criteria.append({"id": "all", "uses": "collection", "expect": {"collected": files * TESTS}})
    spec = {"gate": "TIER 0", "pythonpath": ["."], "timeout": 900, "criteria": criteria}
    (root / "gate.yaml").write_text(json.dumps(spec))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a state"]):
        subprocess.run(
            ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *command],
            cwd=root,
            check=True,
        )
    pytest = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return Project(
        f"{files} test files",
        root,
        [*([*pytest, *part] for part in parts), [*pytest, "--collect-only", "tests"]],
    )


def against_others(project: Project, rounds: int) -> None:
    """Cold gate against the same checks by other means (goal: 3 times faster than each)."""
    ways: dict[str, Callable[[], Cost]] = {
        "the plain commands": project.plain,
        "pre-commit": project.hooks,
        "nox": project.sessions,
    }
    for name, way in ways.items():
        pairs = [(way(), project.gate()) for _ in range(rounds)]
        _ratios(f"{name} / cold gate", pairs)


def against_floor(project: Project, rounds: int) -> None:
    """Cold gate against one import of torch and the commands' own work (goal: within 1.15)."""
    cpu, wall = [], []
    cores = len(os.sched_getaffinity(0))
    for _ in range(rounds):
        whole = project.gate()
        imported = cost([str(PYTHON), "-c", "import torch, pytest"], project.root)
        own = []
        for command in project.commands:
            one = cost(command, project.root, PYTHONPATH=f"src{os.pathsep}.")
            shared = imported if command[0] == str(PYTHON) else Cost(0, 0, 0)
            own.append(Cost(max(0, one.cpu - shared.cpu), max(0, one.wall - shared.wall), 0))
        floor = imported.wall + max(sum(o.wall for o in own) / cores, *(o.wall for o in own))
        cpu.append(whole.cpu / (imported.cpu + sum(o.cpu for o in own)))
        wall.append((whole.wall - 0.3) / floor)
    print(
        f"  cold gate / floor: CPU {statistics.median(cpu):.2f}, "
        f"wall without 0.3 s {statistics.median(wall):.2f}  (goal <= 1.15)"
    )


def warm(project: Project, rounds: int) -> None:
    """Nothing changed: against cold (goal: 30 times), and against importing torch."""
    with tempfile.TemporaryDirectory() as folder:
        time.sleep(0.2)
        for _ in range(2):  # the first run makes its folder, and learns of the environment
            project.gate(cache=Path(folder))
        colds, torches, cpu = [], [], []
        for _ in range(rounds):
            colds.append((project.gate(), project.gate(cache=Path(folder))))
            torches.append((cost([str(PYTHON), "-c", "import torch"], project.root), colds[-1][1]))
            report = json.loads((project.root / ".tiergate" / "report.json").read_bytes())
            left = [v["criterion"] for v in report["verdicts"] if "cached" not in v]
            if left:
                print(f"  not answered from the cache: {', '.join(left)}")
            cpu.append(colds[-1][1].cpu)
        _ratios("cold / warm gate", colds)
        _ratios("import torch / warm gate", torches)
        print(f"  warm gate: {statistics.median(cpu) * 1000:.0f} ms CPU  (goal < 150)")


def probe(folder: Path, tests: int, rounds: int) -> None:
    """A session under the probe against plain pytest, by test (goal: at most 5 %)."""
    root = folder / "probe"
    (root / "tests").mkdir(parents=True)
    each = 100
    body = "\n\n".join(f"def test_{n}():\n    assert {n} == {n}" for n in range(each))
    for number in range(tests // each):
        (root / "tests" / f"test_{number}.py").write_text(f"{body}\n")
    criterion = {
        "id": "all",
        "uses": "pytest",
        "with": {"paths": ["tests"]},
        "expect": {"passed": tests // each * each},
    }
    (root / "gate.yaml").write_text(json.dumps({"gate": "TIER 0", "criteria": [criterion]}))
    project = Project("probe", root, [])
    pytest = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    pairs = [
        (project.gate("--isolation", "process"), cost(pytest, root, PYTHONDONTWRITEBYTECODE="1"))
        for _ in range(rounds)
    ]
    _ratios(f"gate / plain pytest, {tests} tests", pairs)
    extra = statistics.median(gate.cpu - plain.cpu for gate, plain in pairs)
    print(f"  {extra / tests * 1e6:.0f} µs CPU more for each test, the judge's part included")


_MEMORY = """
import resource, sys
from tiergate.candidate import ProbeResult
from tiergate.sessions.records import read_session
count = int(sys.argv[1])
def name(n):
    return f"tests/test_{n // 100}.py::test_number_{n}[parameter-{n}]"
def records():
    for n in range(count):
        yield {"event": "item", "id": name(n), "path": name(n)[:14], "body": f"{n:016x}"}
    yield {"event": "selected", "ids": [name(n) for n in range(count)]}
    for n in range(count):
        yield {"event": "start", "id": name(n)}
        yield {"event": "passed", "id": name(n), "seconds": n / 7}
session = read_session(ProbeResult(records=list(records())))
assert session.counts["collected"] == session.counts["passed"] == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def memory(tests: int) -> None:
    """What the judge needs for the records of a run that passes (goal: at most 300 MB)."""
    python = VENVS / "judge" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", _MEMORY, str(tests)], capture_output=True, text=True, check=True
    )
    print(f"  judge at {tests} test ids: {done.stdout.strip()} MB  (goal <= 300)")


def _ratios(what: str, pairs: list[tuple[Cost, Cost]]) -> None:
    cpu = statistics.median(one.cpu / other.cpu for one, other in pairs)
    wall = statistics.median(one.wall / other.wall for one, other in pairs)
    ones = statistics.median(one.cpu for one, _ in pairs)
    others = statistics.median(other.cpu for _, other in pairs)
    print(f"  {what}: CPU {cpu:.2f}, wall {wall:.2f}  ({ones:.2f} s / {others:.2f} s CPU)")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench gate")
    parser.add_argument("--quick", action="store_true", help="small repositories, one round")
    parser.add_argument("--rounds", type=int, help="pairs of each kind  [3, or 1 with --quick]")
    parser.add_argument("--only", help="the projects whose name has this word, or: probe, memory")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    _check_tools()

    def wanted(name: str) -> bool:
        return options.only is None or options.only in name

    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as name:
        folder = Path(name)
        projects: dict[str, Callable[[], Project]] = {
            "this repository": lambda: this_repository(folder)
        }
        for files in (10,) if options.quick else (10, 100, 1000):
            projects[f"{files} test files"] = lambda files=files: generated(folder, files)
        for title, make in projects.items():
            if wanted(title):
                print(title)
                project = make()
                project.gate()  # whatever has to be read from the disk is read now
                against_others(project, rounds)
                against_floor(project, rounds)
                warm(project, rounds)
        if wanted("probe"):
            print("the probe")
            probe(folder, 1000 if options.quick else 10_000, rounds)
        if wanted("memory"):
            memory(100_000)


if __name__ == "__main__":
    main()
