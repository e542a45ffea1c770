"""Writes docs/checkers.md from two real runs of one small repository: as it is, and broken.

Run in the judge's environment: ``python docs/make_checkers.py --python PATH``, where PATH is an
interpreter that has pytest.
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tiergate import checkers, cli, verdict
from tiergate.render.text import one_line
from tiergate.verdict import Verdict

PAGE = Path(__file__).resolve().parent / "checkers.md"

_ABOUT = """\
A checker observes; what it counts is compared with what the criterion expects. Every example is
from a real run, made by `docs/make_checkers.py`."""

CRITERIA = {
    "imports": """\
  - id: exports
    name: shop exports what others import
    uses: imports
    with: {module: shop, names: [total, discount]}
""",
    "pytest": """\
  - id: prices
    name: the contract of prices
    uses: pytest
    with: {paths: [tests/test_prices.py]}
    expect: {passed: 2}
""",
    "collection": """\
  - id: suite
    name: the whole suite collects
    uses: collection
    with: {paths: [tests]}
    expect: {collected: ">=2"}
""",
    "semgrep": """\
  - id: loads
    name: nothing loads a pickle without a provable weights_only=True
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [src]}
""",
    "checkpoints": """\
  - id: weights
    name: model files run no code when they are loaded
    uses: checkpoints
    with: {paths: [weights]}
""",
    "command": """\
  - id: style
    name: no line is too long
    uses: command
    with: {run: ["{python}", tools/style.py]}
""",
    "script": """\
  - id: licences
    name: every module names its licence
    uses: script
    with: {run: ["{python}", tools/licences.py], parameters: {licence: MIT}}
    expect: {files: ">=1"}
""",
}

_LICENCES = """\
import json, pathlib, sys

asked = json.load(sys.stdin)
files = sorted(pathlib.Path("src").rglob("*.py"))
without = [str(f) for f in files if asked["parameters"]["licence"] not in f.read_text()]
json.dump(
    {
        "status": "fail" if without else "pass",
        "observed": {"files": len(files)},
        "failures": [{"id": f, "outcome": "missing", "message": "no licence"} for f in without],
    },
    sys.stdout,
)
"""
_STYLE = """\
import pathlib

long = [f for f in pathlib.Path("src").rglob("*.py") for line in f.open() if len(line) > 101]
raise SystemExit(1 if long else 0)
"""
_PRICES = "def total(prices):\n    return sum(prices)\n"
_TESTS = (
    "{head}from shop import total\n\n\n{mark}def test_total():\n    assert total([1, 2]) == 3\n\n\n"
    "def test_nothing():\n    assert total([]) == 0\n"
)
_LOAD = "# MIT\nimport torch\n\n\ndef load(path):\n    return torch.load(path, weights_only={})\n"
_HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'

GOOD: Mapping[str, str | bytes] = {
    "src/shop/__init__.py": f"# MIT\n{_PRICES}\n\ndef discount(price):\n    return price / 2\n",
    "src/shop/load.py": _LOAD.format(True),
    "tests/test_prices.py": _TESTS.format(head="", mark=""),
    "tools/style.py": _STYLE,
    "tools/licences.py": _LICENCES,
    "weights/model.safetensors": struct.pack("<Q", len(_HEADER)) + _HEADER + b"\0" * 4,
}
BROKEN: Mapping[str, tuple[str, Mapping[str, str | bytes]]] = {
    "imports": (
        "`discount` is gone",
        {"src/shop/__init__.py": f"# MIT\n{_PRICES}"},
    ),
    "pytest": (
        "a test is skipped; pytest itself exits with 0",
        {
            "tests/test_prices.py": _TESTS.format(
                head="import pytest\n\n", mark="@pytest.mark.skip\n"
            )
        },
    ),
    "collection": (
        "a new test file imports what is not there",
        {"tests/test_new.py": "import no_such_module\n"},
    ),
    "semgrep": (
        "`weights_only` is false, in other words",
        {"src/shop/load.py": _LOAD.format("not True")},
    ),
    "checkpoints": (
        "a pickle that runs a command",
        {"weights/model.pt": b"cos\nsystem\n(S'echo'\ntR."},
    ),
    "command": ("a long line", {"src/shop/long.py": f"# MIT\nX = '{'x' * 100}'\n"}),
    "script": ("a module without a licence", {"src/shop/bare.py": "X = 1\n"}),
}


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, metavar="PATH")
    arguments = parser.parse_args()
    PAGE.write_text(page(arguments.python), encoding="utf-8")
    return 0


def page(python: Path) -> str:
    """Return the page, with what both runs say."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "shop")
        _write(root, GOOD)
        gate = f"gate: TIER 0\npythonpath: [src]\ncriteria:\n{''.join(CRITERIA.values())}"
        _write(root, {"gate.yaml": gate})
        good = _run(root, python)
        for _, files in BROKEN.values():
            _write(root, files)
        broken = _run(root, python)
    parts = [
        "# The checkers\n",
        f"{_ABOUT}\n",
    ]
    for kind, criterion in CRITERIA.items():
        checker = checkers.get(kind)
        summary = (checker.__doc__ or "").strip().split("\n\n")
        name = criterion.split("id: ")[1].split("\n")[0]
        parts += [
            f"## {kind}\n",
            f"{_sentence(summary[0])}\n",
            *(f"{' '.join(paragraph.split())}\n" for paragraph in summary[1:]),
            f"```yaml\n{criterion}```\n",
            "Holds:\n",
            f"```text\n{_shown(good[name])}\n```\n",
            f"Does not hold; {BROKEN[kind][0]}:\n",
            f"```text\n{_shown(broken[name])}\n```\n",
        ]
    return "\n".join(parts)


def _sentence(first: str) -> str:
    text = " ".join(first.split()).split(": ", 1)[-1]
    return text[:1].upper() + text[1:]


def _write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _run(root: Path, python: Path) -> dict[str, Verdict]:
    report = root.parent / "report"
    words = ["run", "--repo", str(root), "--python", str(python), "--report", str(report)]
    subprocess.run(
        [sys.executable, "-m", "tiergate", *words],
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return {found.criterion: found for found in verdict.read(report).verdicts}


def _shown(of: Verdict) -> str:
    """Return a verdict with what a person needs of its evidence."""
    lines = [f"{of.status}: {of.summary}"]
    for failure in of.evidence.failures:
        said = failure.message or failure.details.strip()
        lines.append(f"  {failure.outcome}: {failure.id}: {said.splitlines()[-1]}")
    lines += [f"  {f.path}:{f.line}:{f.column}: {f.message}" for f in of.evidence.findings]
    return "\n".join(one_line(line) for line in lines)


if __name__ == "__main__":
    sys.exit(main())
