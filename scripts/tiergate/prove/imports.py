"""Generic counter-examples of ``imports``: a name or the module is gone, or the module raises."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from tiergate.checkers.imports import With
from tiergate.prove.counter_examples import CounterExample, Tree

_MARKER = "counter-example: this module does not import"

_TAKEN_AWAY = """
_counter_example_getattr = globals().get("__getattr__")
globals().pop({name!r}, None)


def __getattr__(name):
    if name != {name!r} and _counter_example_getattr:
        return _counter_example_getattr(name)
    raise AttributeError(name)
"""


def counter_examples(parameters: With, tree: Tree) -> Iterator[CounterExample]:
    """Yield what must make the criterion fail."""
    file = _file(parameters.module, tree)
    if file is None:
        return
    for name in parameters.names:
        yield _without(name, file, parameters.module, tree)
    yield CounterExample(
        "module-raises",
        f"{file} raises when it is imported",
        {file: tree.appended(file, f"raise RuntimeError({_MARKER!r})")},
        named=(_MARKER,),
    )
    if posixpath.basename(file) == "__init__.py":
        kind, what = "init-removed", "which leaves a folder that imports as a namespace"
    else:
        kind, what = "module-removed", "the module itself"
    yield CounterExample(
        kind, f"{file} is deleted, {what}", {file: None}, named=(parameters.module,)
    )


def _without(name: str, file: str, module: str, tree: Tree) -> CounterExample:
    edits: dict[str, bytes | None] = {}
    if posixpath.basename(file) == "__init__.py":
        # `from package import name` finds a submodule as well.
        folder = posixpath.join(posixpath.dirname(file), name)
        submodule = (path for path in tree.under(folder) if path != file)
        edits = dict.fromkeys([*submodule, *tree.under(f"{folder}.py")])
    edits[file] = tree.appended(file, _TAKEN_AWAY.format(name=name))
    return CounterExample(
        "name-removed", f"{module}.{name} is taken away", edits, named=(f"{module}.{name}",)
    )


def _file(module: str, tree: Tree) -> str | None:
    """Return the file of the repository that a module is imported from."""
    path = module.replace(".", "/")
    for root in (*tree.spec.pythonpath, "."):
        for name in (f"{path}/__init__.py", f"{path}.py"):
            file = posixpath.normpath(posixpath.join(root, name))
            if file in tree.known:
                return file
    return None
