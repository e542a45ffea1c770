"""A batch size that fits into the device's memory, from a stated memory model, or measured.

The memory of one training step of a decoder-only transformer is taken to be::

    fixed       = weights + gradients + optimizer state
    per sample  = sequence_length * (layers * (activations + scores) + logits)   (per token)
    activations = 34 * hidden_size * itemsize                              bytes
    scores      = 3 * heads * sequence_length * max(itemsize, 4)           bytes, unfused only
    logits      = vocab_size * (3 * max(itemsize, 4) + narrow)             bytes

Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models" (arXiv
2205.05198), equation 2, count 17 activations per token, layer and unit of width (34 bytes of 16
bits) for fused kernels. Models as they are commonly written keep more, for GELU, dropout and
copies of transposed tensors: with GPT-2 of Transformers 28 were measured. So twice the paper's
number is planned with. The scores of attention are kept, with their softmax and its dropout,
where attention is not fused. The logits are kept with their log-softmax and its gradient, all
three at least float32, and the narrow original where the model's dtype is narrower.

Layers follow from the parameters, ``params = 12 * layers * hidden_size**2``; where the hidden
size is not known either, from the usual shape ``hidden_size = 64 * layers`` (GPT-2 small: 12
layers, 768 wide). A head is taken to be 64 wide.

It is an estimate, to start from. Where the device is at hand, :func:`measure_safe_batch_size`
measures instead.
"""

import math
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn

from .model_size import MEBIBYTE, get_model_size

GIBIBYTE = 2**30

# Share of the device's memory that is planned with; the rest is for the CUDA context and for
# what the allocator loses to fragmentation.
USABLE_MEMORY = 0.9

DEFAULT_VOCAB_SIZE = 32_768
WIDTH_PER_LAYER = 64
HEAD_WIDTH = 64
ACTIVATIONS = 34

# Copies of the weights held besides the weights: gradients and optimizer state.
EXTRA_WEIGHT_COPIES = {
    "none": 0,  # inference
    "sgd": 1,
    "sgd_momentum": 2,
    "muon": 2,
    "adam": 3,
    "adamw": 3,
    "muon_grokfast": 4,
}


def calculate_safe_batch_size(
    model_size_mb: float | nn.Module,
    device_vram_gb: float,
    *,
    sequence_length: int = 512,
    hidden_size: int | None = None,
    vocab_size: int | None = None,
    dtype: torch.dtype | None = None,
    optimizer: str = "adamw",
    fused_attention: bool = True,
) -> int:
    """Estimate the largest batch that trains within the device's memory.

    The memory model is stated at the top of this module. It plans with 90% of the memory.

    Args:
        model_size_mb: The size of the weights in MiB, or the model itself: then parameters and
            dtype are its own, and layers, hidden and vocabulary sizes come from its ``config``
            where it has one.
        device_vram_gb: The device's memory in GiB.
        sequence_length: Tokens in one sample.
        hidden_size: Width of the residual stream; estimated from the parameters by default.
        vocab_size: Size of the logits' last dimension; 32768 by default.
        dtype: Floating dtype of weights and activations; the model's own, or float32.
        optimizer: One of ``"none"`` (inference), ``"sgd"``, ``"sgd_momentum"``, ``"muon"``,
            ``"adam"``, ``"adamw"``, ``"muon_grokfast"``.
        fused_attention: Whether attention keeps no score matrix, as
            ``scaled_dot_product_attention`` does on CUDA, and on the CPU without dropout.

    Returns:
        The number of samples, at least 1. Where even one does not fit by the estimate, that is
        said in a ``RuntimeWarning``.

    Raises:
        TypeError: A size is not a number or a model, or ``dtype`` is not a floating dtype.
        ValueError: A size is not positive and finite, or ``optimizer`` is not known.
    """
    if optimizer not in EXTRA_WEIGHT_COPIES:
        known = ", ".join(EXTRA_WEIGHT_COPIES)
        raise ValueError(f"unknown optimizer {optimizer!r}: use one of {known}")
    layers = None
    if isinstance(model_size_mb, nn.Module):
        model = model_size_mb
        layers = _config_size(model, "num_hidden_layers")
        size_mb = get_model_size(model)["size_mb"]
        hidden_size = hidden_size or _config_size(model, "hidden_size")
        vocab_size = vocab_size or _config_size(model, "vocab_size")
        dtype = dtype or _floating_dtype(model)
    else:
        size_mb = model_size_mb
    dtype = dtype or torch.float32
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {dtype!r}")
    vocab_size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size

    _check_positive("model_size_mb", size_mb)
    _check_positive("device_vram_gb", device_vram_gb)
    _check_positive("sequence_length", sequence_length)
    _check_positive("vocab_size", vocab_size)

    weight_bytes = size_mb * MEBIBYTE
    params = weight_bytes / dtype.itemsize
    if hidden_size is None:
        # params = 12 * layers * hidden**2 and hidden = 64 * layers, solved for hidden.
        width = math.pow(params * WIDTH_PER_LAYER / 12, 1 / 3)
    else:
        _check_positive("hidden_size", hidden_size)
        width = float(hidden_size)
    layers_times_width = params / (12 * width) if layers is None else layers * width

    fixed = weight_bytes * (1 + EXTRA_WEIGHT_COPIES[optimizer])
    wide = max(dtype.itemsize, 4)
    activations = ACTIVATIONS * layers_times_width * dtype.itemsize
    # layers * heads, with heads = width / HEAD_WIDTH
    scores = 3 * layers_times_width / HEAD_WIDTH * sequence_length * wide
    logits = vocab_size * (3 * wide + (dtype.itemsize if dtype.itemsize < wide else 0))
    per_sample = sequence_length * (activations + logits + (0.0 if fused_attention else scores))

    available = device_vram_gb * GIBIBYTE * USABLE_MEMORY - fixed
    batch_size = math.floor(available / per_sample)
    if batch_size < 1:
        needed = (fixed + per_sample) / GIBIBYTE / USABLE_MEMORY
        warnings.warn(
            f"a batch of one sample needs about {needed:.1f} GiB, and the device has "
            f"{device_vram_gb:.1f} GiB: shorten the sequences, checkpoint activations, or "
            "choose an optimizer with less state",
            RuntimeWarning,
            stacklevel=2,
        )
        return 1
    return batch_size


def measure_safe_batch_size(
    training_step: Callable[[int], object],
    device: str | torch.device = "cuda",
    *,
    max_batch_size: int = 65_536,
) -> int:
    """Measure the largest batch that trains within a CUDA device's memory.

    Steps of 1, 2 and 4 samples show what a sample takes; larger steps, each predicted from those
    before, are then tried until the next would not fit. It plans with 90% of the memory that
    this process can have.

    Args:
        training_step: Runs one whole training step (forward, backward and optimizer step) with
            a batch of the given number of samples, of the greatest length that will occur.
        device: The CUDA device.
        max_batch_size: The largest batch to try.

    Returns:
        The number of samples.

    Raises:
        ValueError: ``device`` is not a CUDA device, or ``max_batch_size`` is below 1.
        RuntimeError: There is no CUDA device.
        torch.cuda.OutOfMemoryError: Not even one sample fits.
    """
    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(
            f"memory is measured on CUDA devices, not on {device.type}: use "
            "calculate_safe_batch_size"
        )
    if max_batch_size < 1:
        raise ValueError(f"max_batch_size must be at least 1, got {max_batch_size}")
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device: use calculate_safe_batch_size")
    free, _ = torch.cuda.mem_get_info(device)
    available = int(USABLE_MEMORY * (free + torch.cuda.memory_reserved(device)))

    def peak_bytes(batch_size: int) -> int | None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            training_step(batch_size)
            torch.cuda.synchronize(device)
        except torch.cuda.OutOfMemoryError:
            if batch_size == 1:
                raise
            return None
        return torch.cuda.max_memory_reserved(device)

    return largest_batch(peak_bytes, available, max_batch_size)


def largest_batch(
    peak_bytes: Callable[[int], int | None], available: int, max_batch_size: int
) -> int:
    """Find the largest batch whose peak is within the available memory.

    Args:
        peak_bytes: The peak memory of a step with a batch of this size; None where it failed
            for lack of memory. It grows with the batch.
        available: In bytes.
        max_batch_size: The largest batch to try.

    Returns:
        The largest batch that was tried and fits, at least 1; the next larger one does not fit,
        or is more than 1/16 larger.
    """
    fits, too_large = 1, max_batch_size + 1
    peaks = {1: peak_bytes(1) or 0}
    batch_size = 2
    while batch_size < too_large and too_large - fits > max(1, fits // 16):
        peak = peak_bytes(batch_size)
        if peak is None or peak > available:
            too_large = batch_size
        else:
            fits = batch_size
            peaks[batch_size] = peak
        batch_size = _next_batch(peaks, fits, too_large, available)
    return fits


def _next_batch(peaks: Mapping[int, int], fits: int, too_large: int, available: int) -> int:
    """Predict the largest batch from the two largest that fit; never outside what is open."""
    if fits < 4 < too_large:
        return 2 * fits
    before, last = sorted(peaks)[-2:] if len(peaks) > 1 else (0, 1)
    slope = (peaks[last] - peaks.get(before, 0)) / (last - before)
    predicted = last + int((available - peaks[last]) / slope) if slope > 0 else 2 * fits
    middle = (fits + too_large) // 2
    # A prediction that is no news would be tried for ever: then halve what is open.
    return predicted if fits < predicted < too_large else min(max(middle, fits + 1), 4 * fits)


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")


def _config_size(model: nn.Module, name: str) -> int | None:
    """Read a size from a Hugging Face configuration, where the model carries one."""
    value = getattr(getattr(model, "config", None), name, None)
    return value if isinstance(value, int) else None


def _floating_dtype(model: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in model.parameters() if p.dtype.is_floating_point), None)
