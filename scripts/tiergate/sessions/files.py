"""Which files pytest takes for tests, by their names."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import PurePosixPath

TEST_FILES = ("test_*.py", "*_test.py")
"""Pytest's own names of test files, which count whatever the configuration says."""


def is_test_file(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a file's name, or its path, matches one of the patterns."""
    path = PurePosixPath(name)
    return path.suffix == ".py" and any(
        fnmatch.fnmatch(name if "/" in pattern else path.name, pattern) for pattern in patterns
    )
