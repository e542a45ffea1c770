"""Which counter-examples a kind of checker has without any configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tiergate import checkers
from tiergate.prove import imports, model_files, scans, suites
from tiergate.prove.counter_examples import CounterExample, Tree
from tiergate.spec import Criterion

GENERIC: Mapping[str, Callable[[Any, Tree], Iterable[CounterExample]]] = {
    "imports": imports.counter_examples,
    "pytest": suites.of_pytest,
    "collection": suites.of_collection,
    "semgrep": scans.counter_examples,
    "checkpoints": model_files.counter_examples,
}


def generic(criterion: Criterion, tree: Tree) -> list[CounterExample]:
    """Return the counter-examples of a criterion's checker; of many there are none.

    A checker from an entry point may have a function ``counter_examples(parameters, tree)``.
    """
    make = GENERIC.get(criterion.uses)
    if make is None:
        make = getattr(checkers.get(criterion.uses), "counter_examples", None)
    return [] if make is None else list(make(criterion.parameters, tree))
