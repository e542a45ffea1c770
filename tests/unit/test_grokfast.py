"""The gradient filter against its formula and its frequency response."""

import cmath
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.mugrokfast.grokfast import grokfast_ema, grokfast_ma


def filtered(signal: list[float], alpha: float, lamb: float) -> list[float]:
    ema = torch.tensor([signal[0]], dtype=torch.float64)
    return [
        grokfast_ema([torch.tensor([g], dtype=torch.float64)], [ema], alpha=alpha, lamb=lamb)[
            0
        ].item()
        for g in signal
    ]


@settings(max_examples=50, deadline=None)
@given(
    signal=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    alpha=st.floats(0, 0.999),
    lamb=st.floats(0, 10),
)
def test_the_filter_is_the_papers_recurrence(
    signal: list[float], alpha: float, lamb: float
) -> None:
    mean = signal[0]
    expected = []
    for g in signal:
        mean = alpha * mean + (1 - alpha) * g
        expected.append(g + lamb * mean)
    for ours, reference in zip(filtered(signal, alpha, lamb), expected, strict=True):
        assert math.isclose(ours, reference, rel_tol=1e-9, abs_tol=1e-6)


def test_a_constant_gradient_is_amplified_fully_from_the_first_step() -> None:
    assert filtered([1.5] * 200, alpha=0.98, lamb=2.0) == [4.5] * 200


def test_slow_gradients_are_amplified_and_fast_ones_are_not() -> None:
    alpha, lamb = 0.98, 2.0
    for period, gain in ((1000, 2.881), (100, 1.336), (2, 1.020)):
        omega = 2 * math.pi / period
        response = abs(1 + lamb * (1 - alpha) / (1 - alpha * cmath.exp(-1j * omega)))
        assert math.isclose(response, gain, abs_tol=5e-4)
        length = 1000 + max(period, 100)
        output = filtered([math.cos(omega * t) for t in range(length)], alpha, lamb)
        tail = output[1000:]
        phasor = sum(y * cmath.exp(-1j * omega * (1000 + t)) for t, y in enumerate(tail))
        # At the Nyquist frequency the sum does not split the amplitude over two signs.
        amplitude = abs(phasor) / len(tail) * (1 if period == 2 else 2)
        assert math.isclose(amplitude, gain, rel_tol=1e-3)


def test_gradients_stay_as_they_are_while_the_averages_move() -> None:
    grads = [torch.randn(3, 4), torch.randn(5)]
    kept = [grad.clone() for grad in grads]
    emas = [torch.zeros(3, 4), torch.zeros(5)]
    grokfast_ema(grads, emas, alpha=0.9, lamb=2.0)
    for grad, copy, ema in zip(grads, kept, emas, strict=True):
        assert torch.equal(grad, copy)
        torch.testing.assert_close(ema, 0.1 * copy)


def test_bfloat16_is_the_same_filter_rounded_once_per_operation() -> None:
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(3, 50, generator=generator).bfloat16()
    ema, expected = grads[0].clone(), grads[0].clone()
    for grad in grads:
        (filtered_,) = grokfast_ema([grad], [ema], alpha=0.9, lamb=2.0)
        expected = (expected.double() + (1 - 0.9) * (grad.double() - expected.double())).bfloat16()
        assert torch.equal(ema, expected)
        assert torch.equal(filtered_, (grad.double() + 2.0 * expected.double()).bfloat16())


def windowed(signal: list[Tensor], size: int, lamb: float) -> list[Tensor]:
    window = torch.zeros(size, *signal[0].shape, dtype=signal[0].dtype)
    total = torch.zeros_like(signal[0])
    return [
        grokfast_ma([grad], [window], [total], [count], lamb=lamb)[0].clone()
        for count, grad in enumerate(signal)
    ]


@settings(max_examples=50, deadline=None)
@given(
    signal=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    size=st.integers(1, 8),
    lamb=st.floats(0, 10),
)
def test_the_window_adds_the_mean_of_the_last_gradients_once_it_is_full(
    signal: list[float], size: int, lamb: float
) -> None:
    grads = [torch.tensor([g], dtype=torch.float64) for g in signal]
    for t, ours in enumerate(windowed(grads, size, lamb)):
        last = signal[t + 1 - size : t + 1] if t + 1 >= size else []
        expected = signal[t] + (lamb * sum(last) / size if last else 0.0)
        assert math.isclose(ours.item(), expected, rel_tol=1e-9, abs_tol=1e-6)


def test_a_windows_rounding_error_is_gone_after_one_round() -> None:
    signal = [torch.tensor([g]) for g in (1e30, *[1.0] * 11)]
    assert windowed(signal, 4, 2.0)[-1].item() == 3.0


def test_a_window_keeps_the_gradients_as_they_are() -> None:
    grads = [torch.randn(3, 4, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    kept = [grad.clone() for grad in grads]
    windowed(grads, 2, 2.0)
    for grad, copy in zip(grads, kept, strict=True):
        assert torch.equal(grad, copy)


def test_the_optimizer_filters_each_parameter_by_its_own_window() -> None:
    """With the second parameter's gradients beginning later, its window fills later."""
    params = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))]
    optimizer = MuonGrokfast(params, grokfast_filter="ma", grokfast_window=2, grokfast_lambda=3.0)
    for step in range(3):
        params[0].grad = torch.full((3,), 1.0)
        params[1].grad = torch.full((3,), 1.0) if step == 2 else None
        optimizer.step()
    # The first moment after gradients of 1, 4, 4 and after one of 1.
    assert optimizer.state[params[0]]["exp_avg"][0].item() == pytest.approx(
        0.1 * (0.81 + 0.9 * 4 + 4)
    )
    assert optimizer.state[params[1]]["exp_avg"][0].item() == pytest.approx(0.1)
    assert optimizer.get_mu_norm() == pytest.approx(3**0.5)


def test_a_narrower_average_is_that_average_rounded() -> None:
    grad = torch.randn(50, generator=torch.Generator().manual_seed(0))
    ema = torch.zeros(50, dtype=torch.bfloat16)
    (filtered_,) = grokfast_ema([grad], [ema], alpha=0.5, lamb=2.0)
    assert torch.equal(ema, (0.5 * grad.bfloat16().double()).bfloat16())
    assert torch.equal(filtered_, grad + 2.0 * ema.float())
