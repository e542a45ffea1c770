"""Could a file of a repository be imported in the place of an installed module?

Looks into the folders themselves: what git ignores can be imported as well.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

_MODULE_SUFFIXES = (".py", ".pyc", ".so")
_PRUNED = frozenset({".git", ".hg", ".tiergate", "__pycache__", "node_modules"})
_ENVIRONMENTS = frozenset({"conda-meta", "pyvenv.cfg"})


def any_of(root: str, pythonpath: Sequence[str], modules: Collection[str]) -> bool:
    """Tell whether a file below ``root`` could be imported under one of the top-level names.

    Only from a folder of ``pythonpath``, or from one that is no package: pytest puts such folders
    of tests in front of ``sys.path``. What is installed in an environment below the root is no
    file of the repository.
    """
    search = {os.path.normpath(os.path.join(root, path)) for path in pythonpath}  # noqa: PTH118 - thousands of them
    if any(_has(folder, *_entries(folder), modules) for folder in search):
        return True
    for folder, folders, files in _walk(root):
        if not any(name.startswith("__init__.") for name in files) and _has(
            folder, folders, files, modules
        ):
            return True
    return False


def _walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder with its folders and files; links are looked into, not through."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        folders, files = _entries(folder)
        if folder != root and _ENVIRONMENTS.intersection((*folders, *files)):
            continue
        if folder == root or not os.path.islink(folder):  # noqa: PTH114 - as above
            waiting += [os.path.join(folder, name) for name in folders if name not in _PRUNED]  # noqa: PTH118
        yield folder, folders, files


def _has(folder: str, folders: list[str], files: list[str], modules: Collection[str]) -> bool:
    """Tell whether an import that looks into a folder finds one of the modules there."""
    if any(name.endswith(_MODULE_SUFFIXES) and name.partition(".")[0] in modules for name in files):
        return True
    packages = (os.path.join(folder, name) for name in folders if name in modules)  # noqa: PTH118
    return any(
        name.startswith("__init__.") for package in packages for name in _entries(package)[1]
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a circle


def _entries(folder: str) -> tuple[list[str], list[str]]:
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if _is_folder(entry) else files).append(entry.name)
    except OSError:
        return [], []  # it is not there, or no folder, or nobody may look: nothing is found in it
    return folders, files
