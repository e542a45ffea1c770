"""Generic counter-examples of ``pytest`` and ``collection``: the ways in which tests get lost."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tiergate.checkers import collection, pytest_session
from tiergate.prove.counter_examples import CounterExample, Tree
from tiergate.prove.python_source import FoundTest, Source

_PATTERNS = ("test_*.py", "*_test.py")
_FAILS = 'raise AssertionError("counter-example: made to fail")'
_SKIPS = '__import__("pytest").skip("counter-example: left out", allow_module_level=True)'
_EXITS = '__import__("os")._exit(0)'
_MARK = '@__import__("pytest").mark.{}'
_BROKEN = "def counter_example(:"

_DROPS = """
import pytest as _counter_example_pytest


@_counter_example_pytest.hookimpl(specname="pytest_collection_modifyitems")
def pytest_counter_example_drops(items):
    items[:] = [item for item in items if item.nodeid.split("[")[0] != {test!r}]
"""
_PRETENDS = """
import pytest as _counter_example_pytest


@_counter_example_pytest.hookimpl(specname="pytest_sessionfinish", trylast=True)
def pytest_counter_example_pretends(session):
    session.exitstatus = 0
"""
_IGNORES = """
collect_ignore = [*globals().get("collect_ignore", []), {name!r}]
"""


@dataclass(frozen=True)
class _Place:
    """Where a suite is changed: a test in a file, and the conftest.py beside the file."""

    file: str
    source: Source
    test: FoundTest

    @property
    def id(self) -> str:
        return f"{self.file}::{self.test.name}"

    @property
    def conftest(self) -> str:
        return posixpath.join(posixpath.dirname(self.file), "conftest.py")


def of_pytest(parameters: pytest_session.With, tree: Tree) -> Iterator[CounterExample]:
    """Yield what must make a criterion of ``uses: pytest`` fail."""
    place = _place(parameters.paths, tree)
    if place is None:
        return
    counted = "collected" if parameters.collect_only else "passed"
    yield _deleted(place, counted)
    yield _dropped(place, counted, tree)
    yield _skipped_module(place, counted)
    yield _broken_file(place, counted)
    if parameters.collect_only:
        yield _renamed(place)
    else:
        yield from _outcomes(place, tree)


def of_collection(parameters: collection.With, tree: Tree) -> Iterator[CounterExample]:
    """Yield what must make a criterion of ``uses: collection`` fail."""
    place = _place(parameters.paths, tree)
    if place is None:
        return
    added = posixpath.join(posixpath.dirname(place.file), "test_counter_example_import.py")
    yield CounterExample(
        "import-error-added",
        f"{added} imports a module that does not exist",
        {added: b"import counter_example_that_does_not_exist\n"},
        named=(added,),
    )
    ignoring = _IGNORES.format(name=posixpath.basename(place.file))
    yield CounterExample(
        "test-file-ignored",
        f"{place.conftest} ignores {place.file}",
        {place.conftest: tree.appended(place.conftest, ignoring)},
        named=(place.file,),
    )
    yield _dropped(place, "collected", tree)
    yield _broken_file(place, "collected")
    files = [name for path in parameters.paths for name in _test_files(path, tree)]
    yield CounterExample(
        "suite-emptied",
        f"all {len(files)} test files are deleted",
        dict.fromkeys(files),
        named=("collected: expected",),
    )


def _deleted(place: _Place, counted: str) -> CounterExample:
    return CounterExample(
        "test-deleted",
        f"{place.id} is deleted",
        {place.file: place.source.without(place.test)},
        named=(f"{counted}: expected", place.id),
        effect={counted: -1, "collected": -1},
    )


def _renamed(place: _Place) -> CounterExample:
    return CounterExample(
        "test-renamed",
        f"{place.id} is renamed, so that it is no test any more",
        {place.file: place.source.renamed(place.test, f"no_{place.test.node.name}")},
        named=("collected: expected", place.id),
        effect={"collected": -1},
    )


def _dropped(place: _Place, counted: str, tree: Tree) -> CounterExample:
    dropping = _DROPS.format(test=place.id)
    return CounterExample(
        "test-deselected",
        f"{place.conftest} drops {place.id}",
        {place.conftest: tree.appended(place.conftest, dropping)},
        named=(place.id,),
        effect={"deselected": 1} | ({counted: -1} if counted == "passed" else {}),
    )


def _skipped_module(place: _Place, counted: str) -> CounterExample:
    return CounterExample(
        "module-skipped",
        f"{place.file} skips itself when it is imported",
        {place.file: place.source.starting(_SKIPS)},
        named=(place.file,),
        effect={"skipped": 1, counted: -1},
    )


def _broken_file(place: _Place, counted: str) -> CounterExample:
    return CounterExample(
        "syntax-error",
        f"{place.file} has a syntax error",
        {place.file: place.source.appended(_BROKEN)},
        named=(place.file,),
        effect={"errors": 1, counted: -1},
    )


def _outcomes(place: _Place, tree: Tree) -> Iterator[CounterExample]:
    """Yield what changes the outcome of a test that is still there."""
    source, test, file = place.source, place.test, place.file
    failing = source.beginning(test, _FAILS)
    yield CounterExample(
        "test-fails",
        f"{place.id} is made to fail",
        {file: failing},
        named=(place.id,),
        effect={"failed": 1, "passed": -1},
    )
    yield CounterExample(
        "test-skipped",
        f"{place.id} is marked as skipped",
        {file: source.decorated(test, _MARK.format('skip(reason="counter-example")'))},
        named=(place.id,),
        effect={"skipped": 1, "passed": -1},
    )
    yield CounterExample(
        "test-xfailed",
        f"{place.id} fails and is marked as expected to",
        {
            file: Source(failing).decorated(
                _again(failing, test), _MARK.format("xfail(strict=False)")
            )
        },
        named=(place.id,),
        effect={"xfailed": 1, "passed": -1},
    )
    yield CounterExample(
        "test-exits",
        f"{place.id} ends the process with exit code 0",
        {file: source.beginning(test, _EXITS)},
        status="error",
        named=(place.id,),
    )
    yield CounterExample(
        "exit-status-set",
        f"{place.id} is made to fail, and {place.conftest} sets the exit status to 0",
        {file: failing, place.conftest: tree.appended(place.conftest, _PRETENDS)},
        named=(place.id,),
        effect={"failed": 1, "passed": -1},
    )


def _again(data: bytes, test: FoundTest) -> FoundTest:
    return next(found for found in Source(data).tests() if found.name == test.name)


def _place(paths: Iterable[str], tree: Tree) -> _Place | None:
    """Return the first test without decorators, or else the first test."""
    decorated: _Place | None = None
    for path in paths:
        wanted = path.partition("::")[2].split("[")[0]
        for file in _test_files(path, tree):
            source = tree.python(file)
            for test in source.tests() if source else ():
                if wanted and test.name != wanted and not test.name.startswith(f"{wanted}::"):
                    continue
                assert source is not None
                place = _Place(file, source, test)
                if test.plain:
                    return place
                decorated = decorated or place
    return decorated


def _test_files(path: str, tree: Tree) -> Iterator[str]:
    path = posixpath.normpath(path.partition("::")[0])
    for name in tree.under(path):
        leaf = posixpath.basename(name)
        if name == path or any(fnmatch.fnmatch(leaf, pattern) for pattern in _PATTERNS):
            yield name
