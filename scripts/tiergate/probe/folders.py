"""Folders are collected once, however many of their files pytest is given."""

from __future__ import annotations

import importlib
from typing import Any


def collect_folders_once() -> None:
    """Have pytest take the files of a folder from one walk of it.

    For each file that it is given, pytest collects the folder around it anew, with all files in
    it, so that a file that is given twice is collected twice. From version 9 on it drops what is
    given twice, and all those walks find the same; with ``--keep-duplicates`` they stay.
    """
    main: Any = importlib.import_module("_pytest.main")
    nodes: Any = importlib.import_module("_pytest.nodes")
    original = getattr(main.Session, "_collect_one_node", None)
    if original is None or not hasattr(main, "normalize_collection_arguments"):
        return  # a pytest that has another way: it walks as often as it likes

    def collect_one_node(session: Any, node: Any, handle_dupes: bool = True) -> Any:
        __tracebackhide__ = True
        once = isinstance(node, nodes.Directory) and not session.config.getoption("keepduplicates")
        return original(session, node, handle_dupes or once)

    main.Session._collect_one_node = collect_one_node  # noqa: SLF001 - pytest has no public way
