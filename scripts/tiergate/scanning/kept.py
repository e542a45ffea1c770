"""What was found before, and everything that decides whether it still holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tiergate import findings_cache
from tiergate.candidate import Candidate
from tiergate.findings_cache import FindingsCache
from tiergate.scanning import engines, rules


class Caches:
    """What was found before, by file for semgrep and the compiler, by tree for the resolver."""

    def __init__(self, scan: str = "", syntax: str = "", loads: str = "") -> None:
        place = findings_cache.folder(os.environ) if scan else None
        self.scan = FindingsCache(place, f"semgrep-{scan[:32]}")
        self.syntax = FindingsCache(place, f"syntax-{syntax[:32]}")
        self.loads = FindingsCache(place, f"loads-{loads[:32]}")

    def save(self) -> None:
        """Write what was asked for."""
        for kept in (self.scan, self.syntax, self.loads):
            kept.save()


def caches(chosen: Sequence[str], engine: str, candidate: Candidate) -> Caches:
    """Return what was found before with the same rules, engine, interpreters and code."""
    if findings_cache.folder(os.environ) is None:
        return Caches()
    root = str(candidate.repository.original)
    own = _own_digest()
    texts = [text for rule in chosen for text in rules.texts(rule)]
    version = engines.installed_version()
    python = candidate.python
    about = python.resolve().stat()
    return Caches(
        scan=findings_cache.digest(root, own, version, engine, *chosen, *texts),
        syntax=findings_cache.digest(root, own, python, about.st_size, about.st_mtime_ns),
        loads=findings_cache.digest(root, own, sys.version),
    )


@cache
def _own_digest() -> str:
    """Return a digest of the code that reads files: other code, other answers."""
    folder = Path(__file__).parent.parent
    own = [folder / "python_files.py", folder / "probe" / "syntax.py"]
    for package in ("scanning", "loads"):
        own += sorted((folder / package).glob("*.py"))
    return findings_cache.digest(*(path.read_bytes() for path in own))
