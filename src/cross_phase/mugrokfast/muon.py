"""Muon: momentum, orthogonalised by a Newton-Schulz iteration."""

import math

import torch
from torch import Tensor, _foreach_lerp, _foreach_lerp_

from .newton_schulz import orthogonalize

ADJUST_LR_FNS = ("original", "match_rms_adamw")


def muon(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffers: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    ns_steps: int,
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
        params: Floating-point tensors of at least 2 dimensions.
        grads: Their gradients, of the same shapes and types; they are not modified.
        momentum_buffers: :math:`B_{t-1}`, of the same shapes and types; zeros at the first step.
        lr: Learning rate :math:`\eta`.
        weight_decay: Decoupled weight decay :math:`\lambda`.
        momentum: :math:`\mu`, in [0, 1).
        nesterov: Whether to use Nesterov momentum.
        ns_steps: Number of Newton-Schulz iterations.
        adjust_lr_fn: ``"original"`` or ``"match_rms_adamw"``.
    """
    _foreach_lerp_(momentum_buffers, grads, 1 - momentum)
    updates = _foreach_lerp(grads, momentum_buffers, momentum) if nesterov else momentum_buffers
    matrices = [update.flatten(1) for update in updates]
    for param, matrix in zip(params, orthogonalize(matrices, steps=ns_steps), strict=True):
        ratio = lr_ratio(matrix.shape, adjust_lr_fn)
        # Not _foreach_mul_, which rounds the factor to the parameter's type first.
        param.mul_(1 - lr * weight_decay)
        param.add_(matrix.reshape(param.shape), alpha=-lr * ratio)


def lr_ratio(shape: torch.Size, adjust_lr_fn: str) -> float:
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
