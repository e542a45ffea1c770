"""What the probe costs a test: CPU time of the session's process, against plain pytest.

    scripts/bench probe [--rounds N] [--milliseconds MS …] [--tests N]

Generated tests do nothing, or keep the processor busy for so long. A plug-in notes the time
between the starts of two tests, between the ends of two files' collections, and from there to the
first test; the lower quartile over all rounds is reported, which other work on the machine hardly
moves. Rounds alternate between plain pytest and the probe. What the judge does with the records is
in `scripts/bench gate --only probe`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = Path(os.environ.get("TIERGATE_VENVS") or ROOT / ".venvs")
PYTHON = VENVS / "candidate" / "bin" / "python"
START = ROOT / "scripts" / "tiergate" / "probe" / "start.py"
EACH = 100
"""Tests in a file."""

_CLOCK = """
import json, pytest, time
starts, files = [], []
now = time.thread_time_ns
def pytest_runtest_logstart(nodeid, location):
    starts.append(now())
def pytest_collectreport(report):
    if report.nodeid.endswith(".py"):
        files.append(now())
@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    files.append(now())
def pytest_sessionfinish(session):
    with open(__file__ + ".json", "w") as file:
        json.dump({"starts": starts, "files": files}, file)
"""
_BUSY = """\
import time


def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
"""
_OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "bench_clock", "-o", "addopts="]


def generate(root: Path, tests: int, milliseconds: float) -> None:
    """Write test files."""
    for number in range(tests // EACH):
        bodies = [
            f"busy({milliseconds / 1000})" if milliseconds else f"assert {n} == {n}"
            for n in range(EACH)
        ]
        text = "\n\n".join(f"def test_{n}():\n    {body}" for n, body in enumerate(bodies))
        (root / f"test_{number}.py").write_text(f"{_BUSY}\n\n{text}\n")


def plain(root: Path, clock: Path) -> None:
    """Run the tests under pytest alone."""
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(clock.parent)}
    command = [PYTHON, "-m", "pytest", *_OPTIONS, "."]
    subprocess.run(command, cwd=root, env=variables, stdout=subprocess.DEVNULL, check=True)


def probed(root: Path, clock: Path) -> None:
    """Run them under the probe, whose records are read and dropped."""
    reading, writing = os.pipe()
    job = {
        "nonce": "0" * 32,
        "kind": "session",
        "device": "cpu",
        "repository": str(root),
        "pythonpath": [str(clock.parent)],
        "arguments": [*_OPTIONS, f"--rootdir={root}", "--color=no", "--tb=short", "."],
    }
    command = [PYTHON, "-I", "-B", START, str(writing)]
    with subprocess.Popen(
        command,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[writing],
    ) as process:
        os.close(writing)
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        end = b""
        while data := os.read(reading, 65_536):
            end = (end + data)[-1000:]
            time.sleep(0.005)  # as the judge reads
        os.close(reading)
    closed = json.loads(end.splitlines()[-1])
    if (closed["event"], closed["status"]) != ("closed", 0):
        sys.exit(f"the session did not pass: {closed}")


def measure(tests: int, milliseconds: float, rounds: int) -> None:
    """Print what a test of so many milliseconds takes, plain and probed."""
    seen: dict[str, list[list[float]]] = defaultdict(lambda: [[], [], []])
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as folder:
        root, clock = Path(folder, "tests"), Path(folder, "clock", "bench_clock.py")
        root.mkdir()
        clock.parent.mkdir()
        clock.write_text(_CLOCK)
        generate(root, tests, milliseconds)
        for _ in range(rounds):
            for run in (plain, probed):
                run(root, clock)
                told = json.loads(Path(f"{clock}.json").read_bytes())
                starts, files = told["starts"], told["files"]
                ran, collected, compared = seen[run.__name__]
                ran += [b - a for a, b in pairwise(starts)]
                collected += [(b - a) / EACH for a, b in pairwise(files[:-1])]
                compared.append((files[-1] - files[-2]) / tests)
    costs = {name: [_quartile(part) / 1000 for part in parts] for name, parts in seen.items()}
    name = f"tests of {milliseconds:g} ms" if milliseconds else "empty tests"
    whole = {}
    for kind, (ran, collected, compared) in costs.items():
        whole[kind] = ran + collected + compared
        parts = f"run {ran:.0f}, collected {collected:.0f}, then {compared:.0f}"
        print(f"  {tests} {name}, {kind:6}: {whole[kind]:.0f} µs each ({parts})")
    more = whole["probed"] - whole["plain"]
    print(f"    {more:.0f} µs more, {more / whole['plain']:.1%}  (goal <= 5 %)", flush=True)


def _quartile(values: list[float]) -> float:
    return sorted(values)[len(values) // 4]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="scripts/bench probe")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[0, 1, 10])
    parser.add_argument("--tests", type=int, help="of each kind  [2000, 2000, 500]")
    options = parser.parse_args()
    for milliseconds in options.milliseconds:
        tests = options.tests or (2000 if milliseconds < 10 else 500)
        measure(max(2 * EACH, tests // EACH * EACH), milliseconds, options.rounds)


if __name__ == "__main__":
    main()
