"""What the thought generator refuses, and what it leaves alone."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from tests.unit.thought_models import HIDDEN_SIZE, random_ids, tiny_language_model
from torch import nn

from phase3_quietstar import sampling
from phase3_quietstar.architecture import ThoughtGenerator

CPU = torch.device("cpu")


@pytest.fixture
def generator() -> ThoughtGenerator:
    return ThoughtGenerator(tiny_language_model(CPU), 2, max_length=3, min_length=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_thoughts": 0}, "num_thoughts must be at least 1, got 0"),
        ({"min_length": 0}, "min_length must be at least 1, got 0"),
        ({"min_length": 7, "max_length": 6}, r"min_length \(7\) is greater than max_length \(6\)"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"end_token_id": -1}, "end_token_id must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ThoughtGenerator(tiny_language_model(CPU), **options)


def test_what_cannot_be_called_is_no_base_model():
    with pytest.raises(TypeError, match="base_model must be callable, got str"):
        ThoughtGenerator("gpt2")


@pytest.mark.parametrize("position", [-1, 4])
def test_a_position_outside_the_sequence_is_refused(generator, position):
    with pytest.raises(ValueError, match=r"position must be in \[0, 4\)"):
        generator(random_ids(CPU, 2, 4), position)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 0), (0, 3)])
def test_input_ids_of_another_shape_are_refused(generator, shape):
    with pytest.raises(ValueError, match=r"input_ids must be \(B, T\)"):
        generator(torch.zeros(shape, dtype=torch.long), 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_input_ids_that_are_no_integers_are_refused(generator, dtype):
    with pytest.raises(TypeError, match="input_ids must be integers"):
        generator(torch.zeros(2, 3, dtype=dtype), 0)


def test_hidden_states_of_other_sequences_or_sizes_are_refused(generator):
    input_ids = random_ids(CPU, 2, 4)
    with pytest.raises(ValueError, match=r"hidden_states must be \(B, T, H\)"):
        generator(input_ids, 1, torch.zeros(2, 3, HIDDEN_SIZE))
    with pytest.raises(ValueError, match=f"have size 8, the base model's {HIDDEN_SIZE}"):
        generator(input_ids, 1, torch.zeros(2, 4, 8))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, 1, 1], [1, 1, 1, 0]], "position 3 is padding in some rows"),
        ([[1, 1, 1, 1], [1, 0, 1, 1]], "ones in one piece"),
        ([[1, 1, 1, 1], [0, 0, 0, 0]], "ones in one piece"),
        ([[1, 1, 1], [1, 1, 1]], r"attention_mask must be \(2, 4\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(generator, mask, message):
    with pytest.raises(ValueError, match=message):
        generator(random_ids(CPU, 2, 4), 3, attention_mask=torch.tensor(mask))


def test_a_thought_of_no_tokens_is_refused(generator):
    with pytest.raises(ValueError, match="thought_length must be at least 1, got 0"):
        generator._generate_single(random_ids(CPU, 2, 4), 1, None, thought_length=0)


@pytest.mark.parametrize("missing", ["logits", "last_hidden_state"])
def test_an_output_without_its_parts_is_refused(missing):
    def forward(input_ids):
        parts = {name: torch.zeros(*input_ids.shape, 4) for name in ("logits", "last_hidden_state")}
        return SimpleNamespace(**{name: part for name, part in parts.items() if name != missing})

    with pytest.raises(TypeError, match=r"a callable whose output has \.logits|callable whose"):
        ThoughtGenerator(forward)(random_ids(CPU, 1, 3), 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_give_no_distribution_are_refused(value):
    def forward(input_ids):
        states = torch.zeros(*input_ids.shape, 4)
        return SimpleNamespace(logits=torch.full_like(states, value), last_hidden_state=states)

    with pytest.raises(ValueError, match="from which no token can be drawn"):
        ThoughtGenerator(forward)(random_ids(CPU, 2, 3), 0)


def test_tokens_after_the_position_are_not_seen(generator):
    input_ids = random_ids(CPU, 2, 6)
    changed = input_ids.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % 5
    first, second = (
        generator(ids, 2, generator=torch.Generator().manual_seed(0))
        for ids in (input_ids, changed)
    )
    assert first.thought_ids == second.thought_ids


def test_input_ids_are_left_as_they_were(generator):
    input_ids = random_ids(CPU, 2, 4)
    before = input_ids.clone()
    generator(input_ids, 3)
    assert torch.equal(input_ids, before)


def test_the_base_model_is_referred_to_and_not_owned(generator):
    base_model = generator.base_model
    assert generator.state_dict() == {}
    generator.eval()
    assert base_model.training
    generator.to(torch.float32)
    assert base_model.lm_head.weight.dtype == torch.float64


def test_a_double_is_called_with_input_ids_alone():
    double = Mock(
        spec=nn.Module,
        side_effect=lambda ids: SimpleNamespace(
            logits=torch.zeros(*ids.shape, 5), last_hidden_state=torch.zeros(*ids.shape, 8)
        ),
    )
    ThoughtGenerator(double, 2, max_length=2, min_length=2)(random_ids(CPU, 3, 4), 3)
    assert [call.args[0].shape for call in double.call_args_list] == [(3, 4), (6, 5), (6, 6)]
    assert all(not call.kwargs for call in double.call_args_list)


def test_sampling_stays_on_the_device(generator, monkeypatch):
    """One read of the results at the end, however long the thought."""
    reads: list[str] = []
    # As on an accelerator, where a look at a value waits for it.
    monkeypatch.setattr(sampling, "_may_look", lambda tensor: False)
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, original=original, name=name, **kwargs):
            reads.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    generator(random_ids(CPU, 2, 4), 3)
    assert sorted(reads) == ["__bool__", "__int__", "tolist"]
