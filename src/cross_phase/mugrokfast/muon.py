"""Muon: momentum, orthogonalised by a Newton-Schulz iteration."""

import math
from collections.abc import Callable

import torch
from torch import (
    Tensor,
    _foreach_add_,
    _foreach_lerp,
    _foreach_lerp_,
    _foreach_mul,
    _foreach_mul_,
)

ADJUST_LR_FNS = ("original", "match_rms_adamw")

# torch rounds the factor of a _foreach_mul_ to the type of the tensors first; in these types that
# is what mul_ does, too.
_EXACT_FOREACH = (torch.float32, torch.float64)


def muon(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffers: list[Tensor],
    *,
    orthogonalize: Callable[[list[Tensor]], list[Tensor]],
    shapes: list[torch.Size],
    lr: float | Tensor,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    adjust_lr_fn: str,
) -> None:
    r"""Update ``params`` and ``momentum_buffers`` in place by one step of Muon.

    Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/), in the form and order of
    operations of :class:`torch.optim.Muon`:

    .. math::
        B_t &= \mu B_{t-1} + (1 - \mu) g_t \\
        U_t &= (1 - \mu) g_t + \mu B_t \text{ with Nesterov momentum, else } B_t \\
        W_t &= (1 - \eta \lambda) W_{t-1} - \eta\, s(W)\, \mathrm{NewtonSchulz}(U_t)

    where :math:`s` is :func:`lr_ratio`. A tensor of more than two dimensions, such as the weight of
    a convolution, is taken as the matrix of its first dimension by all others.

    Args:
        params: Floating-point tensors of at least 2 dimensions, or this process's shards of them.
        grads: Their gradients, of the same shapes and types; they are not modified.
        momentum_buffers: :math:`B_{t-1}`, of the same shapes, of the type of the gradients or of a
            narrower one; zeros at the first step.
        orthogonalize: Takes the updates :math:`U_t`, shaped like ``params``, and returns what is to
            be subtracted, shaped likewise.
        shapes: The shapes of the whole parameters.
        lr: Learning rate :math:`\eta`, a number or a tensor of no dimensions.
        weight_decay: Decoupled weight decay :math:`\lambda`.
        momentum: :math:`\mu`, in [0, 1).
        nesterov: Whether to use Nesterov momentum.
        adjust_lr_fn: ``"original"`` or ``"match_rms_adamw"``.
    """
    narrowed = [g.to(buffer.dtype) for g, buffer in zip(grads, momentum_buffers, strict=True)]
    _foreach_lerp_(momentum_buffers, narrowed, 1 - momentum)
    updates = momentum_buffers
    if nesterov:
        updates = list(_foreach_lerp(narrowed, momentum_buffers, momentum))
    alike: dict[tuple[torch.device, torch.dtype, float], list[tuple[Tensor, Tensor]]] = {}
    for param, update, shape in zip(params, orthogonalize(updates), shapes, strict=True):
        ratio = lr_ratio(matrix_shape(shape), adjust_lr_fn)
        alike.setdefault((param.device, param.dtype, ratio), []).append((param, update))
    for (_, _, ratio), pairs in alike.items():
        _apply([p for p, _ in pairs], [u for _, u in pairs], lr, ratio, weight_decay)


def _apply(
    params: list[Tensor], updates: list[Tensor], lr: float | Tensor, ratio: float, decay: float
) -> None:
    """Shrink and move parameters of one device, type and ratio."""
    if isinstance(lr, Tensor):
        lr = lr.to(params[0].device, non_blocking=True)
        if decay:
            _foreach_mul_(params, 1 - lr * decay)
        typed = [u.to(p.dtype) for p, u in zip(params, updates, strict=True)]
        _foreach_add_(params, _foreach_mul(typed, -lr * ratio))
        return
    if decay and params[0].dtype in _EXACT_FOREACH:
        _foreach_mul_(params, 1 - lr * decay)
    elif decay:
        for param in params:
            param.mul_(1 - lr * decay)
    _foreach_add_(params, updates, alpha=-lr * ratio)


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """Return the shape (m, n) of the matrix that a parameter is taken as."""
    return shape[0], shape[1:].numel()


def lr_ratio(shape: tuple[int, int], adjust_lr_fn: str) -> float:
    r"""Return the factor by which a matrix's shape changes its learning rate.

    ``"original"`` is :math:`\sqrt{\max(1, m / n)}` (Keller Jordan), ``"match_rms_adamw"`` is
    :math:`0.2 \sqrt{\max(m, n)}`, which gives updates the size that AdamW's have (Moonshot,
    arXiv 2502.16982, section 2.2).

    Args:
        shape: (m, n).
        adjust_lr_fn: One of the two names.

    Raises:
        ValueError: The name is neither.
    """
    rows, columns = shape
    if adjust_lr_fn == "original":
        return math.sqrt(max(1, rows / columns))
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    raise ValueError(
        f"adjust_lr_fn must be one of {', '.join(ADJUST_LR_FNS)}, got {adjust_lr_fn!r}"
    )
