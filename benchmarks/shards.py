"""How evenly shards are balanced: the longest of them against the ideal, one after another.

    scripts/bench shards [--files N] [--seconds S] [--shards N]

A generated repository has test files of very different lengths. It is judged whole, which records
its history; by that the plan is made, and then each shard is judged. What counts is CPU time with
all children: one machine judges the shards one after another, and may be busy with other work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = Path(os.environ.get("TIERGATE_VENVS") or ROOT / ".venvs")
GATE = VENVS / "judge" / "bin" / "tiergate"
PYTHON = VENVS / "candidate" / "bin" / "python"

_BUSY = """\
import time
import torch


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        torch.ones(64, 64).sum()


"""


def generate(root: Path, files: int, seconds: float) -> None:
    """Write test files that take ``seconds`` of CPU together, the longest many times the usual."""
    chance = random.Random(0)
    weights = [chance.paretovariate(1.5) for _ in range(files)]
    (root / "tests").mkdir()
    for number, weight in enumerate(weights):
        each = min(weight, 6) / sum(min(w, 6) for w in weights) * seconds / 4
        tests = "\n\n".join(f"def test_{n}():\n    busy({each:.5f})\n" for n in range(4))
        (root / "tests" / f"test_{number}.py").write_text(_BUSY + tests)
    criteria = [
        {
            "id": "suite",
            "uses": "pytest",
            "with": {"paths": ["tests"]},
            "expect": {"passed": 4 * files},
        },
        {"id": "all", "uses": "collection", "expect": {"collected": 4 * files}},
    ]
    spec = {"gate": "TIER 0", "timeout": 3000, "criteria": criteria}
    (root / "gate.yaml").write_text(json.dumps(spec))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a state"]):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *command], cwd=root, check=True)


def gate(root: Path, *arguments: str) -> float:
    """Run a command that must pass; return its CPU seconds, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    variables = {**os.environ, "CI": "1"}  # nothing of this machine is read or kept
    done = subprocess.run(
        [GATE, *arguments], cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"tiergate {' '.join(arguments)}: {done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "repository"
        root.mkdir()
        generate(root, options.files, options.seconds)
        run = ["run", "--python", str(PYTHON), "--jobs", "1"]
        started = time.perf_counter()
        reports = Path(folder) / "reports"
        whole = gate(root, *run, "--report", str(Path(folder) / "whole"))
        plan = str(Path(folder) / "plan.json")
        history = str(Path(folder) / "whole" / "timings.json")
        gate(root, "plan", "--shards", str(options.shards), "--history", history, "--output", plan)
        expected = json.loads(Path(plan).read_text())["devices"]["cpu"]["seconds"]
        count = len(expected)
        took = [
            gate(
                root, *run, "--plan", plan, "--shard", f"{n}/{count}", "--report", f"{reports}/{n}"
            )
            for n in range(1, count + 1)
        ]
        gate(root, "decide", "--plan", plan, str(reports))
        wall = time.perf_counter() - started
    print(
        f"{options.files} files, {options.seconds:g} s of tests; CPU seconds ({wall:.0f} s of wall)"
    )
    print(f"  whole       {whole:7.2f}")
    for number, (seconds, planned) in enumerate(zip(took, expected, strict=True), start=1):
        print(f"  shard {number}/{count}   {seconds:7.2f}   planned {planned:.2f} (wall)")
    print(f"  longest shard / (whole / {count})            {max(took) / (whole / count):.2f}")
    print(f"  longest shard / (all shards / {count})       {max(took) / (sum(took) / count):.2f}")
    start = (sum(took) - whole) / max(1, count - 1)
    print(f"  what each further shard costs             {start:.2f} s")


if __name__ == "__main__":
    main()
