"""calculate_safe_batch_size: the memory model and its bounds."""

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from cross_phase.utils import calculate_safe_batch_size, get_model_size

sizes = st.floats(1, 1e5)
memories = st.floats(0.1, 1e3)


def quiet(*args: Any, **options: Any) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return calculate_safe_batch_size(*args, **options)


def test_more_memory_allows_larger_batches_on_each_common_device() -> None:
    batches = [calculate_safe_batch_size(95.4, memory) for memory in (4.0, 6.0, 16.0, 24.0, 80.0)]

    assert batches == sorted(set(batches))


def test_arguments_go_by_name_too() -> None:
    by_name = calculate_safe_batch_size(model_size_mb=95.4, device_vram_gb=16.0)

    assert by_name == calculate_safe_batch_size(95.4, 16.0)


def test_the_memory_model_is_the_one_stated() -> None:
    hidden, layers, sequence, vocabulary, itemsize = 512, 8, 256, 1000, 2
    params = 12 * layers * hidden**2
    batch = calculate_safe_batch_size(
        params * itemsize / 2**20,
        2.0,
        sequence_length=sequence,
        hidden_size=hidden,
        vocab_size=vocabulary,
        dtype=torch.bfloat16,
        optimizer="adamw",
    )

    fixed = params * itemsize * (1 + 1 + 2)  # weights, gradients, two moments
    per_sample = sequence * (34 * layers * hidden + 3 * vocabulary * itemsize)
    assert fixed + batch * per_sample <= 0.9 * 2 * 2**30 < fixed + (batch + 1) * per_sample


def test_without_a_hidden_size_gpt2_small_is_taken_for_12_layers_of_768() -> None:
    size_mb = 12 * 12 * 768**2 * 4 / 2**20

    assert calculate_safe_batch_size(size_mb, 24.0) == calculate_safe_batch_size(
        size_mb, 24.0, hidden_size=768
    )


def test_a_model_stands_for_its_size_dtype_and_configuration() -> None:
    config = GPT2Config(vocab_size=500, n_positions=16, n_embd=64, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config).to(torch.bfloat16)

    assert calculate_safe_batch_size(model, 1.0) == calculate_safe_batch_size(
        get_model_size(model)["size_mb"],
        1.0,
        hidden_size=64,
        vocab_size=500,
        dtype=torch.bfloat16,
    )
    assert calculate_safe_batch_size(model, 1.0, hidden_size=32) < calculate_safe_batch_size(
        model, 1.0
    )


def test_optimizers_with_more_state_leave_less_room() -> None:
    optimizers = ["none", "sgd", "muon", "adamw", "muon_grokfast"]
    batches = [calculate_safe_batch_size(1000, 8.0, optimizer=name) for name in optimizers]

    assert batches == sorted(set(batches), reverse=True)


def test_a_model_that_does_not_fit_gives_one_and_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match=r"needs about .* GiB, and the device has 4\.0 GiB"):
        assert calculate_safe_batch_size(50_000, 4.0) == 1


@settings(max_examples=100, deadline=None)
@given(size=sizes, memory=memories, growth=st.floats(1, 100))
def test_batches_grow_with_memory_and_shrink_with_the_model(
    size: float, memory: float, growth: float
) -> None:
    batch = quiet(size, memory)

    assert isinstance(batch, int)
    assert quiet(size * growth, memory) <= batch <= quiet(size, memory * growth)
    assert batch >= 1


@settings(max_examples=50, deadline=None)
@given(size=sizes, memory=memories, length=st.integers(1, 4096), more=st.integers(1, 4096))
def test_longer_sequences_never_allow_larger_batches(
    size: float, memory: float, length: int, more: int
) -> None:
    shorter = quiet(size, memory, sequence_length=length)

    assert quiet(size, memory, sequence_length=length + more) <= shorter


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_sizes_that_are_not_positive_and_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="model_size_mb"):
        calculate_safe_batch_size(bad, 4.0)
    with pytest.raises(ValueError, match="device_vram_gb"):
        calculate_safe_batch_size(95.4, bad)
    with pytest.raises(ValueError, match="hidden_size"):
        calculate_safe_batch_size(95.4, 4.0, hidden_size=bad)  # type: ignore[arg-type]


def test_wrong_types_and_unknown_optimizers_are_refused() -> None:
    with pytest.raises(TypeError, match="model_size_mb must be a number, got str"):
        calculate_safe_batch_size("95.4", 4.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch\.int8"):
        calculate_safe_batch_size(95.4, 4.0, dtype=torch.int8)
    with pytest.raises(ValueError, match="muon_grokfast"):
        calculate_safe_batch_size(95.4, 4.0, optimizer="adam2")
    with pytest.raises(ValueError, match="model_size_mb"):
        calculate_safe_batch_size(nn.ReLU(), 4.0)
