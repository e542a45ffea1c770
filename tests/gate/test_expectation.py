"""What is expected, and how counts are compared with it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate import expectation
from tiergate.expectation import Bound, Outcomes

PYTEST = Outcomes(
    strict=("failed", "errors", "skipped"), free=("passed", "collected"), required=("passed",)
)


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (0, Bound(0)),
        (11, Bound(11)),
        (">=5", Bound(5, at_least=True)),
        (">= 605", Bound(605, at_least=True)),
    ],
)
def test_a_bound_is_a_number_or_at_least_a_number(value, bound):
    assert expectation.parse_bound(value) == bound


@pytest.mark.parametrize("value", ["5", ">5", "<=5", ">=", ">=-1", ">=5.0", "", ">=٣", ">=5\n"])
def test_any_other_text_is_refused_with_what_is_allowed(value):
    with pytest.raises(ValueError, match="number"):
        expectation.parse_bound(value)


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="cannot be negative: -1"):
        expectation.parse_bound(-1)


@pytest.mark.parametrize(
    ("bound", "observed", "holds"),
    [
        (Bound(3), 2, False),
        (Bound(3), 3, True),
        (Bound(3), 4, False),
        (Bound(3, at_least=True), 2, False),
        (Bound(3, at_least=True), 3, True),
        (Bound(3, at_least=True), 4, True),
    ],
)
def test_a_number_is_exact_and_at_least_is_not(bound, observed, holds):
    assert bound.holds(observed) is holds


@pytest.mark.parametrize("value", [0, 7, ">=7"])
def test_a_bound_prints_as_it_is_written(value):
    assert str(expectation.parse_bound(value)) == str(value)


def test_what_is_expected_and_observed_is_no_mismatch():
    counts = {"passed": 3, "collected": 3}
    assert expectation.mismatches({"passed": Bound(3)}, counts, PYTEST) == []


@pytest.mark.parametrize("outcome", PYTEST.strict)
def test_an_outcome_that_is_not_named_must_be_zero(outcome):
    wrong = expectation.mismatches({"passed": Bound(3)}, {"passed": 3, outcome: 1}, PYTEST)
    assert [str(mismatch) for mismatch in wrong] == [f"{outcome}: expected 0, observed 1"]


def test_a_free_outcome_counts_where_it_is_named():
    wrong = expectation.mismatches(
        {"passed": Bound(3), "collected": Bound(4, at_least=True)},
        {"passed": 3, "collected": 3},
        PYTEST,
    )
    assert [str(mismatch) for mismatch in wrong] == ["collected: expected >=4, observed 3"]


def test_an_outcome_that_was_never_counted_is_zero():
    wrong = expectation.mismatches({"passed": Bound(3)}, {}, PYTEST)
    assert [(m.outcome, m.observed) for m in wrong] == [("passed", 0)]


def test_an_unknown_outcome_suggests_the_nearest():
    assert expectation.check_names({"pased": 1, "passed": 2}, PYTEST) == [
        ("pased", "unknown outcome 'pased' (did you mean 'passed'?)")
    ]


def test_a_required_outcome_must_be_named():
    ((name, message),) = expectation.check_names({"failed": 0}, PYTEST)
    assert name is None
    assert "must say how many passed" in message


def test_an_open_checker_takes_any_name():
    assert expectation.check_names({"anything": 1}, Outcomes(open=True)) == []


@pytest.mark.parametrize(
    ("named", "outcomes"),
    [
        ({"passed": ">=0"}, PYTEST),
        ({"passed": 0}, PYTEST),
        ({"passed": 0, "collected": ">=0"}, PYTEST),
        ({"passed": ">=0", "skipped": 2}, PYTEST),
        ({"exit-code": ">=0"}, Outcomes(strict=("exit-code",))),
        ({"findings": ">=0", "scanned": ">=0"}, Outcomes(("findings",), ("scanned",))),
    ],
)
def test_an_expectation_that_nothing_could_break_is_vacuous(named, outcomes):
    bounds = {name: expectation.parse_bound(value) for name, value in named.items()}
    assert expectation.vacuous(bounds, outcomes)


@pytest.mark.parametrize(
    ("named", "outcomes"),
    [
        ({"passed": 1}, PYTEST),
        ({"passed": ">=1", "skipped": ">=0"}, PYTEST),
        ({"passed": 0, "skipped": 2}, PYTEST),
        ({"exit-code": 0}, Outcomes(strict=("exit-code",))),
        ({"findings": 0, "scanned": ">=0"}, Outcomes(("findings",), ("scanned",))),
        ({}, Outcomes(open=True)),
        ({"anything": ">=0"}, Outcomes(open=True)),  # the script itself says pass or fail
    ],
)
def test_an_expectation_that_something_can_break_is_not_vacuous(named, outcomes):
    bounds = {name: expectation.parse_bound(value) for name, value in named.items()}
    assert expectation.vacuous(bounds, outcomes) is None


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(PYTEST.names), st.integers(0, 4)), st.integers(1, 4))
def test_counts_pass_only_if_every_outcome_is_exactly_as_expected(counts, passed):
    wrong = expectation.mismatches({"passed": Bound(passed)}, counts, PYTEST)
    as_expected = counts.get("passed", 0) == passed and not any(
        counts.get(name, 0) for name in PYTEST.strict
    )
    assert (wrong == []) is as_expected
