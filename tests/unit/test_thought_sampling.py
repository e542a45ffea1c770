"""The distribution of thought tokens, and the draw from it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.thought_models import sampling_distribution

from phase3_quietstar import sampling
from phase3_quietstar.entropy import normalized_entropy, predictive_entropy
from phase3_quietstar.sampling import (
    SamplingSettings,
    nucleus_mask,
    sample_tokens,
    sampling_log_probs,
    token_log_probs,
    top_k_mask,
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
    got = sampling_log_probs(logits, SamplingSettings(temperature, top_p)).exp()
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
    got = sampling_log_probs(logits, SamplingSettings(0.8, 0.9))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, sampling_log_probs(logits.float(), SamplingSettings(0.8, 0.9)))


def test_log_probs_differentiate_to_finite_gradients():
    logits = torch.tensor([[2.0, 1.0, -3.0], [0.0, -math.inf, 1.0]]).double().requires_grad_()
    log_probs = sampling_log_probs(logits, SamplingSettings(0.7, 0.95))
    (gradient,) = torch.autograd.grad(log_probs[:, 0].sum(), logits)
    nucleus = log_probs.detach().exp()
    expected = (torch.tensor([[1.0, 0, 0]]).double() - nucleus) / 0.7
    torch.testing.assert_close(gradient, expected)


ties = st.lists(st.sampled_from([0.5, 1.0, 1.0, 2.0]), min_size=2, max_size=12)


@settings(max_examples=60, deadline=None)
@given(ties, masses)
def test_bisection_sorting_and_a_plain_loop_choose_the_same_nucleus(weights, top_p):
    probs = torch.tensor([weights], dtype=torch.float64)
    probs = probs / probs.sum()
    kept, mass = set(), 0.0
    for token in sorted(range(len(weights)), key=lambda token: -weights[token]):
        if mass < top_p - 1e-9:
            kept.add(token)
            mass += probs[0, token].item()
    expected = [token in kept for token in range(len(weights))]
    if all(abs(mass - top_p) > 1e-6 for mass in probs.sort(descending=True)[0].cumsum(-1)[0]):
        with pytest.MonkeyPatch.context() as patch:
            assert nucleus_mask(probs, top_p)[0].tolist() == expected
            patch.setattr(sampling, "PREFILTER_SIZE", 1)
            assert nucleus_mask(probs, top_p)[0].tolist() == expected
            patch.setattr(sampling, "_may_look", lambda tensor: False)
            assert nucleus_mask(probs, top_p)[0].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.05, 1.0, 5.0])
def test_large_vocabularies_are_searched_exactly(dtype, spread):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5000, generator=generator, dtype=dtype) * spread
    # Half precision logits repeat.
    probs = torch.cat([logits, logits.bfloat16().to(dtype)]).softmax(dim=-1)
    for top_p in (0.1, 0.5, 0.9, 0.999):
        got = nucleus_mask(probs, top_p)
        for row, kept in zip(probs, got, strict=True):
            descending, order = row.double().sort(descending=True, stable=True)
            mass = descending.cumsum(-1)
            # Within the rounding of a float32 sum there is a choice.
            least = int((mass < top_p - 1e-6).sum()) + 1
            most = int((mass < top_p + 1e-6).sum()) + 1
            count = int(kept.sum())
            assert least <= count <= most
            assert kept[order[:count]].all()


def test_top_k_keeps_the_first_of_equals():
    values = torch.tensor([[1.0, 2.0, 2.0, 2.0, 3.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    expected = [[False, True, False, False, True], [True, True, False, False, False]]
    assert top_k_mask(values, 2).tolist() == expected
    assert top_k_mask(values, 7).all()


def test_top_k_comes_before_top_p_as_in_transformers():
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for temperature, top_k, top_p in [(0.7, 5, 1.0), (1.3, 8, 0.8), (1.0, 40, 0.6)]:
        scores = TemperatureLogitsWarper(temperature)(None, logits)
        scores = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, scores))
        got = sampling_log_probs(logits, SamplingSettings(temperature, top_p, top_k))
        torch.testing.assert_close(got.exp(), scores.softmax(-1))


def test_a_drawn_token_keeps_its_probability_where_rounding_puts_it_outside():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).double().log()
    inside, outside = (
        token_log_probs(logits, torch.tensor([token]), SamplingSettings(top_p=0.6))
        for token in (1, 2)
    )
    assert inside.exp().item() == pytest.approx(0.3 / 0.7)
    assert outside.exp().item() == pytest.approx(0.2 / 0.9)


def test_draws_follow_the_probabilities(device):
    probs = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05, 0.0], device=device)
    draws = 40_000
    uniforms = (torch.arange(draws, device=device, dtype=torch.float64) + 0.5) / draws
    tokens, log_probs = sample_tokens(probs.log().expand(draws, -1), uniforms, SamplingSettings())
    # Evenly spaced numbers give every token its share to within one draw.
    shares = tokens.bincount(minlength=6) / draws
    torch.testing.assert_close(shares, probs, rtol=0, atol=2 / draws)
    torch.testing.assert_close(log_probs, probs.log()[tokens])


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53, 1.0])
def test_a_token_without_probability_is_never_drawn(uniform, device):
    impossible = [-math.inf]
    logits = torch.tensor([impossible * 3 + [0.0, 0.1] + impossible * 2], device=device)
    for top_p in (1.0, 0.9):
        uniforms = torch.tensor([uniform], dtype=torch.float64, device=device)
        token, log_prob = sample_tokens(logits, uniforms, SamplingSettings(top_p=top_p))
        assert token.item() in {3, 4}
        assert log_prob.isfinite().all()


def test_without_sampling_the_first_of_the_most_likely_is_taken():
    logits = torch.tensor([[0.2, 0.4, 0.4], [0.9, 0.05, 0.05]]).log()
    tokens, log_probs = sample_tokens(logits, None, SamplingSettings(do_sample=False))
    assert tokens.tolist() == [1, 0]
    torch.testing.assert_close(log_probs.exp(), torch.tensor([0.4, 0.9]))


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
        SamplingSettings(temperature, top_p)


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
