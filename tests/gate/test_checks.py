"""No test is left out of the checks of this project."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from samples import ROOT

import checks


def taken(command: tuple[str, ...]) -> list[Path]:
    """Return the test files that a pytest command takes."""
    words = command[command.index("pytest") + 1 :]
    ignored = {ROOT / word.removeprefix("--ignore=") for word in words if "--ignore=" in word}
    files: list[Path] = []
    for path in (ROOT / word for word in words if not word.startswith("-")):
        files += [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return [file for file in files if file not in ignored]


def test_every_test_file_is_in_exactly_one_check():
    commands = [check.command for check in checks.CHECKS if "pytest" in check.command]
    found = Counter(file for command in commands for file in taken(command))
    assert found == Counter(sorted((ROOT / "tests").rglob("test_*.py")))


def test_what_is_named_as_slow_is_there():
    assert [name for name in checks.SLOW if not (ROOT / name).is_file()] == []
