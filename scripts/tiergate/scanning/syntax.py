"""Which files the candidate's own interpreter does not compile."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tiergate.probe import syntax
from tiergate.probe.garbage import held_back
from tiergate.python_files import Inventory, PythonFile
from tiergate.scanning.kept import Caches

if TYPE_CHECKING:
    from tiergate.checkers import Context


def is_own(python: Path) -> bool:
    """Tell whether the candidate's interpreter is the judge's: environments link to one program."""
    try:
        return python.samefile(sys.executable)
    except OSError:
        return False


def errors_by_judge(inventory: Inventory, kept: Caches) -> list[str]:
    """Return the files that this interpreter does not compile."""
    found = []
    with warnings.catch_warnings(), held_back():
        warnings.simplefilter("ignore")
        for file in _new(inventory, kept):
            problem = syntax.problem(file.source, file.path)
            if problem is None:
                kept.syntax.put(file.digest, True)
            else:
                found.append(f"{file.path}:{problem['line']}: {problem['message']}")
    return found


def errors_by_candidate(inventory: Inventory, kept: Caches, context: Context) -> list[str]:
    """Return the files that the candidate's interpreter says it does not compile."""
    new = list(_new(inventory, kept))
    if not new:
        return []
    # A bare interpreter: the one that forks has imported torch, which takes longer than this.
    result = msgspec.structs.replace(context.candidate, warm=None).run_job(
        "syntax",
        context.device,
        context.criterion.timeout,
        {"files": [file.path for file in new]},
    )
    if result.problem:
        return [f"{', '.join(file.path for file in new[:3])}, …: compiling {result.problem}"]
    wrong = {r["path"]: f"{r['path']}:{r['line']}: {r['message']}" for r in result.of("unreadable")}
    for file in new:
        if file.path not in wrong:
            kept.syntax.put(file.digest, True)
    return list(wrong.values())


def _new(inventory: Inventory, kept: Caches) -> Iterable[PythonFile]:
    files = (inventory.files[path] for path in inventory.plain)
    return (file for file in files if kept.syntax.get(file.digest) is None)
