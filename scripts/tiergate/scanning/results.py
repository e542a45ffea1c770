"""What semgrep writes, and whether it can be believed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from tiergate.python_files import PythonFile
from tiergate.scanning import rules
from tiergate.scanning.listing import listed


class _Position(msgspec.Struct):
    line: int
    col: int


class _Extra(msgspec.Struct):
    message: str


class _Match(msgspec.Struct):
    check_id: str
    path: str
    start: _Position
    extra: _Extra

    @property
    def rule(self) -> str:
        """The rule's id, without the folder names that semgrep puts in front of it."""
        return self.check_id.rsplit(".", 1)[-1]


class _Paths(msgspec.Struct):
    scanned: list[str]


class Results(msgspec.Struct):
    """What semgrep writes as JSON, as far as it is read."""

    version: str
    results: list[_Match]
    errors: list[Any]
    paths: _Paths


def check(
    results: Results, targets: Mapping[str, PythonFile], canaries: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Say why what semgrep found cannot be believed, and name what that is about."""
    if results.errors:
        texts = [_error_text(error) for error in results.errors]
        for name, file in targets.items():
            texts = [text.replace(name, file.path) for text in texts]
        return listed("semgrep reported errors", texts), texts
    scanned = {os.path.normpath(path) for path in results.paths.scanned}
    if skipped := [name for name in (*targets, *canaries) if name not in scanned]:
        names = [targets[name].path if name in targets else name for name in skipped]
        return listed("files that semgrep did not scan", names), names
    dead = [
        rule
        for path, rule in canaries.items()
        if rules.annotated_lines(rules.canary(rule), rule)
        != {m.start.line for m in results.results if m.path == path and m.rule == rule}
    ]
    return (listed("rules that do not find their own examples", dead), dead) if dead else ("", [])


def _error_text(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)[:300]
    where = error.get("path") or ""
    what = error.get("message") or error.get("long_msg") or error.get("type") or "unknown error"
    return f"{where}: {str(what)[:300]}" if where else str(what)[:300]
