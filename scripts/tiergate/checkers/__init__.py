"""The kinds of criterion: what a checker is, and which there are.

A checker is a module with the five parts of ``Checker``. It observes; it does not judge:
``tiergate.judge`` compares what it observed with what the criterion expects.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from tiergate.errors import UserError
from tiergate.expectation import Outcomes
from tiergate.suggest import did_you_mean

if TYPE_CHECKING:
    import msgspec

    from tiergate.baseline import Baseline
    from tiergate.candidate import Candidate
    from tiergate.fields import Device
    from tiergate.spec import Criterion
    from tiergate.verdict import Case, Failure, Finding

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


@dataclass(frozen=True)
class Context:
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


@dataclass(frozen=True)
class Observation:
    """What a checker saw."""

    counts: Mapping[str, int] = field(default_factory=dict)
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
    tests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
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
