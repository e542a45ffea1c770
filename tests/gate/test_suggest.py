"""The nearest valid word."""

import pytest

from tiergate.suggest import did_you_mean


def test_the_nearest_word_is_suggested():
    assert did_you_mean("critera", ["gate", "criteria", "devices"]) == (
        " (did you mean 'criteria'?)"
    )


def test_without_a_near_word_the_valid_ones_are_listed_in_order():
    assert did_you_mean("zzz", ["b", "a"]) == " (valid: a, b)"


def test_a_long_list_is_cut():
    hint = did_you_mean("zzz", [f"{n:02d}" for n in range(30)])
    assert hint == f" (valid: {', '.join(f'{n:02d}' for n in range(12))}, …)"


def test_nothing_is_said_where_nothing_is_valid():
    assert did_you_mean("x", []) == ""


@pytest.mark.parametrize("many", [10, 5000])
def test_a_small_slip_is_found_in_a_list_of_any_length(many):
    valid = [f"criterion-{n:04d}" for n in range(many)]
    assert did_you_mean("criterion-0007x", valid) == " (did you mean 'criterion-0007'?)"
