"""Thoughts at many positions of every sequence at once."""

from types import SimpleNamespace

import pytest
import torch
from tests.unit.thought_models import (
    FAMILIES,
    HIDDEN_SIZE,
    VOCAB_SIZE,
    hugging_face_model,
    random_ids,
    tiny_language_model,
    without_cache,
)
from transformers import GPT2Config, MambaConfig

from phase3_quietstar.architecture import ThoughtGenerator
from phase3_quietstar.branch_attention import (
    BRANCHING_FAMILIES,
    branch_attention,
    check_mask_support,
    split_attention,
    supports_branches,
)
from phase3_quietstar.decoding import Sequences, SharedPrefixDecoder
from phase3_quietstar.sampling import SamplingSettings
from phase3_quietstar.thought_generator import SampledThoughts, sample_thoughts

LENGTH = 5
POSITIONS = [8, 0, 4, 6]


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every(positions: list[int], rows: int, device: torch.device) -> torch.Tensor:
    return torch.tensor(positions, device=device).expand(rows, -1)


def think(base_model, input_ids, positions, mask=None, **options) -> SampledThoughts:
    options = {"num_thoughts": 2, "length": LENGTH, "generator": seeded()} | options
    where = every(positions, len(input_ids), input_ids.device)
    with torch.no_grad():
        return sample_thoughts(Sequences(base_model, input_ids, mask), where, **options)


@pytest.mark.parametrize(
    ("family", "do_sample"),
    [*((family, True) for family in FAMILIES), ("gpt2", False), ("qwen2", False)],
)
def test_all_positions_at_once_equal_each_position_alone(family, do_sample, device):
    model = hugging_face_model(family, device)
    input_ids = random_ids(device, 2, 9)
    options = {"settings": SamplingSettings(0.9, 0.95, do_sample=do_sample)}
    together = think(model, input_ids, POSITIONS, **options)
    for row in range(2):
        for n, position in enumerate(POSITIONS):
            prefix_ids = input_ids[row : row + 1, : position + 1]
            alone = think(without_cache(model), prefix_ids, [position], **options)
            assert torch.equal(together.token_ids[row, n], alone.token_ids[0, 0])
            for field in ("hidden_states", "token_log_probs", "next_logits"):
                got, expected = getattr(together, field)[row, n], getattr(alone, field)[0, 0]
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-5)


def test_every_branching_family_is_tested_here():
    tested = {
        hugging_face_model(family, torch.device("cpu")).config.model_type for family in FAMILIES
    }
    assert tested == BRANCHING_FAMILIES


@pytest.mark.parametrize("family", ["gpt2", "qwen2, some layers sliding", "gemma2, capped"])
@pytest.mark.parametrize("side", ["start", "end"])
def test_padding_changes_nothing(family, side, device):
    # In float32: with float64 the eager attention of some families makes NaN of padding.
    model = hugging_face_model(family, device).float()
    input_ids = random_ids(device, 3, 9)
    mask = torch.ones_like(input_ids)
    columns = slice(0, 3) if side == "start" else slice(6, 9)
    mask[1, columns] = 0
    positions = [3, 5] if side == "end" else [4, 8]
    padded = think(model, input_ids, positions, mask)
    real = input_ids[1:2, 3:] if side == "start" else input_ids[1:2, :6]
    shift = 3 if side == "start" else 0
    alone = think(model, real, [position - shift for position in positions])
    assert torch.equal(padded.token_ids[1], alone.token_ids[0])
    torch.testing.assert_close(
        padded.hidden_states[1], alone.hidden_states[0], rtol=1e-4, atol=1e-4
    )
    whole = think(model, input_ids, positions)
    assert torch.equal(padded.token_ids[[0, 2]], whole.token_ids[[0, 2]])


@pytest.mark.parametrize("side", ["start", "end"])
def test_padding_changes_nothing_for_a_model_that_takes_no_mask(side, device):
    model = tiny_language_model(device)
    input_ids = random_ids(device, 2, 7)
    mask = torch.ones_like(input_ids)
    mask[1, slice(0, 3) if side == "start" else slice(4, 7)] = 0
    real = input_ids[1:2, 3:] if side == "start" else input_ids[1:2, :4]
    position, shift = (6, 3) if side == "start" else (3, 0)
    padded = think(model, input_ids, [position], mask)
    alone = think(model, real, [position - shift])
    assert torch.equal(padded.token_ids[1], alone.token_ids[0])
    torch.testing.assert_close(padded.hidden_states[1], alone.hidden_states[0])


@pytest.mark.parametrize("kind", ["gpt2", "plain"])
class TestDraws:
    @pytest.fixture
    def model(self, kind, device):
        return tiny_language_model(device) if kind == "plain" else hugging_face_model(kind, device)

    def test_do_not_depend_on_the_order_of_the_batch(self, model, device):
        input_ids = random_ids(device, 4, 6)
        order = [2, 0, 3, 1]
        straight = think(model, input_ids, [2, 5]).token_ids
        assert torch.equal(think(model, input_ids[order], [2, 5]).token_ids, straight[order])
        assert torch.equal(think(model, input_ids[1:2], [2, 5]).token_ids, straight[1:2])

    def test_do_not_depend_on_how_many_thoughts_are_asked_for(self, model, device):
        input_ids = random_ids(device, 2, 6)
        few, many = (think(model, input_ids, [5], num_thoughts=k) for k in (2, 5))
        assert torch.equal(few.token_ids, many.token_ids[:, :, :2])
        longer = think(model, input_ids, [5], length=LENGTH + 3)
        assert torch.equal(few.token_ids, longer.token_ids[..., :LENGTH])

    def test_differ_between_equal_sequences_and_between_thoughts(self, model, device):
        input_ids = random_ids(device, 1, 6).expand(3, -1)
        thoughts = think(model, input_ids, [5], length=12).token_ids.flatten(0, 2)
        assert thoughts.unique(dim=0).shape[0] == len(thoughts)


def test_thoughts_of_all_positions_differ_by_seed(device):
    model = hugging_face_model("llama", device)
    input_ids = random_ids(device, 2, 6)
    first, again, other = (
        think(model, input_ids, [1, 5], generator=seeded(seed)).token_ids for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_cache_of_the_sequences_is_not_copied_and_stays(device):
    model = hugging_face_model("gpt2", device)
    sequences = Sequences(model, random_ids(device, 2, 9))
    before = [layer.keys for layer in sequences.cache.layers]
    decoder = SharedPrefixDecoder(sequences, every(POSITIONS, 2, device), copies=8)
    assert [layer.keys.data_ptr() for layer in decoder._cache.layers] == [
        keys.data_ptr() for keys in before
    ]
    sample_thoughts(sequences, every(POSITIONS, 2, device), num_thoughts=8, length=3)
    assert all(
        layer.keys is keys for layer, keys in zip(sequences.cache.layers, before, strict=True)
    )


def test_attention_is_that_of_a_dense_mask(device):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)

    batch, heads, groups, branches, prefix, steps, width = 2, 4, 2, 3, 5, 2, 6
    query = normal(batch, heads, branches, width)
    key, value = (normal(batch, groups, prefix + steps * branches, width) for _ in range(2))
    mask = normal(batch, 1, branches, prefix + steps)
    got, _ = split_attention(
        torch.nn.Identity(), query, key, value, mask, prefix_length=prefix, scaling=0.3, softcap=2.0
    )
    for b in range(batch):
        for h in range(heads):
            keys, values = key[b, h // 2], value[b, h // 2]
            for n in range(branches):
                seen = [*range(prefix), *(prefix + s * branches + n for s in range(steps))]
                scores = 2.0 * torch.tanh(keys[seen] @ query[b, h, n] * 0.3 / 2.0)
                probs = (scores + mask[b, 0, n]).softmax(-1)
                torch.testing.assert_close(got[b, n, h], probs @ values[seen])


def test_attention_differentiates(device):
    query = torch.randn(1, 2, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    key, value = (
        torch.randn(1, 1, 3 + 2 * 2, 3, dtype=torch.float64, device=device, requires_grad=True)
        for _ in range(2)
    )
    mask = torch.zeros(1, 1, 2, 5, dtype=torch.float64, device=device)

    def attend(query, key, value):
        return split_attention(torch.nn.Identity(), query, key, value, mask, prefix_length=3)[0]

    assert torch.autograd.gradcheck(attend, (query, key, value))


def test_gradients_at_all_positions_equal_those_of_full_forwards(device):
    model = hugging_face_model("mistral, sliding window", device)
    input_ids = random_ids(device, 2, 7)
    positions = every([2, 6], 2, device)
    thoughts = sample_thoughts(Sequences(model, input_ids), positions, num_thoughts=2, length=3)
    parameters = list(model.parameters())
    got = torch.autograd.grad(thoughts.token_log_probs.sum(), parameters)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for row in range(2):
        for n, position in enumerate((2, 6)):
            for tokens in thoughts.token_ids[row, n]:
                full = torch.cat([input_ids[row, : position + 1], tokens])[None]
                logits = model(full, use_cache=False).logits[0, position:-1]
                total = total + logits.log_softmax(-1).gather(-1, tokens[:, None]).sum()
    expected = torch.autograd.grad(total, parameters)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_the_model_attends_as_before_once_thoughts_are_made(device):
    model = hugging_face_model("gpt2", device)
    before = model.config._attn_implementation

    def fail() -> None:
        with branch_attention(model):
            assert model.config._attn_implementation != before
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert model.config._attn_implementation == before


def test_training_mode_keeps_its_dropout(device):
    model = hugging_face_model("gpt2", device).train()
    input_ids = random_ids(device, 2, 6)
    torch.manual_seed(0)
    first = think(model, input_ids, [5], settings=SamplingSettings(do_sample=False))
    second = think(model, input_ids, [5], settings=SamplingSettings(do_sample=False))
    assert not torch.equal(first.hidden_states, second.hidden_states)
    assert model.training


def test_autocast_gives_the_log_probs_of_a_full_forward_under_autocast(device):
    model = hugging_face_model("llama", device).float()
    input_ids = random_ids(device, 2, 6)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        thoughts = think(model, input_ids, [2, 5])
        tokens = thoughts.token_ids[0, 1, 0]
        full = model(torch.cat([input_ids[0], tokens])[None], use_cache=False).logits[0, 5:-1]
    assert thoughts.token_log_probs.dtype == torch.float32
    expected = full.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(thoughts.token_log_probs[0, 1, 0], expected, rtol=0.1, atol=0.1)


def test_a_half_precision_model_thinks_in_half_precision(device):
    model = hugging_face_model("qwen2", device).bfloat16()
    thoughts = think(model, random_ids(device, 2, 6), [2, 5])
    assert thoughts.hidden_states.dtype == torch.bfloat16
    assert thoughts.token_log_probs.dtype == torch.float32


class Wrapper(torch.nn.Module):
    """Hands on whatever it is given, as PEFT's models do."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_base_model(self):
        return self.model

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def test_a_wrapped_model_thinks_as_itself(device):
    model = hugging_face_model("llama", device)
    input_ids = random_ids(device, 2, 6)
    mask = torch.ones_like(input_ids)
    mask[0, :2] = 0
    expected, got = (think(m, input_ids, [3, 5], mask) for m in (model, Wrapper(model)))
    assert torch.equal(got.token_ids, expected.token_ids)
    torch.testing.assert_close(got.hidden_states, expected.hidden_states)


def test_a_compiled_model_thinks_as_itself(device):
    model = hugging_face_model("llama", device, num_hidden_layers=1)
    input_ids = random_ids(device, 2, 6)
    expected = think(model, input_ids, [2, 5])
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        sequences = Sequences(compiled, input_ids)
    of_sequences = len(graphs)
    assert of_sequences > 0
    with torch.no_grad():
        got = sample_thoughts(
            sequences, every([2, 5], 2, device), num_thoughts=2, length=LENGTH, generator=seeded()
        )
    # Compiling again at each step, which the keys' growth asks for, would take far longer.
    assert len(graphs) == of_sequences
    assert torch.equal(got.token_ids, expected.token_ids)
    torch.testing.assert_close(got.hidden_states, expected.hidden_states)


def test_think_at_is_forward_at_each_position(device):
    model = hugging_face_model("gpt2", device)
    generator = ThoughtGenerator(model, 3, max_length=4, min_length=4)
    input_ids = random_ids(device, 2, 6)
    together = generator.think_at(
        Sequences(model, input_ids), every([1, 4], 2, device), generator=seeded()
    )
    for n, position in enumerate((1, 4)):
        alone = generator(input_ids, position, generator=seeded())
        torch.testing.assert_close(together.hidden_states[:, n], alone.thoughts)
        torch.testing.assert_close(together.token_log_probs[:, n].sum(-1), alone.log_probs)


@pytest.mark.parametrize("kind", ["gpt2", "plain"])
def test_sequences_with_their_last_logits_alone_have_one_position(kind, device):
    model = tiny_language_model(device) if kind == "plain" else hugging_face_model(kind, device)
    sequences = Sequences(model, random_ids(device, 2, 5), last_only=True)
    with pytest.raises(ValueError, match="continued at their last column alone"):
        sample_thoughts(sequences, every([1, 4], 2, device), num_thoughts=2, length=2)


def test_only_known_kinds_of_layers_branch():
    model = hugging_face_model("qwen2", torch.device("cpu"))
    assert supports_branches(model)
    model.config.layer_types = ["full_attention", "linear_attention"]
    assert not supports_branches(model)
    for config in (MambaConfig(), GPT2Config(add_cross_attention=True)):
        assert not supports_branches(SimpleNamespace(config=config))


def test_attention_without_4d_masks_is_refused_for_scoring():
    model = hugging_face_model("gpt2", torch.device("cpu"))
    check_mask_support(model)
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match=r"'flash_attention_2' does not take; .*sdpa"):
        check_mask_support(model)


def test_a_plain_model_thinks_at_all_positions_too(device):
    model = tiny_language_model(device)
    input_ids = random_ids(device, 2, 5)
    together = think(model, input_ids, [0, 2, 4])
    assert together.hidden_states.shape == (2, 3, 2, LENGTH, HIDDEN_SIZE)
    assert together.next_logits.shape == (2, 3, 2, VOCAB_SIZE)
    for n, position in enumerate((0, 2, 4)):
        alone = think(model, input_ids[:, : position + 1], [position])
        assert torch.equal(together.token_ids[:, n], alone.token_ids[:, 0])
        torch.testing.assert_close(together.hidden_states[:, n], alone.hidden_states[:, 0])
