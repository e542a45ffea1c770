"""A batch size that fits into the device's memory, from a stated memory model.

The memory of one training step of a decoder-only transformer is taken to be::

    fixed      = weights + gradients + optimizer state
    per sample = sequence_length * (activations + logits)          (per token)
    activations = 34 * layers * hidden_size * itemsize / 2         bytes
    logits      = 3 * vocab_size * itemsize                        bytes

The activations are equation 2 of Korthikanti et al. 2022, "Reducing Activation Recomputation
in Large Transformer Models" (arXiv 2205.05198), without its ``5 * a * s / h`` term, because
fused attention does not keep the score matrix; it is stated there for 16-bit activations. The
logits are kept with their log-softmax and their gradient. Layers follow from the parameters,
``params = 12 * layers * hidden_size**2``; where the hidden size is not known either, from the
usual shape ``hidden_size = 64 * layers`` (GPT-2 small: 12 layers, 768 wide).

It is an estimate, to start from: attention without a fused kernel, long sequences and other
architectures take more.
"""

import math
import warnings

import torch
from torch import nn

from .model_size import MEBIBYTE, get_model_size

GIBIBYTE = 2**30

# Share of the device's memory that is planned with; the rest is for the CUDA context and for
# what the allocator loses to fragmentation.
USABLE_MEMORY = 0.9

DEFAULT_VOCAB_SIZE = 32_768
WIDTH_PER_LAYER = 64

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
) -> int:
    """Estimate the largest batch that trains within the device's memory.

    The memory model is stated at the top of this module. It plans with 90% of the memory.

    Args:
        model_size_mb: The size of the weights in MiB, or the model itself: then parameters and
            dtype are its own, and the hidden and vocabulary sizes come from its ``config``
            where it has one.
        device_vram_gb: The device's memory in GiB.
        sequence_length: Tokens in one sample.
        hidden_size: Width of the residual stream; estimated from the parameters by default.
        vocab_size: Size of the logits' last dimension; 32768 by default.
        dtype: Floating dtype of weights and activations; the model's own, or float32.
        optimizer: One of ``"none"`` (inference), ``"sgd"``, ``"sgd_momentum"``, ``"muon"``,
            ``"adam"``, ``"adamw"``, ``"muon_grokfast"``.

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
    if isinstance(model_size_mb, nn.Module):
        model = model_size_mb
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
    layers_times_width = params / (12 * width)

    fixed = weight_bytes * (1 + EXTRA_WEIGHT_COPIES[optimizer])
    activations = 34 * layers_times_width * dtype.itemsize / 2
    logits = 3 * vocab_size * dtype.itemsize
    per_sample = sequence_length * (activations + logits)

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
