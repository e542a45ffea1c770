"""Uses the installed judge once on a small repository: what works on every system, and what not.

On Windows ``tiergate run`` must say that it needs POSIX and exit with 3; the rest works there too.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

SPEC = """\
gate: SMOKE
next: the release
devices: [cpu]
pythonpath: [src]
criteria:
  - {id: exports, uses: imports, with: {module: sample, names: [answer]}}
  - {id: tests, uses: pytest, with: {paths: [test_it.py]}, expect: {passed: 1}}
"""
_PASSED, _FAILED, _USAGE, _NOT_EVALUATED = range(4)


class SmokeError(Exception):
    """A command did what it must not."""


def tiergate(folder: Path, code: int, *words: str) -> str:
    """Run a command in ``folder``; return what it printed.

    Raises:
        SmokeError: it did not exit with ``code``.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tiergate", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode != code or "Traceback" in said:
        raise SmokeError(f"tiergate {' '.join(words)}: exit code {done.returncode}\n{said}")
    print(f"ok  tiergate {' '.join(words)}  (exit code {code})", flush=True)
    return said


def main() -> int:
    """Run every command; 1 if one did what it must not."""
    try:
        with tempfile.TemporaryDirectory() as name:
            _everything(Path(name))
    except SmokeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _everything(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / "src" / "sample.py").write_text("def answer():\n    return 42\n")
    (folder / "test_it.py").write_text("def test_it():\n    assert 6 * 7 == 42\n")
    (folder / "gate.yaml").write_text(SPEC)
    tiergate(folder, _PASSED, "validate")
    tiergate(folder, _PASSED, "explain", "tests")
    tiergate(folder, _PASSED, "plan", "--github-matrix")
    json.loads(tiergate(folder, _PASSED, "schema"))
    tiergate(folder, _NOT_EVALUATED, "decide", "nowhere.json")
    run = ("run", "--python", sys.executable, "--report", "report")
    if platform.system() == "Windows":
        if "POSIX" not in tiergate(folder, _NOT_EVALUATED, *run):
            raise SmokeError("tiergate run does not say why it cannot run on Windows")
        return
    tiergate(folder, _PASSED, *run)
    tiergate(folder, _PASSED, "decide", "report")
    (folder / "test_it.py").write_text("def test_it():\n    assert 6 * 7 == 41\n")
    tiergate(folder, _FAILED, *run)


if __name__ == "__main__":
    sys.exit(main())
