"""Thoughts of different length."""

import pytest
import torch
from tests.unit.thought_models import (
    HIDDEN_SIZE,
    hugging_face_model,
    ids_tensor,
    random_ids,
    tiny_language_model,
    without_cache,
)

from phase3_quietstar.architecture import QuietSTaRModel, ThoughtGenerator
from phase3_quietstar.decoding import Sequences
from phase3_quietstar.thought_generator import SampledThoughts, sample_thoughts
from phase3_quietstar.thought_tokens import ThoughtTokens

END = 3
LENGTH = 8


def think(base_model, input_ids, position=5, **options) -> SampledThoughts:
    options = {"num_thoughts": 4, "length": LENGTH, "end_token_id": END} | options
    where = torch.full((len(input_ids), 1), position, device=input_ids.device)
    source = torch.Generator().manual_seed(0)
    return sample_thoughts(Sequences(base_model, input_ids), where, generator=source, **options)


@pytest.fixture(params=["plain", "gpt2"])
def model(request, device):
    """A model that ends its thoughts soon."""
    model = (
        tiny_language_model(device)
        if request.param == "plain"
        else hugging_face_model(request.param, device)
    )
    bias = torch.zeros(model.lm_head.weight.shape[0], device=device, dtype=torch.float64)
    bias[END] = 3.0
    model.lm_head.weight.data.mul_(0.2)
    model.lm_head.bias = torch.nn.Parameter(bias)
    return model


def test_a_thought_ends_with_its_first_end_token(model, device):
    thoughts = think(model, random_ids(device, 3, 6))
    lengths = set()
    for ids, length, log_probs, states in zip(
        thoughts.token_ids.flatten(0, 2).tolist(),
        thoughts.lengths.flatten().tolist(),
        thoughts.token_log_probs.flatten(0, 2),
        thoughts.hidden_states.flatten(0, 2),
        strict=True,
    ):
        expected = ids.index(END) + 1 if END in ids else LENGTH
        assert length == expected
        assert ids[length:] == [END] * (LENGTH - length)
        assert (log_probs[:length] < 0).all()
        assert not log_probs[length:].any()
        assert not states[length:].any()
        lengths.add(length)
    assert len(lengths) > 2
    steps = torch.arange(LENGTH, device=device)
    assert torch.equal(thoughts.mask(), steps < thoughts.lengths.unsqueeze(-1))


def test_what_a_thought_ends_in_is_that_of_a_full_forward_over_it_alone(model, device):
    input_ids = random_ids(device, 2, 6)
    thoughts = think(model, input_ids)
    run = model if not hasattr(model, "transformer") else without_cache(model)
    for row in range(2):
        for k in range(4):
            length = thoughts.lengths[row, 0, k]
            full = run(torch.cat([input_ids[row], thoughts.token_ids[row, 0, k, :length]])[None])
            got = (thoughts.last_hidden_state[row, 0, k], thoughts.next_logits[row, 0, k])
            expected = (full.last_hidden_state[0, -1], full.logits[0, -1])
            torch.testing.assert_close(got, expected)


def test_an_end_token_does_not_come_before_the_minimum(model, device):
    input_ids = random_ids(device, 3, 6)
    thoughts = think(model, input_ids, min_length=4)
    assert thoughts.lengths.min() == 4
    assert (thoughts.token_ids[..., :3] != END).all()
    # The distribution that a token was drawn from is the one without the end token.
    run = model if not hasattr(model, "transformer") else without_cache(model)
    token = thoughts.token_ids[0, 0, 0, 0]
    logits = run(input_ids[:1]).logits[0, -1]
    logits[END] = -torch.inf
    expected = logits.log_softmax(-1)[token]
    torch.testing.assert_close(thoughts.token_log_probs[0, 0, 0, 0], expected)


def test_the_generator_passes_lengths_on(model, device):
    generator = ThoughtGenerator(model, 3, max_length=LENGTH, min_length=2, end_token_id=END)
    output = generator(random_ids(device, 2, 6), 5, generator=torch.Generator().manual_seed(0))
    ids = ids_tensor(output.thought_ids, device)
    assert ids.shape == (2, 3, LENGTH)
    ended = (ids == END).long()
    expected = torch.where(ended.any(-1), ended.argmax(-1) + 1, LENGTH)
    assert torch.equal(output.lengths, expected)


@pytest.mark.parametrize("end_token_id", [None, END])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_learned_embeddings_stand_around_each_thought(device, end_token_id, checkpointed):
    """Against one forward over embeddings for each thought."""
    model = hugging_face_model("llama", device)
    tokens = ThoughtTokens(model).double()
    with torch.no_grad():
        tokens.start.normal_()
        tokens.end.normal_()
    model.lm_head.weight.data.mul_(0.1)
    input_ids = random_ids(device, 2, 6)
    options = {"end_token_id": end_token_id, "thought_tokens": tokens}
    if checkpointed:
        # No cache, so that the rows are run again from their embeddings at each step.
        model.gradient_checkpointing_enable()
        model.train()
    thoughts = think(model, input_ids, **options)
    model.eval()
    embed = model.get_input_embeddings()
    for row in range(2):
        for k in range(4):
            length = thoughts.lengths[row, 0, k]
            ids = thoughts.token_ids[row, 0, k, :length]
            inputs = torch.cat(
                [embed(input_ids[row]), tokens.start[None], embed(ids), tokens.end[None]]
            )
            full = model(inputs_embeds=inputs[None], output_hidden_states=True, use_cache=False)
            states = full.hidden_states[-1][0]
            torch.testing.assert_close(
                thoughts.hidden_states[row, 0, k, :length], states[7:-1], rtol=1e-5, atol=1e-5
            )
            torch.testing.assert_close(
                thoughts.last_hidden_state[row, 0, k], states[-1], rtol=1e-5, atol=1e-5
            )
            torch.testing.assert_close(
                thoughts.next_logits[row, 0, k], full.logits[0, -1], rtol=1e-5, atol=1e-5
            )
            log_probs = full.logits[0, 6:-2].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
            torch.testing.assert_close(
                thoughts.token_log_probs[row, 0, k, :length], log_probs, rtol=1e-5, atol=1e-5
            )


def test_learned_embeddings_start_from_a_token_or_from_the_mean(device):
    model = hugging_face_model("gpt2", device)
    weight = model.get_input_embeddings().weight
    torch.testing.assert_close(ThoughtTokens(model).start, weight.mean(dim=0), rtol=0, atol=1e-6)
    named = ThoughtTokens(model, token_id=4)
    assert torch.equal(named.end, weight[4])
    named.end.data.zero_()
    assert weight[4].any()
    with pytest.raises(ValueError, match=r"token_id must be in \[0, 23\), got 23"):
        ThoughtTokens(model, token_id=23)


def test_a_model_that_takes_no_embeddings_has_no_learned_ones(device):
    base_model = tiny_language_model(device)
    assert QuietSTaRModel(base_model, HIDDEN_SIZE).thought_tokens is None
    with pytest.raises(ValueError, match="TinyLanguageModel cannot be fed learned thought"):
        QuietSTaRModel(base_model, HIDDEN_SIZE, learned_thought_tokens=True)


def test_a_whole_model_thinks_with_thoughts_of_different_length(model, device):
    quietstar = QuietSTaRModel(
        model, model.lm_head.weight.shape[1], 2, LENGTH, 0.0, min_thought_length=1, end_token_id=END
    )
    input_ids = random_ids(device, 2, 5)
    output = quietstar.double().to(device)(input_ids, labels=input_ids)
    assert output["thought_positions"] == [0, 3]
    assert 0 < output["avg_coherence"] <= 1
