"""Thoughts of Hugging Face causal models built from tiny configurations."""

import pytest
import torch
from tests.unit.thought_models import (
    LLAMA_LIKE,
    TOKENS,
    VOCAB_SIZE,
    hugging_face_model,
    ids_tensor,
    random_ids,
    sampling_distribution,
    tiny_language_model,
    without_cache,
)
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Model,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from phase3_quietstar.architecture import QuietSTaRModel, ThoughtGenerator
from phase3_quietstar.base_model import is_hugging_face_model
from phase3_quietstar.decoding import Sequences
from phase3_quietstar.sampling import SamplingSettings
from phase3_quietstar.thought_generator import SampledThoughts, sample_thoughts

GREEDY = SamplingSettings(do_sample=False)


@pytest.fixture(params=["gpt2", "llama", "mistral, sliding window", "qwen2"])
def model(request, device) -> PreTrainedModel:
    return hugging_face_model(request.param, device)


def prepared(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    return model.double().to(device).eval()


def assert_near(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Llama-like families compute their norms in float32, whatever the model's dtype."""
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def sampled(base_model, prefix_ids: torch.Tensor, **options) -> SampledThoughts:
    """Thoughts after the last token of every row."""
    positions = torch.full((len(prefix_ids), 1), prefix_ids.shape[1] - 1, device=prefix_ids.device)
    return sample_thoughts(Sequences(base_model, prefix_ids), positions, **options)


def test_cached_thoughts_equal_uncached_ones(model, device):
    prefix_ids = random_ids(device, 2, 6)
    cached, uncached = (
        sampled(
            base_model,
            prefix_ids,
            num_thoughts=3,
            length=5,
            settings=SamplingSettings(0.8, 0.9),
            generator=torch.Generator().manual_seed(0),
        )
        for base_model in (model, without_cache(model))
    )
    assert torch.equal(cached.token_ids, uncached.token_ids)
    assert_near(cached.hidden_states, uncached.hidden_states)
    assert_near(cached.token_log_probs, uncached.token_log_probs)
    assert cached.token_ids.flatten(0, 2).unique(dim=0).shape[0] > 2


def test_a_step_with_the_cache_runs_one_token_of_every_thought(model, device):
    lengths: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    ThoughtGenerator(model, 3, max_length=4, min_length=4)(random_ids(device, 2, 7), position=5)
    # Thoughts are tokens of their sequence's row, not rows: the prefix is there once.
    assert lengths == [(2, 6)] + [(2, 3)] * 4


def test_greedy_thoughts_equal_a_plain_loop_and_generate(model, device):
    generator = ThoughtGenerator(model, 2, max_length=6, min_length=6, do_sample=False)
    input_ids = random_ids(device, 3, 5)
    thoughts = ids_tensor(generator(input_ids, position=4).thought_ids, device)
    tokens = input_ids
    for _ in range(6):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(thoughts, tokens[:, None, 5:].expand(-1, 2, -1))
    generated = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        min_new_tokens=6,
        max_new_tokens=6,
        pad_token_id=0,
        suppress_tokens=[],
    )
    # generate() keeps the end token (0) out until the minimum is reached.
    without_end = (thoughts != 0).all(dim=-1)[:, 0]
    assert without_end.any()
    assert torch.equal(thoughts[without_end, 0], generated[without_end, 5:])


def test_log_probs_and_hidden_states_equal_those_of_a_full_forward(model, device):
    generator = ThoughtGenerator(model, 2, max_length=4, min_length=4, temperature=1.3, top_p=0.8)
    input_ids = random_ids(device, 2, 7)
    output = generator(input_ids, position=4)
    thoughts = ids_tensor(output.thought_ids, device)
    for row in range(2):
        for k in range(2):
            tokens = torch.cat([input_ids[row, :5], thoughts[row, k]])[None]
            full = model(tokens, output_hidden_states=True, use_cache=False)
            assert_near(output.thoughts[row, k], full.hidden_states[-1][0, 5:])
            expected = sum(
                sampling_distribution(full.logits[0, 4 + step], 1.3, 0.8)[token].log()
                for step, token in enumerate(thoughts[row, k])
            )
            assert output.log_probs[row, k].item() == pytest.approx(expected.item(), abs=1e-4)


def test_a_sequence_does_not_depend_on_its_neighbours(model, device):
    generator = ThoughtGenerator(model, 2, max_length=5, min_length=5, do_sample=False)
    input_ids = random_ids(device, 3, 6)
    together = generator(input_ids, position=5)
    alone = torch.cat([generator(row[None], position=5).thoughts for row in input_ids])
    assert_near(together.thoughts, alone)


def test_cached_gradients_equal_those_of_a_full_forward(model, device):
    thoughts = sampled(model, random_ids(device, 2, 4), num_thoughts=2, length=3)
    parameters = list(model.parameters())
    got = torch.autograd.grad(thoughts.token_log_probs.sum(), parameters)
    prefix_ids = random_ids(device, 2, 4).repeat_interleave(2, dim=0)
    token_ids = thoughts.token_ids.flatten(0, 2)
    logits = model(torch.cat([prefix_ids, token_ids], dim=1), use_cache=False).logits[:, 3:-1]
    log_probs = logits.log_softmax(-1).gather(-1, token_ids[..., None])
    expected = torch.autograd.grad(log_probs.sum(), parameters)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_untrained_quietstar_predicts_as_its_base_model(model, device):
    quietstar = QuietSTaRModel(
        model, 32, num_thoughts=2, max_thought_length=3, injection_threshold=0.0
    )
    input_ids = random_ids(device, 2, 5)
    output = quietstar.double().to(device)(input_ids)
    assert output["thought_positions"] == [0, 3]
    assert_near(output["logits"], model(input_ids).logits)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradient_checkpointing_goes_without_a_cache(device, family):
    model = hugging_face_model(family, device)
    model.gradient_checkpointing_enable()
    for dropout in (m for m in model.modules() if isinstance(m, torch.nn.Dropout)):
        dropout.p = 0.0
    prefix_ids = random_ids(device, 2, 4)
    options = {"num_thoughts": 2, "length": 3, "settings": GREEDY}
    expected = sampled(model, prefix_ids, **options)
    model.train()
    assert not Sequences(model, prefix_ids).shares_cache
    got = sampled(model, prefix_ids, **options)
    assert_near(got.hidden_states, expected.hidden_states)
    got.token_log_probs.sum().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_recurrent_state_is_not_taken_for_a_cache(device):
    torch.manual_seed(0)
    config = MambaConfig(
        **TOKENS, hidden_size=16, state_size=4, num_hidden_layers=1, initializer_range=0.5
    )
    model = prepared(MambaForCausalLM(config), device)
    prefix_ids = random_ids(device, 2, 4)
    thoughts = sampled(model, prefix_ids, num_thoughts=2, length=3, settings=GREEDY)
    tokens = prefix_ids
    for _ in range(3):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(thoughts.token_ids[:, 0, 1], tokens[:, 4:])


def test_a_family_that_is_not_known_to_branch_gets_rows_of_its_own(device):
    torch.manual_seed(0)
    config = BloomConfig(**TOKENS, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.5)
    # In float32: with float64 its attention makes NaN of padding.
    model = prepared(BloomForCausalLM(config), device).float()
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    input_ids = random_ids(device, 3, 6)
    mask = torch.ones_like(input_ids)
    mask[1, :2] = 0
    output = ThoughtGenerator(model, 2, max_length=4, min_length=4, do_sample=False)(
        input_ids, position=5, attention_mask=mask
    )
    assert shapes == [(3, 6)] + [(6, 1)] * 4
    thoughts = ids_tensor(output.thought_ids, device)
    for row, start in enumerate((0, 2, 0)):
        tokens = input_ids[row : row + 1, start:]
        for _ in range(4):
            tokens = torch.cat([tokens, model(input_ids=tokens).logits[:, -1:].argmax(-1)], dim=1)
        assert torch.equal(thoughts[row, 0], tokens[0, -4:])


def test_a_thought_that_does_not_fit_the_positions_is_refused(device):
    model = hugging_face_model("gpt2", device)
    generator = ThoughtGenerator(model, 1, max_length=12, min_length=1)
    input_ids = random_ids(device, 1, 64)
    assert generator(input_ids, position=51).thoughts.shape[2] <= 12
    with pytest.raises(ValueError, match="need 65 positions, the base model has 64"):
        generator(input_ids, position=52)
    quietstar = QuietSTaRModel(model, 32, max_thought_length=12)
    with pytest.raises(ValueError, match="need 78 positions, the base model has 64"):
        quietstar(input_ids)


def test_an_encoder_decoder_is_refused():
    config = T5Config(
        vocab_size=VOCAB_SIZE, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is an encoder-decoder"):
        ThoughtGenerator(T5ForConditionalGeneration(config))


def test_a_model_without_a_language_model_head_is_refused(device):
    model = prepared(GPT2Model(hugging_face_model("gpt2", device).config), device)
    with pytest.raises(TypeError, match=r"GPT2Model returned a .* with logits: NoneType"):
        ThoughtGenerator(model)(random_ids(device, 1, 3), position=0)


def test_a_head_that_is_not_the_whole_story_is_refused(device):
    torch.manual_seed(0)
    config = Gemma2Config(**LLAMA_LIKE, head_dim=8, final_logit_softcapping=2.0)
    model = prepared(Gemma2ForCausalLM(config), device)
    options = {"num_thoughts": 1, "max_thought_length": 2, "injection_threshold": 0.0}
    input_ids = random_ids(device, 2, 4)
    quietstar = QuietSTaRModel(model, 32, **options).double().to(device)
    with pytest.raises(ValueError, match="changes the logits after its output head"):
        quietstar(input_ids)

    def capped(states):
        return 2.0 * torch.tanh(model.lm_head(states) / 2.0)

    quietstar = QuietSTaRModel(model, 32, **options, lm_head=capped).double().to(device)
    assert_near(quietstar(input_ids)["logits"], model(input_ids).logits)


def test_only_hugging_face_models_are_called_as_such(device):
    assert is_hugging_face_model(hugging_face_model("gpt2", device))
    other = tiny_language_model(device)
    other.config = {"vocab_size": VOCAB_SIZE}
    assert not is_hugging_face_model(other)
