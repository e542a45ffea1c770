"""Leaves out of a session the files that other shards evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .ownership import Ownership


class Share:
    """A pytest plugin: folders are walked as ever, and only a shard's own files are collected.

    Args:
        owned: names files as the repository does.
        mine: the shard's files.
        others: the files of other shards.
        rest: whether the files that are neither are the shard's, too.
    """

    def __init__(self, owned: Ownership, mine: list[str], others: list[str], rest: bool) -> None:
        self._owned = owned
        self._mine = frozenset(mine)
        self._others = frozenset(others)
        self._rest = rest

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Ignore what is another shard's; on all else the repository's own hooks decide."""
        if collection_path.is_dir():
            return None
        file = self._owned.relative(collection_path)
        mine = file in self._mine or (self._rest and file not in self._others)
        return None if mine else True
