"""Grokfast: amplify the slow component of the gradients (arXiv 2405.20233)."""

from torch import Tensor, _foreach_add, _foreach_lerp_


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
        emas: The averages :math:`m_{t-1}`, shaped and typed like ``grads``; at the first step, a
            copy of the gradients.
        alpha: Decay of the average, in [0, 1).
        lamb: Amplification of the slow component. On the CPU torch rounds it to the type of the
            gradients.

    Returns:
        The filtered gradients, shaped and typed like ``grads``.
    """
    _foreach_lerp_(emas, grads, 1 - alpha)
    return list(_foreach_add(grads, emas, alpha=lamb))
