"""Generic counter-examples of ``semgrep``: unsafe code, and the ways in which scans overlook it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from tiergate.checkers.semgrep import With
from tiergate.prove.counter_examples import CounterExample, Tree

UNSAFE = {
    "unsafe-torch-load": (
        'import torch\n\ncounter_example = torch.load("counter-example.pt")\n',
        "from torch import load as read\n\ncounter_example = read('counter-example.pt')\n",
    )
}
"""By rule: code that it must find, and the same under another name."""

_IGNORE = ".semgrepignore"
_NOTEBOOK = b"""\
{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
"""


def counter_examples(parameters: With, tree: Tree) -> Iterator[CounterExample]:
    """Yield what must make the criterion fail, or make it impossible to evaluate."""
    folder = next((path for path in parameters.paths if not _is_file(path, tree)), None)
    existing = _existing(parameters.paths, tree)
    for rule in parameters.rules:
        if rule not in UNSAFE:
            continue
        code, alias = UNSAFE[rule]
        if existing is not None:
            yield _added("call-added", existing, code, rule, tree)
            yield _added("call-suppressed", existing, _suppressed(code), rule, tree)
            yield _added("call-under-alias", existing, alias, rule, tree)
            ignored = _added("file-in-semgrepignore", existing, code, rule, tree)
            listed = tree.read(_IGNORE) if _IGNORE in tree.known else b""
            ignore = {_IGNORE: listed + f"\n{existing}\n".encode()}
            yield CounterExample(
                ignored.name,
                f"{existing} gets an unsafe call and is listed in .semgrepignore",
                {**ignored.edits, **ignore},
                named=ignored.named,
            )
        if folder is not None:
            for kind, below in (
                ("file-added", ""),
                ("tests-folder", "tests"),
                ("vendored", "vendor"),
            ):
                file = posixpath.normpath(posixpath.join(folder, below, "counter_example.py"))
                yield _added(kind, file, code, rule, tree)
    if existing is not None:
        yield CounterExample(
            "syntax-error",
            f"{existing} has a syntax error",
            {existing: tree.appended(existing, "def counter_example(:")},
            status="error",
            named=(existing,),
        )
    if folder is not None:
        notebook = posixpath.normpath(posixpath.join(folder, "counter_example.ipynb"))
        yield CounterExample(
            "notebook-added",
            f"{notebook} is added, which cannot be scanned",
            {notebook: _NOTEBOOK},
            status="error",
            named=(notebook,),
        )


def _added(kind: str, file: str, code: str, rule: str, tree: Tree) -> CounterExample:
    verb = "gets" if file in tree.known else "is added with"
    return CounterExample(
        kind,
        f"{file} {verb} code that {rule} must find",
        {file: tree.appended(file, code)},
        named=(f"{file}:",),
        effect={"findings": 1},
    )


def _suppressed(code: str) -> str:
    return code.rstrip("\n") + "  # nosemgrep\n"


def _is_file(path: str, tree: Tree) -> bool:
    return posixpath.normpath(path) in tree.known


def _existing(paths: list[str], tree: Tree) -> str | None:
    for path in paths:
        for name in tree.under(posixpath.normpath(path)):
            if name.endswith(".py") and tree.python(name) is not None:
                return name
    return None
