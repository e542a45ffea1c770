"""Which files the candidate's own interpreter does not compile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tiergate.python_files import Inventory
from tiergate.scanning.kept import Caches

if TYPE_CHECKING:
    from tiergate.checkers import Context


def errors(inventory: Inventory, kept: Caches, context: Context) -> list[str]:
    """Return the files that the candidate's own interpreter does not compile."""
    files = [inventory.files[path] for path in inventory.plain]
    new = [file for file in files if kept.syntax.get(file.digest) is None]
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
