"""The kinds of criterion: what a checker is, and which there are.

A checker is a module with the five parts of ``Checker``. It observes; it does not judge:
``tiergate.judge`` compares what it observed with what the criterion expects.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import msgspec

from tiergate.errors import UserError
from tiergate.expectation import Outcomes
from tiergate.suggest import did_you_mean

if TYPE_CHECKING:
    from tiergate.baseline import Baseline
    from tiergate.candidate import Candidate
    from tiergate.fields import Device
    from tiergate.spec import Criterion
    from tiergate.verdict import Case, Failure, Finding, Part

ENTRY_POINTS = "tiergate.checkers"

BUILT_IN: Mapping[str, str] = {
    "imports": "tiergate.checkers.imports",
    "pytest": "tiergate.checkers.pytest_session",
    "collection": "tiergate.checkers.collection",
    "semgrep": "tiergate.checkers.semgrep",
    "checkpoints": "tiergate.checkers.checkpoints",
    "command": "tiergate.checkers.command",
    "script": "tiergate.checkers.script",
}

STATIC = frozenset({"semgrep", "checkpoints"})
"""Kinds that read files of the repository and run none of its code."""


class Share(msgspec.Struct, frozen=True):
    """The files of a cell that one shard evaluates: every file is some shard's, and only one's."""

    shard: str
    """As in ``2/4``."""
    mine: frozenset[str]
    others: frozenset[str]
    rest: bool
    """Whether the files that nobody planned are this shard's, too."""

    def owns(self, file: str) -> bool:
        """Tell whether the shard evaluates a file, named from the repository's root."""
        return file in self.mine or (self.rest and file not in self.others)


class Timings(msgspec.Struct):
    """How long files and tests took, for the history; it decides nothing."""

    files: dict[str, float] = {}
    """File → seconds of its collection and its tests."""
    tests: dict[str, tuple[str, float]] = {}
    """Test id → outcome and seconds."""


class Context(msgspec.Struct, frozen=True):
    """Where a criterion is evaluated."""

    criterion: Criterion
    candidate: Candidate
    device: Device
    progress: Callable[[str], None]
    """Tell a person what is being evaluated now: a test's node id, a file."""
    expect_tests: Callable[[int], None] = lambda _: None
    """Tell a person how many tests will be evaluated."""
    baseline: Baseline | None = None
    """What the base branch has; None where no base was named."""
    share: Share | None = None
    """The part of the criterion that this shard evaluates; None for all of it."""
    timings: Timings | None = None
    """Where it is given: is told how long things took."""


class Observation(msgspec.Struct, frozen=True):
    """What a checker saw."""

    counts: Mapping[str, int] = {}
    error: str = ""
    """Why the criterion could not be evaluated; then the counts decide nothing."""
    claim: Literal["pass", "fail"] = "pass"
    """A checker that decides for itself says ``fail`` here; the counts must hold as well."""
    summary: str = ""
    """In place of the counts in the verdict's one line."""
    failures: tuple[Failure, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    output: str = ""
    running: str = ""
    cases: tuple[Case, ...] = ()
    tests: Mapping[str, Mapping[str, str]] = {}
    """Outcome → test id → digest of the test's body, for the outcomes that it tells by id."""


class Checker(Protocol):
    """The face of a checker module."""

    With: type[msgspec.Struct]
    """Its parameters; unknown ones are refused."""

    def outcomes(self, parameters: Any) -> Outcomes:
        """Say which outcomes it counts."""

    def problems(self, parameters: Any) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """Say what is wrong with parameters beyond their types, as (path, message) pairs."""

    def observe(self, parameters: Any, context: Context) -> Observation:
        """Evaluate."""

    def reproduce(self, parameters: Any, context: Context) -> list[str]:
        """Return shell commands, for the repository's root, that show what it observes."""


class Splittable(Checker, Protocol):
    """A checker whose criterion several shards may share, file by file."""

    def part(self, parameters: Any, context: Context) -> Part:
        """Evaluate the files that the context's share owns; without a share, all of them."""

    def assemble(
        self, parameters: Any, parts: Sequence[Part], criterion: Criterion, device: Device
    ) -> Observation:
        """Put the parts together: what one piece would have observed."""


def splittable(name: str) -> Splittable | None:
    """Return the checker of that name, where shards may share its criteria."""
    checker = get(name)
    return cast(Splittable, checker) if hasattr(checker, "part") else None


class UnknownCheckerError(UserError):
    """``uses:`` names no checker."""


@cache
def get(name: str) -> Checker:
    """Return the checker of that name: a built-in one, or one from an entry point.

    Raises:
        UnknownCheckerError: there is none, or an entry point does not load or lacks a part.
    """
    if name in BUILT_IN:
        return cast(Checker, importlib.import_module(BUILT_IN[name]))
    from importlib import metadata  # noqa: PLC0415 - slow, and few specs name a foreign checker

    found = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    if name not in found:
        hint = did_you_mean(name, {*BUILT_IN, *found})
        raise UnknownCheckerError(f"unknown checker {name[:80]!r}{hint}")
    try:
        checker = found[name].load()
    except (Exception, SystemExit) as error:  # third-party code may raise anything
        raise UnknownCheckerError(
            f"checker {name!r} from {found[name].value} cannot be loaded: {error}"
        ) from error
    parts = ("With", "outcomes", "problems", "observe", "reproduce")
    missing = [part for part in parts if not hasattr(checker, part)]
    if missing:
        raise UnknownCheckerError(
            f"checker {name!r} from {found[name].value} lacks {', '.join(missing)}"
        )
    return cast(Checker, checker)
