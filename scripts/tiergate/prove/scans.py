"""Generic counter-examples of ``semgrep``: unsafe code, and the ways in which scans overlook it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import replace

from tiergate.checkers.semgrep import With
from tiergate.prove.counter_examples import CounterExample, Tree
from tiergate.scanning.rules import RULES, chosen_rules

ALIASES = {
    "unsafe-torch-load": "from torch import load as read\n\nread('counter-example.pt')\n",
}
"""By rule: code that it must find although the name is another one."""

_IGNORE = ".semgrepignore"


def counter_examples(parameters: With, tree: Tree) -> Iterator[CounterExample]:
    """Yield what must make the criterion fail, or make it impossible to evaluate.

    Each rule must find its own examples; how a scan could overlook them, the first rule shows.
    """
    rules = chosen_rules(parameters.rules)
    existing = _existing(parameters.paths, tree)
    folder = next((path for path in parameters.paths if not _is_file(path, tree)), None)
    code = example(rules[0])
    if existing is not None:
        for rule in rules:
            yield _added("call-added", existing, example(rule), rule, tree, (rule,))
        yield _added("call-suppressed", existing, _suppressed(code), rules[0], tree)
        if rules[0] in ALIASES:
            yield _added("call-under-alias", existing, ALIASES[rules[0]], rules[0], tree)
        yield _ignored(existing, code, rules[0], tree)
        yield CounterExample(
            "syntax-error",
            f"{existing} has a syntax error",
            {existing: tree.appended(existing, "def counter_example(:")},
            status="error",
            named=(existing,),
        )
    if folder is not None:
        for kind, below in (("file-added", ""), ("tests-folder", "tests"), ("vendored", "vendor")):
            file = posixpath.normpath(posixpath.join(folder, below, "counter_example.py"))
            yield _added(kind, file, code, rules[0], tree)
        notebook = posixpath.normpath(posixpath.join(folder, "counter_example.ipynb"))
        added = _added("notebook-added", notebook, code, rules[0], tree)
        yield replace(added, edits={notebook: _notebook(code)})


def example(rule: str) -> str:
    """Return the code by which a rule is known to be alive: it must find it."""
    return (RULES / f"{rule}.py").read_text(encoding="utf-8")


def _ignored(file: str, code: str, rule: str, tree: Tree) -> CounterExample:
    listed = tree.read(_IGNORE) if _IGNORE in tree.known else b""
    added = _added("file-in-semgrepignore", file, code, rule, tree)
    return replace(
        added,
        what=f"{added.what}, and is listed in {_IGNORE}",
        edits={**added.edits, _IGNORE: listed + f"\n{file}\n".encode()},
    )


def _notebook(code: str) -> bytes:
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "source": code.splitlines(True)}
    return json.dumps(
        {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    ).encode()


def _added(
    kind: str, file: str, code: str, rule: str, tree: Tree, named: tuple[str, ...] = ()
) -> CounterExample:
    verb = "gets" if file in tree.known else "is added with"
    return CounterExample(
        kind,
        f"{file} {verb} code that {rule} must find",
        {file: tree.appended(file, code)},
        named=named or (f"{file}:",),
        effect={"findings": 1},
    )


def _suppressed(code: str) -> str:
    """Return code in which each line that is found asks not to be."""
    lines = code.splitlines()
    return "\n".join(
        f"{line}  # nosemgrep" if before.lstrip().startswith("# ruleid:") else line
        for before, line in zip(["", *lines], lines, strict=False)
    )


def _is_file(path: str, tree: Tree) -> bool:
    return posixpath.normpath(path) in tree.known


def _existing(paths: list[str], tree: Tree) -> str | None:
    for path in paths:
        for name in tree.under(posixpath.normpath(path)):
            if name.endswith(".py") and tree.python(name) is not None:
                return name
    return None
