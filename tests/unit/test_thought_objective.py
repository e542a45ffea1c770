"""The terms of the training objective, against plain loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.thought_models import random_ids

from phase3_quietstar.objective import (
    QuietSTaRObjective,
    future_targets,
    kl_divergence,
    leave_one_out_advantages,
    masked_mean,
    reinforce_loss,
    target_log_likelihood,
)

CPU = torch.device("cpu")
rewards_of_one = st.lists(st.floats(-10, 10), min_size=2, max_size=6)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_targets_are_the_tokens_that_follow():
    input_ids = random_ids(CPU, 2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 4]] * 2)
    targets, there = future_targets(input_ids, positions, 3, mask)
    for row in range(2):
        for n, position in enumerate([0, 1, 2, 4]):
            for f in range(3):
                column = position + 1 + f
                exists = column < 6 and bool(mask[row, column]) and bool(mask[row, position])
                assert there[row, n, f].item() is exists
                if exists:
                    assert targets[row, n, f] == input_ids[row, column]


def test_padding_at_the_end_is_no_target():
    input_ids = random_ids(CPU, 1, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    _, there = future_targets(input_ids, torch.tensor([[1, 2]]), 2, mask)
    assert there.tolist() == [[[True, False], [False, False]]]


def test_log_likelihood_of_targets():
    logits, targets = normal(2, 3, 5), random_ids(CPU, 2, 3) % 5
    got = target_log_likelihood(logits, targets)
    for row in range(2):
        for t in range(3):
            exps = [math.exp(value) for value in logits[row, t].tolist()]
            expected = math.log(exps[targets[row, t]] / sum(exps))
            assert got[row, t].item() == pytest.approx(expected, abs=1e-12)


def test_half_precision_logits_are_computed_in_float32():
    logits = normal(2, 5).bfloat16()
    got = target_log_likelihood(logits, torch.tensor([0, 1]))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, target_log_likelihood(logits.float(), torch.tensor([0, 1])))


@settings(max_examples=50, deadline=None)
@given(rewards_of_one)
def test_an_advantage_is_the_reward_less_the_mean_of_the_others(rewards):
    got = leave_one_out_advantages(torch.tensor(rewards, dtype=torch.float64))
    for k, reward in enumerate(rewards):
        others = rewards[:k] + rewards[k + 1 :]
        assert got[k].item() == pytest.approx(reward - sum(others) / len(others), abs=1e-9)
    # The paper's baseline, the mean of all, gives the same up to a factor.
    count = len(rewards)
    of_all = torch.tensor(rewards, dtype=torch.float64) - sum(rewards) / count
    torch.testing.assert_close(got * (count - 1) / count, of_all)


def test_one_thought_has_nothing_to_be_compared_with():
    with pytest.raises(ValueError, match="num_thoughts must be at least 2, or policy_weight 0"):
        leave_one_out_advantages(torch.zeros(2, 1))


@pytest.mark.parametrize("positive_only", [False, True])
def test_reinforce_is_a_plain_loop_and_moves_only_the_log_probs(positive_only):
    log_probs = normal(2, 3, 4).requires_grad_()
    rewards = normal(2, 3, 4, seed=1).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, False, True]])
    loss = reinforce_loss(log_probs, rewards, mask, positive_only=positive_only)
    terms, gradient = [], torch.zeros_like(log_probs)
    for row in range(2):
        for n in range(3):
            if not mask[row, n]:
                continue
            for k in range(4):
                others = [rewards[row, n, j].item() for j in range(4) if j != k]
                advantage = rewards[row, n, k].item() - sum(others) / 3
                if positive_only:
                    advantage = max(advantage, 0.0)
                terms.append(-advantage * log_probs[row, n, k].item())
                gradient[row, n, k] = -advantage / (4 * 4)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), abs=1e-12)
    loss.backward()
    torch.testing.assert_close(log_probs.grad, gradient)
    assert rewards.grad is None


def test_reinforce_follows_the_true_gradient_on_average():
    """Three actions, exact expectation: every pair of draws weighted by its probability."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    probs = logits.softmax(-1)
    (expected,) = torch.autograd.grad(-(probs * reward).sum(), logits)
    total = torch.zeros_like(expected)
    mask = torch.ones(1, 1, dtype=torch.bool)
    for first in range(3):
        for second in range(3):
            pair = torch.tensor([[[first, second]]])
            loss = reinforce_loss(logits.log_softmax(-1)[pair], reward[pair], mask)
            (gradient,) = torch.autograd.grad(loss, logits)
            total += (probs[first] * probs[second]).item() * gradient
    torch.testing.assert_close(total, expected)


def test_divergence_is_a_plain_loop_and_differentiates():
    logits, frozen = normal(2, 3, 5), normal(2, 3, 5, seed=1)
    mask = torch.tensor([[True, True, True], [False, True, True]])
    terms = []
    for row in range(2):
        for t in range(3):
            if mask[row, t]:
                p, q = logits[row, t].softmax(-1), frozen[row, t].softmax(-1)
                terms.append(
                    sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
                )
    got = kl_divergence(logits, frozen, mask)
    assert got.item() == pytest.approx(sum(terms) / len(terms), abs=1e-12)
    assert kl_divergence(logits, logits, mask).item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda values: kl_divergence(values, frozen, mask), logits.requires_grad_()
    )


def test_a_mean_over_nothing_is_zero():
    values = torch.tensor([math.nan, 2.0], requires_grad=True)
    mean = masked_mean(values, torch.tensor([False, False]))
    mean.backward()
    assert mean.item() == 0
    assert values.grad.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"future_tokens": 0}, "future_tokens must be at least 1"),
        ({"policy_weight": -1.0}, "policy_weight must be finite and not negative"),
        ({"kl_coefficient": math.nan}, "kl_coefficient must be finite"),
    ],
)
def test_weights_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        QuietSTaRObjective(**options)
