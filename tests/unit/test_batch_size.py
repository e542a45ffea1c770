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

from cross_phase.utils import (
    calculate_safe_batch_size,
    get_model_size,
    measure_safe_batch_size,
)
from cross_phase.utils.batch_size import largest_batch

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
    logits = vocabulary * (3 * 4 + itemsize)
    per_sample = sequence * (34 * layers * hidden * itemsize + logits)
    assert fixed + batch * per_sample <= 0.9 * 2 * 2**30 < fixed + (batch + 1) * per_sample


def test_without_a_hidden_size_gpt2_small_is_taken_for_12_layers_of_768() -> None:
    size_mb = 12 * 12 * 768**2 * 4 / 2**20

    assert calculate_safe_batch_size(size_mb, 24.0) == calculate_safe_batch_size(
        size_mb, 24.0, hidden_size=768
    )


def test_a_model_stands_for_its_size_dtype_and_configuration() -> None:
    config = GPT2Config(vocab_size=500, n_positions=16, n_embd=64, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config).to(torch.bfloat16)
    size_bytes = get_model_size(model)["size_mb"] * 2**20

    batch = calculate_safe_batch_size(model, 1.0)

    per_sample = 512 * (34 * 2 * 64 * 2 + 500 * (3 * 4 + 2))
    assert batch == int((0.9 * 2**30 - 4 * size_bytes) / per_sample)
    assert calculate_safe_batch_size(model, 1.0, vocab_size=5000) < batch


def test_attention_that_keeps_its_scores_leaves_less_room() -> None:
    fused = calculate_safe_batch_size(100, 8.0, sequence_length=2048)

    assert calculate_safe_batch_size(100, 8.0, sequence_length=2048, fused_attention=False) < fused


def test_optimizers_with_more_state_leave_less_room() -> None:
    optimizers = ["none", "sgd", "muon", "adamw", "muon_grokfast"]
    batches = [
        calculate_safe_batch_size(1000, 8.0, sequence_length=4, optimizer=name)
        for name in optimizers
    ]

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


@settings(max_examples=100, deadline=None)
@given(
    fixed=st.integers(1, 10**6),
    per_sample=st.integers(1, 10**4),
    curve=st.floats(0, 0.01),
    available=st.integers(1, 10**8),
    limit=st.integers(1, 5000),
)
def test_the_measured_batch_fits_and_hardly_more_would(
    fixed: int, per_sample: int, curve: float, available: int, limit: int
) -> None:
    tried: list[int] = []

    def peak(batch: int) -> int | None:
        tried.append(batch)
        assert 1 <= batch <= limit
        used = int(fixed + per_sample * batch * (1 + curve * batch))
        return None if used > 2 * available else used

    batch = largest_batch(peak, available, limit)

    def fits(size: int) -> bool:
        return fixed + per_sample * size * (1 + curve * size) <= available + 1

    assert batch in tried
    assert batch == 1 or fits(batch)
    assert batch + max(1, batch // 16) >= limit or not fits(batch + max(1, batch // 16) + 1)
    assert len(tried) == len(set(tried)) <= 40


def test_measuring_needs_a_cuda_device() -> None:
    with pytest.raises(ValueError, match="calculate_safe_batch_size"):
        measure_safe_batch_size(lambda batch: None, "cpu")
    with pytest.raises(ValueError, match="max_batch_size"):
        measure_safe_batch_size(lambda batch: None, max_batch_size=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_measuring_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="calculate_safe_batch_size"):
        measure_safe_batch_size(lambda batch: None)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_the_batch_measured_on_cuda_trains_within_the_memory() -> None:
    config = GPT2Config(vocab_size=500, n_positions=64, n_embd=64, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config).cuda()
    optimizer = torch.optim.AdamW(model.parameters())

    def step(batch: int) -> None:
        tokens = torch.zeros(batch, 64, dtype=torch.int64, device="cuda")
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    batch = measure_safe_batch_size(step, max_batch_size=512)

    torch.cuda.reset_peak_memory_stats()
    step(batch)
    assert batch > 1
    assert torch.cuda.max_memory_allocated() < torch.cuda.mem_get_info()[1]
