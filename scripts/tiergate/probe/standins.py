"""Modules that stand where the repository has a file: replaced, or imported from elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


def standins(search: list[str], exempt: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (module name, the repository's file, what stands there instead).

    Args:
        search: the folders that the repository's modules are imported from, first one first.
        exempt: files that pytest imports under names of its own: test files and conftests.
    """
    folders = [Path(folder) for folder in search if Path(folder).is_dir()]
    tops = {entry.name.split(".")[0] for folder in folders for entry in folder.iterdir()}
    # Known from Python 3.10 on.
    standard: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())
    for name, module in sorted(sys.modules.items()):
        top = name.split(".")[0]
        if top not in tops or top in {"conftest", "__main__"} or top in standard:
            continue
        expected = _file_of(name, folders)
        if expected is None:
            continue
        actual = _origin(module)
        if actual and os.path.realpath(actual) in exempt:
            continue
        if not actual or os.path.realpath(actual) != os.path.realpath(expected):
            yield name, expected, actual or f"an object of type {type(module).__name__}"


def _file_of(name: str, folders: Iterable[Path]) -> str | None:
    for folder in folders:
        base = folder.joinpath(*name.split("."))
        for file in (base / "__init__.py", base.with_name(base.name + ".py")):
            if file.is_file():
                return str(file)
    return None


def _origin(module: Any) -> str:
    try:
        file = module.__file__
    except Exception:  # noqa: BLE001 - a stand-in may do anything when it is asked
        return ""
    return file if isinstance(file, str) else ""
