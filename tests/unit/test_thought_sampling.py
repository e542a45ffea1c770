"""The distribution of thought tokens, and the draw from it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.thought_models import sampling_distribution

from phase3_quietstar.entropy import normalized_entropy, predictive_entropy
from phase3_quietstar.sampling import (
    check_sampling,
    nucleus_mask,
    sample_tokens,
    sampling_log_probs,
)

rows_of_logits = st.integers(1, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-8, 8), min_size=width, max_size=width), min_size=1, max_size=4
    )
)
temperatures = st.floats(0.2, 4)
masses = st.floats(0.01, 1)


def on_a_boundary(logits: torch.Tensor, temperature: float, top_p: float) -> bool:
    """Whether rounding decides if one more token belongs to the nucleus."""
    mass = (logits / temperature).softmax(-1).sort(descending=True).values.cumsum(-1)
    return bool(((mass - top_p).abs() < 1e-9).any())


@settings(max_examples=60, deadline=None)
@given(rows_of_logits, temperatures, masses)
def test_every_row_follows_the_reference_distribution(rows, temperature, top_p):
    logits = torch.tensor(rows, dtype=torch.float64)
    got = sampling_log_probs(logits, temperature, top_p).exp()
    for row, probs in zip(logits, got, strict=True):
        if not on_a_boundary(row, temperature, top_p):
            expected = sampling_distribution(row, temperature, top_p)
            # Equal logits leave the choice among them open.
            torch.testing.assert_close(probs.sort().values, expected.sort().values)
            torch.testing.assert_close(row.dot(probs), row.dot(expected))


@settings(max_examples=60, deadline=None)
@given(rows_of_logits, masses)
def test_the_nucleus_reaches_its_mass_and_needs_each_of_its_tokens(rows, top_p):
    probs = torch.tensor(rows, dtype=torch.float64).softmax(-1)
    mask = nucleus_mask(probs, top_p)
    for row, kept in zip(probs, mask, strict=True):
        mass = row[kept].sum().item()
        assert mass >= top_p - 1e-9
        if kept.sum() > 1:
            assert mass - row[kept].min().item() < top_p + 1e-9
        if not kept.all():
            assert row[~kept].max() <= row[kept].min()


def test_the_nucleus_takes_the_first_of_equals():
    probs = torch.full((2, 4), 0.25)
    assert nucleus_mask(probs, 0.5).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = torch.linspace(-3, 3, 200).to(dtype)
    got = sampling_log_probs(logits, 0.8, 0.9)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, sampling_log_probs(logits.float(), 0.8, 0.9))


def test_log_probs_differentiate_to_finite_gradients():
    logits = torch.tensor([[2.0, 1.0, -3.0], [0.0, -math.inf, 1.0]]).double().requires_grad_()
    log_probs = sampling_log_probs(logits, 0.7, 0.95)
    (gradient,) = torch.autograd.grad(log_probs[:, 0].sum(), logits)
    nucleus = log_probs.detach().exp()
    expected = (torch.tensor([[1.0, 0, 0]]).double() - nucleus) / 0.7
    torch.testing.assert_close(gradient, expected)


def test_draws_follow_the_probabilities(device):
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0], device=device)
    draws = 40_000
    tokens = sample_tokens(
        probs.log().expand(draws, -1), generator=torch.Generator(device).manual_seed(0)
    )
    counts = tokens.bincount(minlength=5).cpu()
    assert counts[4] == 0
    expected = probs.cpu()[:4] * draws
    chi_squared = ((counts[:4] - expected).square() / expected).sum().item()
    assert chi_squared < 16.3  # 99.9th percentile at 3 degrees of freedom


def test_a_cpu_generator_gives_the_same_draws_on_the_device(device):
    log_probs = torch.linspace(-2, 0, 50).log_softmax(-1).expand(64, -1)
    on_cpu = sample_tokens(log_probs, generator=torch.Generator().manual_seed(3))
    on_device = sample_tokens(log_probs.to(device), generator=torch.Generator().manual_seed(3))
    assert torch.equal(on_cpu, on_device.cpu())


def test_without_sampling_the_first_of_the_most_likely_is_taken():
    log_probs = torch.tensor([[0.2, 0.4, 0.4], [0.9, 0.05, 0.05]]).log()
    assert sample_tokens(log_probs, do_sample=False).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("temperature", "top_p", "named"),
    [
        (0.0, 0.9, "temperature"),
        (-1.0, 0.9, "temperature"),
        (math.nan, 0.9, "temperature"),
        (math.inf, 0.9, "temperature"),
        (1.0, 0.0, "top_p"),
        (1.0, 1.1, "top_p"),
        (1.0, math.nan, "top_p"),
    ],
)
def test_settings_without_a_distribution_are_refused(temperature, top_p, named):
    with pytest.raises(ValueError, match=f"{named} must be"):
        check_sampling(temperature, top_p)


@settings(max_examples=60, deadline=None)
@given(rows_of_logits)
def test_normalized_entropy_is_on_the_unit_scale(rows):
    logits = torch.tensor(rows, dtype=torch.float64)
    got = predictive_entropy(logits)
    for row, entropy in zip(logits.softmax(-1).tolist(), got.tolist(), strict=True):
        expected = -sum(p * math.log(p) for p in row) / (math.log(len(row)) if row[1:] else 1)
        assert entropy == pytest.approx(expected, abs=1e-12)
        assert 0 <= entropy <= 1


def test_normalized_entropy_of_impossible_outcomes_and_its_gradient_are_finite():
    logits = torch.tensor([[0.0, -math.inf, 1.0], [0.0, -900.0, 1.0]]).double().requires_grad_()
    entropy = predictive_entropy(logits)
    (gradient,) = torch.autograd.grad(entropy.sum(), logits)
    two = torch.tensor([0.0, 1.0]).double().softmax(-1)
    expected = -(two * two.log()).sum() / math.log(3)
    torch.testing.assert_close(entropy, expected.expand(2))
    assert gradient.isfinite().all()
    assert gradient[:, 0].abs().min() > 0


def test_normalized_entropy_of_one_outcome_is_zero():
    assert normalized_entropy(torch.zeros(3, 1)).tolist() == [0, 0, 0]
