"""detect_training_divergence: what is one, and what is not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cross_phase.utils import detect_training_divergence

curves = st.lists(st.floats(1e-3, 1e3), min_size=0, max_size=40)


def test_a_falling_loss_does_not_diverge() -> None:
    assert detect_training_divergence([3.5, 3.2, 2.9, 2.7, 2.5], window=3) is False


def test_a_rising_loss_diverges() -> None:
    assert detect_training_divergence([2.5, 2.7, 3.0, 3.5, 4.2], window=3) is True


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_loss_that_is_not_finite_is_divergence_wherever_it_is(bad: float, place: int) -> None:
    losses = [3.5, 3.2, 2.9, 2.7, 2.5]
    losses[place] = bad

    assert detect_training_divergence(losses) is True


def test_exponential_growth_diverges_at_every_scale() -> None:
    for scale in (1e-300, 1e-6, 1.0, 1e6, 1e290):
        assert detect_training_divergence([scale * 1.5**step for step in range(10)]) is True


def test_a_small_drift_at_a_large_loss_is_not_divergence() -> None:
    drift = [1000.0 + 0.5 * step for step in range(20)]

    assert detect_training_divergence(drift) is False
    assert detect_training_divergence(drift, threshold=0.001) is True


def test_a_small_but_relatively_steep_rise_is_divergence() -> None:
    assert detect_training_divergence([1e-4 * (1 + 0.2 * step) for step in range(10)]) is True


def test_a_jump_to_a_flat_level_is_divergence() -> None:
    assert detect_training_divergence([2.0, 1.9] * 10 + [10.8, 10.9] * 10) is True


def test_one_spike_is_not_divergence() -> None:
    losses = [2.0 - 0.01 * step for step in range(30)]
    for place in (15, 24, 29):
        spiked = list(losses)
        spiked[place] = 50.0
        assert detect_training_divergence(spiked) is False


def test_a_noisy_plateau_is_rarely_taken_for_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    plateaus = 2.0 + 0.3 * torch.randn(300, 20, generator=generator)

    assert sum(detect_training_divergence(plateau.tolist()) for plateau in plateaus) <= 6


def test_negative_losses_diverge_upward_too() -> None:
    assert detect_training_divergence([-3.0, -2.6, -2.1, -1.5, -0.8], window=5) is True
    assert detect_training_divergence([-0.8, -1.5, -2.1, -2.6, -3.0], window=5) is False


def test_fewer_losses_than_the_window_decide_nothing() -> None:
    assert detect_training_divergence([]) is False
    assert detect_training_divergence([1.0, 2.0, 4.0]) is False
    assert detect_training_divergence([1.0, 2.0, 4.0], window=3) is True


def test_losses_may_be_tensors(device: torch.device) -> None:
    losses = torch.tensor([2.5, 2.7, 3.0, 3.5, 4.2], device=device)

    assert detect_training_divergence(losses, window=3) is True
    assert detect_training_divergence(list(losses.flip(0)), window=3) is False


@settings(max_examples=100, deadline=None)
@given(losses=curves, exponent=st.integers(-60, 60), window=st.integers(2, 12))
def test_the_unit_of_the_loss_does_not_matter(
    losses: list[float], exponent: int, window: int
) -> None:
    scaled = [math.ldexp(loss, exponent) for loss in losses]

    assert detect_training_divergence(scaled, window) == detect_training_divergence(losses, window)


@settings(max_examples=100, deadline=None)
@given(losses=curves, window=st.integers(2, 12))
def test_a_curve_that_never_rises_never_diverges(losses: list[float], window: int) -> None:
    assert detect_training_divergence(sorted(losses, reverse=True), window) is False


@settings(max_examples=50, deadline=None)
@given(losses=curves, window=st.integers(2, 12), step=st.floats(1.2, 10))
def test_a_rise_at_the_end_is_found_whatever_came_before(
    losses: list[float], window: int, step: float
) -> None:
    last = losses[-1] if losses else 1.0
    rise = [last * step**count for count in range(1, window + 1)]

    assert detect_training_divergence(losses + rise, window) is True


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        detect_training_divergence([1.0], window=1)
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="threshold"):
            detect_training_divergence([1.0], threshold=bad)
