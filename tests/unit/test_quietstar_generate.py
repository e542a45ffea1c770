"""Generating with thoughts, and keeping a model."""

import pytest
import torch
from tests.unit.thought_models import (
    HIDDEN_SIZE,
    hugging_face_model,
    random_ids,
    tiny_language_model,
)
from torch import nn

from cross_phase.utils import CheckpointError, load_checkpoint
from phase3_quietstar.architecture import QuietSTaRModel
from phase3_quietstar.decoding import Sequences

NEW = 6


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def build(base_model, hidden_size: int, **options) -> QuietSTaRModel:
    torch.manual_seed(0)
    options = {"num_thoughts": 2, "max_thought_length": 3, "injection_threshold": 0.0} | options
    model = QuietSTaRModel(base_model, hidden_size, **options).double()
    nn.init.normal_(model.mixing_head.weight[-1].weight)
    return model.eval()


@pytest.fixture(params=["plain", "gpt2", "mistral, sliding window"])
def model(request, device) -> QuietSTaRModel:
    if request.param == "plain":
        return build(tiny_language_model(device), HIDDEN_SIZE).to(device)
    return build(hugging_face_model(request.param, device), 32).to(device)


def test_without_thoughts_it_is_greedy_decoding_of_the_base_model(model, device):
    input_ids = random_ids(device, 2, 5)
    tokens = input_ids
    for _ in range(NEW):
        step = model.base_model(tokens).logits[:, -1:].argmax(dim=-1)
        tokens = torch.cat([tokens, step], dim=1)
    assert torch.equal(model.generate(input_ids, NEW, use_thoughts=False), tokens)


def test_thoughts_before_every_token_are_those_of_the_whole_sequence(model, device):
    """One seed for each token: the thoughts of a step are those of a fresh call."""
    model.thought_injector.min_interval = 1
    model.thought_generator.min_length = 3
    input_ids = random_ids(device, 2, 5)
    got = model.generate(input_ids, NEW, generator=seeded())
    assert not torch.equal(got, model.generate(input_ids, NEW, use_thoughts=False))
    source, tokens = seeded(), input_ids
    for _ in range(NEW):
        last = tokens.shape[1] - 1
        logits = model(tokens, use_thoughts=False)["logits"]
        where = torch.full((2, 1), last, device=device)
        revised, _ = model.think(Sequences(model.base_model, tokens), where, generator=source)
        assert not torch.equal(revised[:, 0], logits[:, -1])
        tokens = torch.cat([tokens, revised[:, 0].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(got, tokens)


def test_it_thinks_where_the_injector_says(model, device):
    thought_at: list[int] = []
    think = model.thought_generator.think_at

    def recorded(sequences, positions, **options):
        thought_at.append(positions[0, 0].item())
        return think(sequences, positions, **options)

    model.thought_generator.think_at = recorded
    model.generate(random_ids(device, 2, 5), NEW, generator=seeded())
    assert thought_at == [4, 7]
    model.generate(random_ids(device, 2, 5), NEW, generator=seeded())
    assert thought_at == [4, 7] * 2
    # A longer prompt is a new sequence too, though it goes on where the last one ended.
    model.generate(random_ids(device, 2, 9), NEW, generator=seeded())
    assert thought_at[4:] == [8, 11]


def test_padding_at_the_start_changes_nothing(model, device):
    input_ids = random_ids(device, 1, 5)
    padded = torch.cat([torch.full((1, 2), 7, device=device), input_ids], dim=1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]], device=device)
    got = model.generate(padded, NEW, attention_mask=mask, generator=seeded())
    assert torch.equal(got[:, 2:], model.generate(input_ids, NEW, generator=seeded()))


def test_a_sequence_ends_with_its_end_token_and_is_padded_behind(model, device):
    input_ids = random_ids(device, 3, 5)
    free = model.generate(input_ids, NEW, use_thoughts=False)
    eos = free[0, 6].item()
    got = model.generate(input_ids, NEW, use_thoughts=False, eos_token_id=eos, pad_token_id=9)
    for row, ended in zip(free[:, 5:].tolist(), got[:, 5:].tolist(), strict=True):
        length = row.index(eos) + 1 if eos in row else NEW
        assert ended == row[:length] + [9] * (len(ended) - length)
    single = model.generate(input_ids[:1], NEW, use_thoughts=False, eos_token_id=eos)
    assert single.shape[1] == 5 + free[0, 5:].tolist().index(eos) + 1


def test_sampled_tokens_are_reproducible_and_belong_to_their_sequence(model, device):
    input_ids = random_ids(device, 3, 5)
    options = {"do_sample": True, "temperature": 1.5, "top_k": 12, "use_thoughts": False}
    first, again = (model.generate(input_ids, NEW, generator=seeded(), **options) for _ in range(2))
    assert torch.equal(first, again)
    order = [2, 0, 1]
    moved = model.generate(input_ids[order], NEW, generator=seeded(), **options)
    assert torch.equal(moved, first[order])
    other = model.generate(input_ids, NEW, generator=torch.Generator().manual_seed(4), **options)
    assert not torch.equal(first, other)


def test_generation_needs_no_gradients(model, device):
    assert not model.generate(random_ids(device, 1, 4), 1).requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_generated_is_refused(model, device):
    input_ids = random_ids(device, 2, 5)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        model.generate(input_ids, 0)
    mask = torch.tensor([[1] * 5, [1, 1, 1, 1, 0]], device=device)
    with pytest.raises(ValueError, match="padded at their end"):
        model.generate(input_ids, NEW, attention_mask=mask)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        model.generate(input_ids, NEW, top_k=0)


def test_masked_positions_do_not_count_in_forward(device):
    model = build(hugging_face_model("llama", device), 32)
    input_ids = random_ids(device, 2, 6)
    mask = torch.ones_like(input_ids)
    mask[1, :2] = 0
    output = model(input_ids, input_ids, attention_mask=mask, generator=seeded())
    changed = input_ids.clone()
    changed[1, :2] = 11
    other = model(changed, changed, attention_mask=mask, generator=seeded())
    assert output["thought_positions"] == other["thought_positions"] == [0, 3]
    real = mask.bool()
    torch.testing.assert_close(output["logits"][real], other["logits"][real])
    assert output["avg_coherence"] == pytest.approx(other["avg_coherence"])
    torch.testing.assert_close(output["loss"], other["loss"])
    plain = model(input_ids, attention_mask=mask, use_thoughts=False)["logits"]
    assert torch.equal(output["logits"][1, 0], plain[1, 0])
    assert not torch.equal(output["logits"][0, 0], plain[0, 0])
    alone = model(input_ids[1:, 2:], use_thoughts=False)["logits"]
    untouched = [4, 5]
    torch.testing.assert_close(output["logits"][1, untouched], alone[0, [2, 3]])


class TestCheckpoints:
    @pytest.fixture
    def saved(self, tmp_path) -> tuple[QuietSTaRModel, object]:
        base_model = hugging_face_model("gpt2", torch.device("cpu"))
        model = build(base_model, 32, temperature=0.7, top_k=9, coherence_weights={
            "semantic": 0.2, "syntactic": 0.2, "predictive": 0.6,
        })  # fmt: skip
        with torch.no_grad():
            model.thought_tokens.start.normal_()
        return model, model.save(tmp_path / "quietstar.v1.0", metadata={"step": 12})

    def test_a_loaded_model_is_the_saved_one(self, saved):
        model, path = saved
        other = hugging_face_model("gpt2", torch.device("cpu"), initializer_range=0.01)
        loaded = QuietSTaRModel.load(path, other).eval()
        assert loaded.thought_generator.settings == model.thought_generator.settings
        assert loaded.coherence_scorer.weights == model.coherence_scorer.weights
        assert loaded.base_model.lm_head.weight is other.transformer.wte.weight
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        input_ids = random_ids(torch.device("cpu"), 2, 5)
        got, expected = (m.generate(input_ids, NEW, generator=seeded()) for m in (loaded, model))
        assert torch.equal(got, expected)
        rest = load_checkpoint(loaded, path)
        assert rest["metadata"] == {"step": 12}

    def test_another_base_model_is_refused(self, saved):
        _, path = saved
        other = hugging_face_model("gpt2", torch.device("cpu"), n_layer=1)
        with pytest.raises(CheckpointError, match="does not fit the model"):
            QuietSTaRModel.load(path, other)

    def test_float32_heads_stay_float32(self, tmp_path):
        base_model = hugging_face_model("llama", torch.device("cpu")).bfloat16()
        model = QuietSTaRModel(base_model, 32, max_thought_length=2)
        path = model.save(tmp_path / "half")
        other = hugging_face_model("llama", torch.device("cpu")).bfloat16()
        loaded = QuietSTaRModel.load(path, other)
        assert loaded.mixing_head.query.weight.dtype == torch.float32
        assert loaded.thought_tokens.start.dtype == torch.bfloat16
