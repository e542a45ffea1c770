"""Shannon entropy on a scale that does not depend on the number of outcomes."""

import math

import torch
from torch import Tensor


def normalized_entropy(log_probs: Tensor) -> Tensor:
    """``-sum(p log p) / log(n)``: 0 for a certain outcome, 1 for a uniform distribution.

    A single outcome is certain: 0. Gradients stay finite where a probability is 0.

    Args:
        log_probs: ``(..., n)``, log-probabilities; minus infinity is probability 0.

    Returns:
        ``(...)`` in [0, 1], in the dtype of ``log_probs``.
    """
    # Finite, so that 0 * log(0) and its gradient are 0 and not NaN.
    finite = log_probs.clamp_min(torch.finfo(log_probs.dtype).min)
    entropy: Tensor = -(log_probs.exp() * finite).sum(dim=-1)
    outcomes = log_probs.shape[-1]
    return (entropy / math.log(outcomes)).clamp(0, 1) if outcomes > 1 else entropy


def predictive_entropy(logits: Tensor) -> Tensor:
    """Normalised entropy of ``softmax(logits)``.

    Args:
        logits: ``(..., V)``; half precision is computed in float32.

    Returns:
        ``(...)`` in [0, 1], float32 (float64 for float64).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return normalized_entropy(logits.to(dtype).log_softmax(dim=-1))
