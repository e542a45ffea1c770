"""The public classes of ``phase3_quietstar.architecture``, for every batch size."""

import math
from unittest.mock import Mock

import pytest
import torch
from tests.unit.thought_models import (
    HIDDEN_SIZE,
    VOCAB_SIZE,
    TinyLanguageModel,
    ids_tensor,
    random_ids,
    sampling_distribution,
    tiny_language_model,
)
from torch import nn
from torch.nn import functional as F

from phase3_quietstar.architecture import (
    CoherenceScorer,
    CoherenceScores,
    MixingHead,
    QuietSTaRModel,
    ThoughtGenerator,
    ThoughtInjector,
    ThoughtOutput,
)


@pytest.fixture
def base_model(device: torch.device) -> TinyLanguageModel:
    return tiny_language_model(device)


def seeded(device: torch.device, seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def normal(device: torch.device, *shape: int, seed: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)


class TestThoughtGenerator:
    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_every_sequence_gets_every_thought(self, base_model, device, batch_size):
        generator = ThoughtGenerator(base_model, num_thoughts=2, max_length=6, min_length=6)
        output = generator(random_ids(device, batch_size, 5), position=3)
        assert isinstance(output, ThoughtOutput)
        assert output.thoughts.shape == (batch_size, 2, 6, HIDDEN_SIZE)
        assert output.log_probs.shape == (batch_size, 2)
        assert output.attention_weights is None

    def test_thought_ids_hold_one_id_per_sequence_at_every_step(self, base_model, device):
        generator = ThoughtGenerator(base_model, num_thoughts=4, max_length=5, min_length=5)
        thought_ids = generator(random_ids(device, 3, 5), position=4).thought_ids
        assert len(thought_ids) == 4
        assert all(len(thought) == 5 for thought in thought_ids)
        steps = [step for thought in thought_ids for step in thought]
        assert all(len(step) == 3 for step in steps)
        assert all(type(token) is int and 0 <= token < VOCAB_SIZE for s in steps for token in s)

    @pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.5, 0.5)])
    def test_log_probs_equal_those_of_a_full_forward(self, base_model, device, temperature, top_p):
        generator = ThoughtGenerator(
            base_model, 2, max_length=4, min_length=4, temperature=temperature, top_p=top_p
        )
        input_ids = random_ids(device, 3, 6)
        output = generator(input_ids, position=2, generator=seeded(device))
        thoughts = ids_tensor(output.thought_ids, device)
        for row in range(3):
            for k in range(2):
                tokens = thoughts[row, k]
                logits = base_model(torch.cat([input_ids[row, :3], tokens])[None]).logits[0]
                expected = sum(
                    sampling_distribution(logits[2 + step], temperature, top_p)[token].log()
                    for step, token in enumerate(tokens)
                )
                assert output.log_probs[row, k].item() == pytest.approx(expected.item(), abs=1e-9)

    def test_hidden_states_are_those_of_the_generated_tokens(self, base_model, device):
        generator = ThoughtGenerator(base_model, num_thoughts=2, max_length=4, min_length=4)
        input_ids = random_ids(device, 2, 6)
        output = generator(input_ids, position=3)
        thoughts = ids_tensor(output.thought_ids, device)
        for k in range(2):
            full = base_model(torch.cat([input_ids[:, :4], thoughts[:, k]], dim=1))
            torch.testing.assert_close(
                output.thoughts[:, k], full.last_hidden_state[:, 4:], rtol=0, atol=1e-9
            )

    def test_greedy_thoughts_equal_a_plain_loop(self, base_model, device):
        generator = ThoughtGenerator(base_model, 2, max_length=5, min_length=5, do_sample=False)
        input_ids = random_ids(device, 3, 4)
        thoughts = ids_tensor(generator(input_ids, position=3).thought_ids, device)
        tokens = input_ids
        for _ in range(5):
            tokens = torch.cat([tokens, base_model(tokens).logits[:, -1:].argmax(dim=-1)], dim=1)
        assert torch.equal(thoughts, tokens[:, None, 4:].expand(-1, 2, -1))

    def test_a_sequence_does_not_depend_on_its_neighbours(self, base_model, device):
        generator = ThoughtGenerator(base_model, 2, max_length=5, min_length=5, do_sample=False)
        input_ids = random_ids(device, 3, 4)
        together = generator(input_ids, position=3)
        alone = [generator(row[None], position=3) for row in input_ids]
        for field in ("thoughts", "log_probs"):
            torch.testing.assert_close(
                getattr(together, field), torch.cat([getattr(one, field) for one in alone])
            )

    def test_a_seed_gives_the_same_thoughts_again_and_another_seed_others(self, base_model, device):
        generator = ThoughtGenerator(base_model, num_thoughts=3, max_length=12, min_length=4)
        input_ids = random_ids(device, 2, 4)
        first, again, other = (
            generator(input_ids, position=3, generator=seeded(device, seed)).thought_ids
            for seed in (5, 5, 6)
        )
        assert first == again
        assert first != other

    def test_log_probs_carry_gradients_to_the_base_model(self, base_model, device):
        generator = ThoughtGenerator(base_model, 2, max_length=3, min_length=3, top_p=1.0)
        output = generator(random_ids(device, 2, 4), position=1)
        output.log_probs[1, 1].backward()
        gradient = base_model.lm_head.weight.grad
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0

    def test_generate_single_gives_each_sequence_its_thought(self, base_model, device):
        generator = ThoughtGenerator(base_model)
        thought, log_prob, ids = generator._generate_single(
            random_ids(device, 3, 4), 2, None, thought_length=5
        )
        assert thought.shape == (3, 5, HIDDEN_SIZE)
        assert log_prob.shape == (3,)
        assert [len(step) for step in ids] == [3] * 5

    def test_a_double_that_takes_input_ids_alone_is_a_base_model(self, device):
        def forward(input_ids):
            rows, length = input_ids.shape
            return Mock(
                logits=torch.zeros(rows, length, 47, device=device),
                last_hidden_state=torch.ones(rows, length, 32, device=device),
            )

        generator = ThoughtGenerator(Mock(spec=nn.Module, side_effect=forward), num_thoughts=2)
        output = generator(random_ids(device, 2, 10), 5, torch.ones(2, 10, 32, device=device))
        length = len(output.thought_ids[0])
        assert 10 <= length <= 20
        assert output.thoughts.shape == (2, 2, length, 32)
        # 43 of 47 equally likely tokens reach a mass of 0.9.
        expected = torch.full((2, 2), -length * math.log(43), device=device)
        torch.testing.assert_close(output.log_probs, expected)

    def test_generate_single_of_one_sequence(self, base_model, device):
        generator = ThoughtGenerator(base_model, top_p=1.0)
        input_ids = random_ids(device, 1, 4)
        _, log_prob, ids = generator._generate_single(input_ids, 3, None, thought_length=2)
        log_probs = base_model(torch.cat([input_ids, torch.tensor([ids[0]], device=device)], 1))
        log_probs = log_probs.logits[0].log_softmax(dim=-1)
        expected = log_probs[3, ids[0][0]] + log_probs[4, ids[1][0]]
        assert log_prob.item() == pytest.approx(expected.item(), abs=1e-9)

    def test_lengths_cover_the_range_and_do_not_leave_it(self, base_model, device):
        generator = ThoughtGenerator(base_model, num_thoughts=1, max_length=4, min_length=2)
        input_ids = random_ids(device, 1, 3)
        source = seeded(device)
        lengths = {
            generator(input_ids, position=2, generator=source).thoughts.shape[2] for _ in range(30)
        }
        assert lengths == {2, 3, 4}

    @pytest.mark.parametrize(("top_p", "kept"), [(0.5, 2), (0.85, 3)])
    def test_nucleus_is_the_smallest_set_that_reaches_top_p(self, base_model, device, top_p, kept):
        probs = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64, device=device)
        nucleus = ThoughtGenerator(base_model, top_p=top_p)._nucleus_sampling(probs.log())
        smallest = probs.sort(descending=True).values[0, kept - 1]
        expected = torch.where(probs >= smallest, probs, 0)
        torch.testing.assert_close(nucleus, expected / expected.sum())

    def test_a_minimum_above_the_maximum_is_refused(self, base_model):
        with pytest.raises(ValueError, match=r"min_length \(10\) is greater than max_length \(5\)"):
            ThoughtGenerator(base_model, max_length=5)


class TestCoherenceScorer:
    @pytest.fixture
    def scorer(self, device) -> CoherenceScorer:
        return CoherenceScorer(HIDDEN_SIZE).double().to(device)

    def test_every_thought_of_every_sequence_is_scored_in_the_unit_interval(self, scorer, device):
        scores = scorer(normal(device, 3, HIDDEN_SIZE), normal(device, 3, 4, 5, HIDDEN_SIZE))
        assert isinstance(scores, CoherenceScores)
        for score in (scores.semantic, scores.syntactic, scores.predictive, scores.composite):
            assert score.shape == (3, 4)
            assert ((score >= 0) & (score <= 1)).all()

    def test_composite_is_the_weighted_mean(self, scorer, device):
        scores = scorer(
            normal(device, 2, HIDDEN_SIZE),
            normal(device, 2, 3, 4, HIDDEN_SIZE),
            normal(device, 2, 3, VOCAB_SIZE),
        )
        expected = 0.4 * scores.semantic + 0.3 * scores.syntactic + 0.3 * scores.predictive
        torch.testing.assert_close(scores.composite, expected)

    def test_semantic_coherence_is_the_cosine_of_context_and_thought(self, scorer, device):
        base, thoughts = normal(device, 2, HIDDEN_SIZE), normal(device, 2, 3, HIDDEN_SIZE, seed=3)
        got = scorer._semantic_coherence(base, thoughts)
        for row in range(2):
            for k in range(3):
                a, b = base[row], thoughts[row, k]
                cosine = (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())
                assert got[row, k].item() == pytest.approx((1 + cosine.item()) / 2, abs=1e-12)

    def test_predictive_coherence_is_one_where_nothing_is_predicted(self, scorer, device):
        got = scorer._predictive_coherence(normal(device, 2, 3, HIDDEN_SIZE), None)
        assert torch.equal(got, torch.ones(2, 3, dtype=torch.float64, device=device))

    def test_partial_weights_are_refused_by_name(self):
        with pytest.raises(ValueError, match="weights lack predictive, syntactic"):
            CoherenceScorer(HIDDEN_SIZE, weights={"semantic": 1.0})


class TestMixingHead:
    @pytest.fixture
    def head(self, device) -> MixingHead:
        return MixingHead(HIDDEN_SIZE, num_heads=4).double().to(device).eval()

    def test_untrained_head_returns_the_hidden_state(self, head, device):
        base = normal(device, 3, HIDDEN_SIZE)
        coherence = torch.rand(3, 4, dtype=torch.float64, device=device)
        mixed = head(base, normal(device, 3, 4, HIDDEN_SIZE, seed=3), coherence)
        assert torch.equal(mixed, base)

    def test_mixes_as_a_plain_loop_over_thoughts_and_heads(self, head, device):
        nn.init.normal_(head.weight[-1].weight)
        base, thoughts = normal(device, 2, HIDDEN_SIZE), normal(device, 2, 3, HIDDEN_SIZE, seed=3)
        coherence = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.2, 1.0]]).double().to(device)
        mixed = head(base, thoughts, coherence)
        for row in range(2):
            query, keys, values = head.query(base[row]), head.key(thoughts[row]), []
            for h in range(4):
                part = slice(h * head.head_dim, (h + 1) * head.head_dim)
                odds = [
                    coherence[row, k]
                    * torch.exp(query[part].dot(keys[k, part]) / math.sqrt(head.head_dim))
                    for k in range(3)
                ]
                attended = sum(
                    odds[k] / sum(odds) * head.value(thoughts[row, k])[part] for k in range(3)
                )
                values.append(attended)
            thought = head.output(torch.cat(values))
            weight = head.weight(torch.cat([base[row], thought]))
            expected = (1 - weight) * base[row] + weight * thought
            torch.testing.assert_close(mixed[row], expected, rtol=0, atol=1e-9)

    def test_merging_heads_undoes_splitting(self, head, device):
        states = normal(device, 2, 5, HIDDEN_SIZE)
        split = head._split_heads(states)
        assert split.shape == (2, 4, 5, head.head_dim)
        assert torch.equal(split[:, 1], states[:, :, head.head_dim : 2 * head.head_dim])
        assert torch.equal(head._merge_heads(split), states)

    def test_a_hidden_size_that_heads_do_not_divide_is_refused(self):
        with pytest.raises(ValueError, match=r"hidden_size \(16\) must be a positive multiple"):
            MixingHead(HIDDEN_SIZE, num_heads=3)


class TestThoughtInjector:
    @pytest.mark.parametrize(
        ("threshold", "peak", "inject"), [(0.3, 0.0, True), (0.8, 50.0, False)]
    )
    def test_injects_where_the_next_token_is_uncertain(self, device, threshold, peak, inject):
        logits = torch.zeros(1, 100, device=device)
        logits[0, 7] = peak
        assert ThoughtInjector(threshold=threshold)(logits) is inject

    def test_entropy_and_dispersion_are_on_the_unit_scale(self, device):
        injector = ThoughtInjector()
        logits = torch.tensor([[0.5, 0.25, 0.25, 0.0]], device=device).log()
        assert injector._compute_entropy(logits) == pytest.approx(1.5 * math.log(2) / math.log(4))
        assert injector._compute_entropy(torch.zeros(2, 100, device=device)) == pytest.approx(1)
        assert injector._compute_dispersion(logits.exp()) == pytest.approx(0.75)
        assert injector._compute_dispersion(None) == 0.5

    def test_missing_signals_leave_the_weight_to_the_others(self, device):
        # Entropy 1, loss 0.2 of its ceiling: (0.4 * 1 + 0.3 * 0.2) / 0.7 = 0.657.
        flat = torch.zeros(1, 100, device=device)
        assert ThoughtInjector(threshold=0.99)(flat) is True
        assert ThoughtInjector(threshold=0.65)(flat, loss=2.0) is True
        assert ThoughtInjector(threshold=0.66)(flat, loss=2.0) is False

    def test_keeps_the_interval_and_starts_afresh_with_a_new_sequence(self, device):
        injector = ThoughtInjector(threshold=0.3, min_interval=3)
        assert injector.last_injection == -3
        flat = torch.zeros(2, 100, device=device)
        decisions = [injector(flat, position=position) for position in range(5)]
        assert decisions == [True, False, False, True, False]
        assert injector(flat, position=0) is True


class TestQuietSTaRModel:
    @staticmethod
    def build(base_model: nn.Module, device: torch.device, **options) -> QuietSTaRModel:
        options = {"num_thoughts": 2, "max_thought_length": 3, "injection_threshold": 0.0} | options
        return QuietSTaRModel(base_model, HIDDEN_SIZE, **options).double().to(device)

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_untrained_model_predicts_as_its_base_model(self, base_model, device, batch_size):
        input_ids = random_ids(device, batch_size, 5)
        output = self.build(base_model, device)(input_ids, labels=input_ids)
        assert output["thought_positions"] == [0, 3]
        expected = base_model(input_ids).logits
        torch.testing.assert_close(output["logits"], expected, rtol=0, atol=1e-9)

    def test_says_where_and_how_much_it_thought(self, base_model, device):
        model = self.build(base_model, device, num_thoughts=3, min_interval=2)
        output = model(random_ids(device, 2, 5))
        assert output["loss"] is None
        assert output["thought_positions"] == [0, 2, 4]
        assert output["num_thoughts_used"] == 9
        assert type(output["avg_coherence"]) is float
        assert 0 < output["avg_coherence"] <= 1

    def test_a_second_sequence_is_thought_about_as_the_first(self, base_model, device):
        model = self.build(base_model, device)
        input_ids = random_ids(device, 2, 5)
        first, second = (model(input_ids)["thought_positions"] for _ in range(2))
        assert first == second == [0, 3]

    def test_a_maximum_length_below_the_default_minimum_works(self, base_model, device):
        model = self.build(base_model, device, max_thought_length=5)
        output = model(random_ids(device, 2, 3))
        assert output["logits"].shape == (2, 3, VOCAB_SIZE)
        assert model.thought_generator.min_length == 5

    def test_without_thoughts_it_is_the_base_model(self, base_model, device):
        input_ids = random_ids(device, 2, 5)
        output = self.build(base_model, device)(input_ids, use_thoughts=False)
        assert torch.equal(output["logits"], base_model(input_ids).logits)
        assert output["thought_positions"] == []
        assert output["num_thoughts_used"] == 0
        assert output["avg_coherence"] == 0.0

    def test_loss_is_the_cross_entropy_of_the_next_token(self, base_model, device):
        logits, labels = normal(device, 2, 5, VOCAB_SIZE), random_ids(device, 2, 5)
        labels[0, 2] = -100
        terms = [
            F.cross_entropy(logits[row, t], labels[row, t + 1])
            for row in range(2)
            for t in range(4)
            if labels[row, t + 1] != -100
        ]
        loss = self.build(base_model, device)._compute_loss(logits, labels)
        assert loss.dim() == 0
        torch.testing.assert_close(loss, torch.stack(terms).mean())
