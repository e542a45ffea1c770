"""Which criteria's proofs rest on files that changed."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from tiergate.base import is_relevant
from tiergate.spec import Criterion, Spec


def touched(spec: Spec, changed: Collection[str]) -> frozenset[str]:
    """Return the ids of the criteria to prove again after ``changed`` files.

    All of them where one of the files can change what any verdict means: the spec, the judge,
    ``conftest.py`` and the like.
    """
    if any(is_relevant(name) for name in changed):
        return frozenset(criterion.id for criterion in spec.criteria)
    return frozenset(
        criterion.id
        for criterion in spec.criteria
        if any(_is_below(name, path) for path in _paths(criterion, spec) for name in changed)
    )


def _paths(criterion: Criterion, spec: Spec) -> Iterator[str]:
    """Yield the files and folders that a criterion, its remedy and its proofs name."""
    parameters: dict[str, Any] = msgspec.to_builtins(criterion.parameters)
    for path in parameters.get("paths", ()):
        yield path.split("::")[0]
    if module := parameters.get("module"):
        for folder in spec.pythonpath or (".",):
            path = posixpath.join(folder, module.replace(".", "/"))
            yield from (path, f"{path}.py")
    yield from criterion.remedy.files
    for proof in criterion.proofs:
        for change in (proof.replace, proof.append, proof.create):
            if change is not None:
                yield change.file
        for path in (proof.delete, proof.patch):
            if path is not None:
                yield path


def _is_below(name: str, path: str) -> bool:
    path = posixpath.normpath(path)
    return path in {".", name} or name.startswith(f"{path}/")
