"""What a criterion expects, and how observed counts are compared with it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tiergate.suggest import did_you_mean

_AT_LEAST = re.compile(r">=\s*([0-9]{1,12})")
_AT_LEAST_BASE = re.compile(r">=\s*base")


class Outcomes(msgspec.Struct, frozen=True):
    """The outcomes that a checker counts.

    Attributes:
        strict: must be zero unless ``expect:`` names them.
        free: compared only where ``expect:`` names them.
        required: ``expect:`` must name them, or the criterion could pass vacuously.
        default: what is expected where the criterion has no ``expect:``.
        open: other names may be expected as well.
        by_id: outcomes that the checker can tell test by test: ``">=base"`` may be expected of
            them.
    """

    strict: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    default: Mapping[str, int] = {}
    open: bool = False
    by_id: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All the outcomes."""
        return (*self.strict, *self.free)


class Bound(msgspec.Struct, frozen=True):
    """One expected value: exactly ``value``, at least that many, or all that the base has."""

    value: int
    at_least: bool = False
    base: bool = False

    def holds(self, observed: int) -> bool:
        """Tell whether ``observed`` is as expected."""
        return observed >= self.value if self.at_least else observed == self.value

    def __str__(self) -> str:
        if self.base:
            return ">=base"
        return f">={self.value}" if self.at_least else str(self.value)


Expectation = Mapping[str, Bound]


class Mismatch(msgspec.Struct, frozen=True):
    """One outcome that is not as expected."""

    outcome: str
    expected: Bound
    observed: int

    def __str__(self) -> str:
        return f"{self.outcome}: expected {self.expected}, observed {self.observed}"


def parse_bound(value: int | str) -> Bound:
    """Read a value of ``expect:``: a number, ``">=N"`` or ``">=base"``.

    Raises:
        ValueError: anything else, with a message that says what is allowed.
    """
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"a count cannot be negative: {value}")
        return Bound(value)
    if match := _AT_LEAST.fullmatch(value):
        return Bound(int(match[1]), at_least=True)
    if _AT_LEAST_BASE.fullmatch(value):
        return Bound(0, at_least=True, base=True)
    raise ValueError(f'{value[:80]!r} is neither a number nor ">=N" nor ">=base"')


def check_names(named: Mapping[str, object], outcomes: Outcomes) -> list[tuple[str | None, str]]:
    """Return what is wrong with the names in an ``expect:``, as (name or None, message) pairs."""
    wrong: list[tuple[str | None, str]] = [
        (name, f"unknown outcome {name[:80]!r}{did_you_mean(name, outcomes.names)}")
        for name in named
        if name not in outcomes.names and not outcomes.open
    ]
    wrong.extend(
        (None, f"expect: must say how many {name}; without it the criterion could not fail")
        for name in outcomes.required
        if name not in named
    )
    return wrong


def vacuous(expectation: Expectation, outcomes: Outcomes) -> str | None:
    """Say why an expectation would hold for nothing at all, or return None."""
    for name in outcomes.required:
        bound = expectation.get(name)
        if bound is not None and bound.at_least and bound.value == 0 and not bound.base:
            return f'{name}: ">=0" always holds; expect at least one'
    from_base = any(bound.base for bound in expectation.values())
    if outcomes.required and not from_base and not mismatches(expectation, {}, outcomes):
        return f"holds where there is nothing; expect some {' or '.join(outcomes.required)}"
    bounds = _full(expectation, outcomes).values()
    if bounds and not outcomes.open and all(str(bound) == ">=0" for bound in bounds):
        return "always holds, whatever is observed"
    return None


def mismatches(
    expectation: Expectation, counts: Mapping[str, int], outcomes: Outcomes
) -> list[Mismatch]:
    """Compare ``counts`` with what is expected: what is not named must be zero, unless free."""
    return [
        Mismatch(name, bound, counts.get(name, 0))
        for name, bound in _full(expectation, outcomes).items()
        if not bound.holds(counts.get(name, 0))
    ]


def exceeded(
    expectation: Expectation, counts: Mapping[str, int], outcomes: Outcomes
) -> list[Mismatch]:
    """Return the mismatches that no further observation can mend: there is too much already."""
    return [
        mismatch
        for mismatch in mismatches(expectation, counts, outcomes)
        if not mismatch.expected.at_least and mismatch.observed > mismatch.expected.value
    ]


def _full(expectation: Expectation, outcomes: Outcomes) -> dict[str, Bound]:
    return {name: Bound(0) for name in outcomes.strict} | dict(expectation)
