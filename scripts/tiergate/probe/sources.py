"""The repository's code is compiled from its source.

Bytecode that lies beside it may be of other code. Installed packages keep theirs, so that they
import as fast as ever.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.abc import PathEntryFinder

    from .ownership import Ownership


class _SourceOnly(SourceFileLoader):
    """Without the source's time and size, no bytecode is looked for and none is written."""

    def path_stats(self, path: Any) -> Mapping[str, Any]:
        raise OSError("compiled from source")


def compile_own(owned: Ownership) -> None:
    """Have every later import from the repository compiled from its source."""

    def finder(path: str) -> PathEntryFinder:
        if not owned.file(path):
            raise ImportError("not in the repository", path=path)
        return _finder_of(path)

    sys.path_hooks.insert(0, finder)
    for path in list(sys.path_importer_cache):
        if owned.file(path):
            del sys.path_importer_cache[path]


_finder_of = FileFinder.path_hook(
    (ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceOnly, SOURCE_SUFFIXES)
)


def rewrite_own(owned: Ownership) -> bool:
    """Have pytest rewrite the repository's tests from their source.

    Returns:
        False where this pytest keeps its bytecode in another way than is known here.
    """
    rewrite: Any = importlib.import_module("_pytest.assertion.rewrite")
    read = getattr(rewrite, "_read_pyc", None)
    if read is None:
        return False

    def read_installed(source: Any, *arguments: Any, **keywords: Any) -> Any:
        return None if owned.file(str(source)) else read(source, *arguments, **keywords)

    rewrite._read_pyc = read_installed  # noqa: SLF001 - pytest has no public way
    return True
