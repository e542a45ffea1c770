"""What semgrep finds in the files that can match a rule at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tiergate.python_files import Inventory, PythonFile
from tiergate.scanning import dialect, engines, results, rules
from tiergate.scanning.findings import Found
from tiergate.scanning.kept import Caches

if TYPE_CHECKING:
    from tiergate.checkers import Context


@dataclass
class Matched:
    """What came of running semgrep."""

    found: list[Found] = field(default_factory=list)
    version: str = ""
    problem: str = ""
    details: list[str] = field(default_factory=list)
    output: str = ""


def run(
    chosen: Sequence[str], engine: Path | None, inventory: Inventory, kept: Caches, context: Context
) -> Matched:
    """Scan the files that can match a rule at all, and the canaries, and read what came of it."""
    seen = Matched()
    new = _to_scan(chosen, inventory, kept, seen)
    with tempfile.TemporaryDirectory(prefix="tiergate-") as name:
        folder = Path(name).resolve()
        targets: dict[str, PythonFile] = {}
        for number, file in enumerate(new):
            written = folder / f"{number}.py"
            written.write_bytes(dialect.for_semgrep(file.source))
            targets[str(written)] = file
        canaries = {str(folder / f"{rule}.py"): rule for rule in chosen}
        for path, rule in canaries.items():
            shutil.copyfile(rules.canary(rule), path)
        done = engines.scan(chosen, folder, engine, context)
        seen.output = done.stderr.decode(errors="replace")[-4000:]
        if done.timed_out:
            seen.problem = f"timed out after {context.criterion.timeout:g} s"
            return seen
        try:
            report = msgspec.json.decode(done.stdout, type=results.Results)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            seen.problem = f"semgrep ({done.ending}) wrote no readable results: {error}"
            return seen
    seen.version = report.version
    found = [
        Found(
            match.rule,
            targets[path].path,
            match.start.line,
            match.start.col,
            match.extra.message,
            "semgrep",
        )
        for match in report.results
        if (path := os.path.normpath(match.path)) in targets
    ]
    seen.found += found
    seen.problem, seen.details = results.check(report, targets, canaries)
    if not seen.problem:
        by_path: dict[str, list[Found]] = {}
        for one in found:
            by_path.setdefault(one.path, []).append(one)
        for file in new:
            kept.scan.put(file.digest, msgspec.to_builtins(by_path.get(file.path, [])))
    return seen


def _to_scan(
    chosen: Sequence[str], inventory: Inventory, kept: Caches, seen: Matched
) -> list[PythonFile]:
    """Return the files that can match and were not scanned before; take over what was."""
    may_match = [rules.prefilter(rule) for rule in chosen]
    new = []
    for file in inventory.files.values():
        known = kept.scan.get(file.digest)
        if known is not None:
            seen.found += msgspec.convert(known, list[Found])
        elif not any(matches(file.source) for matches in may_match):
            kept.scan.put(file.digest, [])
        elif _is_text(file.source):
            # What is no text breaks semgrep's own output; the compiler names such a file.
            new.append(file)
    return new


def _is_text(source: bytes) -> bool:
    try:
        return "\0" not in source.decode("utf-8")
    except UnicodeDecodeError:
        return False
