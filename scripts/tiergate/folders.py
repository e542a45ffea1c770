"""The folders of a repository as they lie on the disk, with what git ignores in them."""

from __future__ import annotations

import os
from collections.abc import Iterator

_PRUNED = frozenset({".git", ".hg", ".hypothesis", ".tiergate", "__pycache__", "node_modules"})
_ENVIRONMENTS = frozenset({"conda-meta", "pyvenv.cfg"})


def walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder with the names of its folders and files, the root first.

    Environments and what tools keep for themselves are left out. Links are looked into, not
    through.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        below, files = entries(folder)
        if folder != root and _ENVIRONMENTS.intersection((*below, *files)):
            continue
        if folder == root or not os.path.islink(folder):  # noqa: PTH114 - thousands of them
            waiting += [os.path.join(folder, name) for name in below if name not in _PRUNED]  # noqa: PTH118
        yield folder, below, files


def entries(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of a folder's folders and files: none where nobody may look."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                (folders if _is_folder(entry) else files).append(entry.name)
    except OSError:
        return [], []
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a circle
