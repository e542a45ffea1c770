"""Runs formatter, linter, type checker and all tests; two at a time, each one's output whole."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JUDGE = Path(sys.executable).parent
CANDIDATE = JUDGE.parent.parent / "candidate" / "bin" / "python"
_HEARTBEAT = 20.0


@dataclass(frozen=True)
class Check:
    """A command that must succeed."""

    name: str
    command: tuple[str, ...]


# About half of the time that the judge's tests take; what is not named here is in the other half.
SLOW = (
    "tests/gate/test_base.py",
    "tests/gate/test_historic_breaks.py",
    "tests/gate/test_workflow.py",
)
_PYTEST = (f"{JUDGE}/python", "-m", "pytest", "-q")
_REST = tuple(f"--ignore={file}" for file in SLOW)

CHECKS = (
    # Longest first, so that two cores end together.
    Check("tests of the judge", (*_PYTEST, "tests/gate", *_REST)),
    Check("slow tests of the judge", (*_PYTEST, *SLOW)),
    Check("attacks on the judge", (*_PYTEST, "tests/attacks")),
    Check("tests of the library", (f"{CANDIDATE}", "-m", "pytest", "-q", "tests/unit")),
    Check("types of the library", (f"{JUDGE}/mypy", "--python-executable", f"{CANDIDATE}", "src")),
    Check("types of the judge", (f"{JUDGE}/mypy", "scripts")),
    Check("format", (f"{JUDGE}/ruff", "format", "--check", ".")),
    Check("lint", (f"{JUDGE}/ruff", "check", ".")),
)


def main(arguments: list[str]) -> int:
    """Run the checks whose names contain one of the given words, or all; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("word", nargs="*", help="run only checks whose name has this word")
    parser.add_argument("--list", action="store_true", help="print the checks and their commands")
    options = parser.parse_args(arguments)
    chosen = [c for c in CHECKS if not options.word or any(w in c.name for w in options.word)]
    if options.list or not chosen:
        for check in CHECKS:
            print(f"{check.name:<24} {' '.join(check.command)}")
        return 0 if options.list else 2
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(_run, chosen))
    failed = [check.name for check, passed in zip(chosen, results, strict=True) if not passed]
    print(f"\n{len(chosen)} checks in {time.monotonic() - started:.0f} s")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        return 1
    print("all passed")
    return 0


_printing = threading.Lock()


def _run(check: Check) -> bool:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TIERGATE_CANDIDATE": str(CANDIDATE)}
    started = time.monotonic()
    _print(f"→ {check.name}")
    process = subprocess.Popen(
        check.command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    done = threading.Event()
    threading.Thread(target=_heartbeat, args=(check, done, started), daemon=True).start()
    output, _ = process.communicate()
    done.set()
    passed = process.returncode == 0
    word = "passed" if passed else f"FAILED (exit code {process.returncode})"
    _print(f"{output.rstrip()}\n← {check.name}: {word}, {time.monotonic() - started:.0f} s\n")
    return passed


def _heartbeat(check: Check, done: threading.Event, started: float) -> None:
    while not done.wait(_HEARTBEAT):
        _print(f"  {check.name}: {time.monotonic() - started:.0f} s …")


def _print(text: str) -> None:
    with _printing:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
