"""What tests assert with is known to be what it was, however it is written to."""

from __future__ import annotations

import math
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tiergate.probe import helpers, versions
from tiergate.probe.helpers import Helpers
from tiergate.probe.ownership import Ownership

OWNED = Ownership(str(Path(__file__).parent))


def close(*numbers: float) -> bool:
    return True


def bind_by_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(math, "isclose", close)


def bind_in_the_dictionary(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(vars(math), "isclose", close)


def bind_as_a_global(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(math, "isclose", math.isclose)  # which is undone
    exec("def isclose(*numbers): return True", vars(math))


def bind_after_deleting(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(math, "isclose")
    patch.setattr(math, "isclose", close, raising=False)


def bind_in_the_class(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unittest.TestCase, "assertEqual", close)


def bind_in_another_module(patch: pytest.MonkeyPatch) -> None:
    other = ModuleType("math")
    vars(other).update({**vars(math), "isclose": close})
    patch.setitem(sys.modules, "math", other)


@pytest.fixture(params=["by version", "by content"])
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Helpers:
    if request.param == "by content":
        monkeypatch.setattr(helpers, "version_of", lambda _: object)
    return Helpers(OWNED)


@pytest.mark.parametrize(
    ("bind", "name"),
    [
        (bind_by_name, "math.isclose"),
        (bind_in_the_dictionary, "math.isclose"),
        (bind_as_a_global, "math.isclose"),
        (bind_after_deleting, "math.isclose"),
        (bind_in_the_class, "TestCase.assertEqual"),
        (bind_in_another_module, "math.isclose"),
    ],
)
def test_whatever_binds_an_assertion_anew_is_seen(
    bind: Callable[[pytest.MonkeyPatch], None],
    name: str,
    known: Helpers,
    monkeypatch: pytest.MonkeyPatch,
):
    assert known.are_same()
    bind(monkeypatch)
    assert not known.are_same()
    assert [replaced for replaced, _ in known.replaced()] == [name]
    assert known.are_same()


def test_what_was_undone_is_the_same_and_what_follows_is_seen(known: Helpers):
    for bind in (bind_by_name, bind_in_the_class):
        with pytest.MonkeyPatch.context() as patch:
            bind(patch)
        assert known.are_same()
    with pytest.MonkeyPatch.context() as patch:
        bind_by_name(patch)
        assert not known.are_same()


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info >= (3, 12),
    reason="this interpreter keeps no versions of dictionaries",
)
@pytest.mark.parametrize("holder", [math, unittest.TestCase])
def test_version_is_another_one_only_after_a_change(holder: object):
    version = versions.version_of(holder)
    seen = version()
    assert (vars(holder)["__doc__"], version()) == (holder.__doc__, seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, "__doc__", "another")
        changed = version()
    assert len({str(one) for one in (seen, changed, version())}) == 3


@pytest.mark.parametrize("holder", [object(), Ownership(".")])
def test_nothing_else_has_a_version(holder: object):
    version = versions.version_of(holder)
    assert version() != version()


def test_interpreter_without_versions_is_not_believed_to_have_them():
    # What stands there instead: nothing, and the number of items.
    assert not versions._counts(lambda _: lambda: 0)
    assert not versions._counts(lambda values: lambda: len(values))
