"""Scores of thoughts."""

import math

import pytest
import torch

from phase3_quietstar.architecture import CoherenceScorer

H = 6


@pytest.fixture
def scorer() -> CoherenceScorer:
    torch.manual_seed(0)
    return CoherenceScorer(H).double()


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_thought_along_its_context_scores_one_and_against_it_zero(scorer):
    base = normal(2, H)
    thoughts = torch.stack([3 * base, -base, torch.zeros_like(base)], dim=1)
    expected = torch.tensor([[1.0, 0.0, 0.5]] * 2).double()
    torch.testing.assert_close(scorer._semantic_coherence(base, thoughts), expected)


def test_thoughts_are_scored_by_the_mean_of_their_states(scorer):
    base, thoughts = normal(2, H), normal(2, 3, 4, H)
    scores = scorer(base, thoughts)
    mean = sum(thoughts[:, :, step] for step in range(4)) / 4
    torch.testing.assert_close(scores.semantic, scorer._semantic_coherence(base, mean))
    torch.testing.assert_close(scores.syntactic, scorer._syntactic_coherence(mean))


def test_what_comes_after_a_thoughts_end_does_not_count(scorer):
    base, thoughts = normal(2, H), normal(2, 3, 4, H)
    lengths = torch.tensor([[4, 1, 2], [3, 4, 1]])
    mask = torch.arange(4) < lengths.unsqueeze(-1)
    scores = scorer(base, thoughts, thought_mask=mask)
    for row in range(2):
        for k in range(3):
            whole = thoughts[row : row + 1, k : k + 1, : lengths[row, k]]
            alone = scorer(base[row : row + 1], whole)
            torch.testing.assert_close(scores.composite[row, k], alone.composite[0, 0])
    with pytest.raises(ValueError, match=r"thought_mask must be \(2, 3, 4\) as thoughts"):
        scorer(base, thoughts, thought_mask=mask[:, :2])


def test_predictive_coherence_is_one_minus_normalised_entropy(scorer):
    probs = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.25] * 4, [1.0, 0.0, 0.0, 0.0]]]).double()
    got = scorer._predictive_coherence(normal(1, 3, H), probs.log())
    torch.testing.assert_close(got, torch.tensor([[0.5, 0.0, 1.0]]).double())


def test_one_prediction_serves_all_thoughts_of_its_sequence(scorer):
    logits = torch.tensor([[0.0, 0.0], [0.0, -math.inf]]).double()
    got = scorer._predictive_coherence(normal(2, 3, H), logits)
    torch.testing.assert_close(got, torch.tensor([[0.0] * 3, [1.0] * 3]).double())


def test_a_sequence_does_not_depend_on_its_neighbours(scorer):
    base, thoughts, logits = normal(3, H), normal(3, 2, 4, H), normal(3, 2, 5)
    together = scorer(base, thoughts, logits).composite
    alone = [scorer(base[i : i + 1], thoughts[i : i + 1], logits[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat([scores.composite for scores in alone]))


def test_composite_differentiates(scorer):
    inputs = [normal(2, H), normal(2, 3, 4, H), normal(2, 3, 5)]
    assert torch.autograd.gradcheck(
        lambda *args: scorer(*args).composite, [tensor.requires_grad_() for tensor in inputs]
    )


def test_given_weights_are_used():
    scorer = CoherenceScorer(H, weights={"semantic": 0, "syntactic": 0, "predictive": 1}).double()
    scores = scorer(normal(2, H), normal(2, 3, 4, H), normal(2, 3, 5))
    assert torch.equal(scores.composite, scores.predictive)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"semantic": 0.5, "predictive": 0.5}, "weights lack syntactic; give all of semantic"),
        (
            {"semantic": 0.4, "syntactic": 0.3, "predictive": 0.3, "humour": 0.1},
            "unknown signals humour",
        ),
        ({"semantic": 0.5, "syntactic": 0.5, "predictive": 0.5}, "must sum to 1"),
        ({"semantic": 1.5, "syntactic": -0.5, "predictive": 0.0}, "must not be negative"),
        ({"semantic": math.nan, "syntactic": 0.5, "predictive": 0.5}, "must not be negative"),
    ],
)
def test_weights_that_are_no_weighted_mean_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        CoherenceScorer(H, weights=weights)


@pytest.mark.parametrize(
    ("base", "thoughts"),
    [((2, H), (2, 3, H)), ((2, H), (3, 3, 4, H)), ((2, 5), (2, 3, 4, H)), ((2, H), (2, 3, 4, 5))],
)
def test_shapes_that_do_not_fit_are_refused(scorer, base, thoughts):
    with pytest.raises(ValueError, match=r"base must be \(B, 6\) and thoughts \(B, K, L, 6\)"):
        scorer(normal(*base), normal(*thoughts))


def test_logits_for_other_thoughts_are_refused(scorer):
    with pytest.raises(ValueError, match=r"next_token_logits must be \(2, 3, 'V'\) or \(2, 'V'\)"):
        scorer(normal(2, H), normal(2, 3, 4, H), normal(2, 4, 5))


def test_a_hidden_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match="hidden_size must be at least 1"):
        CoherenceScorer(0)
