"""How large a model is, in parameters and in memory."""

from typing import Literal, TypedDict

from torch import nn
from torch.nn.parameter import is_lazy

MEBIBYTE = 2**20

SizeCategory = Literal["tiny", "small", "medium", "large"]

# Upper bounds (exclusive) in parameters; at and above the last one a model is "large".
CATEGORY_BOUNDS: tuple[tuple[int, SizeCategory], ...] = (
    (50_000_000, "tiny"),
    (500_000_000, "small"),
    (2_000_000_000, "medium"),
)


class ModelSize(TypedDict):
    """What :func:`get_model_size` returns."""

    params: int
    size_mb: float
    size_category: SizeCategory


def size_category(params: int) -> SizeCategory:
    """Name the size class of a parameter count: tiny < 50 M <= small < 500 M <= medium < 2 B."""
    for bound, category in CATEGORY_BOUNDS:
        if params < bound:
            return category
    return "large"


def get_model_size(model: nn.Module) -> ModelSize:
    """Count a model's parameters and the memory that they take.

    Every parameter counts once, however many modules share it, and with the bytes of its own
    dtype. Buffers and gradients are not counted. Works on any device, ``meta`` included.

    Args:
        model: The model.

    Returns:
        ``params`` (number of elements), ``size_mb`` (MiB, 2**20 bytes) and ``size_category``
        (``"tiny"`` below 50 M parameters, ``"small"`` below 500 M, ``"medium"`` below 2 B,
        else ``"large"``).

    Raises:
        TypeError: ``model`` is not an ``nn.Module``.
        ValueError: A parameter of a lazy module has no shape yet.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    params = 0
    size_bytes = 0
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(
                f"parameter {name!r} is not initialized, so it has no size yet: "
                "run one forward pass first"
            )
        params += parameter.numel()
        size_bytes += parameter.numel() * parameter.element_size()
    return {
        "params": params,
        "size_mb": size_bytes / MEBIBYTE,
        "size_category": size_category(params),
    }
