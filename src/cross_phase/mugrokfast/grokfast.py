"""Grokfast: amplify the slow component of the gradients (arXiv 2405.20233)."""

import torch
from torch import Tensor, _foreach_add, _foreach_lerp_

FILTERS = ("ema", "ma")


def grokfast_ema(
    grads: list[Tensor], emas: list[Tensor], *, alpha: float, lamb: float
) -> list[Tensor]:
    r"""Update the moving averages in place and return the filtered gradients.

    Grokfast-EMA, arXiv 2405.20233, algorithm 2:

    .. math:: m_t = \alpha m_{t-1} + (1 - \alpha) g_t, \qquad \hat g_t = g_t + \lambda m_t

    a low-pass amplifier with the frequency response
    :math:`1 + \lambda (1 - \alpha) / (1 - \alpha e^{-i\omega})`. The average starts at the first
    gradient, so that a constant gradient is amplified by :math:`1 + \lambda` from the first step.

    Args:
        grads: Gradients of any shapes; they are not modified.
        emas: The averages :math:`m_{t-1}`, shaped like ``grads``, of their type or of a narrower
            one; at the first step, a copy of the gradients.
        alpha: Decay of the average, in [0, 1).
        lamb: Amplification of the slow component. On the CPU torch rounds it to the type of the
            gradients.

    Returns:
        The filtered gradients, shaped and typed like ``grads``.
    """
    narrowed = [grad.to(ema.dtype) for grad, ema in zip(grads, emas, strict=True)]
    _foreach_lerp_(emas, narrowed, 1 - alpha)
    return list(_foreach_add(grads, emas, alpha=lamb))


def grokfast_ma(
    grads: list[Tensor],
    windows: list[Tensor],
    sums: list[Tensor],
    counts: list[int],
    *,
    lamb: float,
) -> list[Tensor]:
    r"""Put the gradients into their windows in place and return the filtered gradients.

    Grokfast-MA, arXiv 2405.20233, algorithm 1, on the last :math:`w` gradients, the present one
    included:

    .. math:: \hat g_t = g_t + \frac{\lambda}{w} \sum_{i=0}^{w-1} g_{t-i}

    from the step on that fills the window; before it :math:`\hat g_t = g_t`. The sum is kept up by
    differences and taken anew each time the window has gone round, which bounds its rounding error.

    Args:
        grads: Gradients of any shapes; they are not modified.
        windows: The last gradients, each (w, \*shape of the gradient).
        sums: The sums of the windows, shaped like ``grads``; zeros at the first step.
        counts: How many gradients each window has seen before this one.
        lamb: Amplification of the average.

    Returns:
        The filtered gradients, shaped and typed like ``grads``. Where the window is not full yet,
        the gradient itself.
    """
    filtered = []
    for grad, window, total, count in zip(grads, windows, sums, counts, strict=True):
        size = window.size(0)
        slot = window[count % size]
        if count >= size:
            total.sub_(slot)
        slot.copy_(grad)
        if (count + 1) % size:
            total.add_(slot)
        else:
            torch.sum(window, dim=0, out=total)
        full = count + 1 >= size
        filtered.append(torch.add(grad, total, alpha=lamb / size).to(grad.dtype) if full else grad)
    return filtered
