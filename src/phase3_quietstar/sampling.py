"""The distribution that thought tokens are drawn from, and the draw.

Nothing here waits for the device: every function maps tensors to tensors.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def check_sampling(temperature: float, top_p: float) -> None:
    """Refuses settings that define no distribution.

    Raises:
        ValueError: ``temperature`` is not positive and finite, or ``top_p`` is not in (0, 1].
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"temperature must be positive and finite, got {temperature}; "
            "do_sample=False takes the most likely token"
        )
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}; 1 keeps the whole vocabulary")


def nucleus_mask(probs: Tensor, top_p: float) -> Tensor:
    """The smallest set of tokens whose probability mass reaches ``top_p`` (arXiv 1904.09751).

    Among equally likely tokens the one of lower index goes first. The most likely token is always
    kept.

    Args:
        probs: ``(..., V)``, rows summing to 1.
        top_p: in (0, 1].

    Returns:
        ``(..., V)`` booleans.
    """
    if top_p >= 1:
        return torch.ones_like(probs, dtype=torch.bool)
    descending, order = probs.sort(dim=-1, descending=True, stable=True)
    # A token is needed as long as those before it have not reached top_p.
    mass_before = F.pad(descending.cumsum(dim=-1)[..., :-1], (1, 0))
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, mass_before < top_p)


def sampling_log_probs(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Log-probabilities of temperature-scaled nucleus sampling, renormalised over the nucleus.

    Differentiable in ``logits``; the choice of the nucleus is taken as given.

    Args:
        logits: ``(..., V)``, any floating dtype; half precision is computed in float32.
        temperature: divides the logits.
        top_p: nucleus mass.

    Returns:
        ``(..., V)`` in float32 (float64 for float64), minus infinity outside the nucleus.
    """
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    nucleus = nucleus_mask(scaled.detach().softmax(dim=-1), top_p)
    return scaled.masked_fill(~nucleus, -math.inf).log_softmax(dim=-1)


def sample_tokens(
    log_probs: Tensor, *, generator: torch.Generator | None = None, do_sample: bool = True
) -> Tensor:
    """Draws one token per row by the Gumbel-max trick, or takes the most likely one.

    ``torch.multinomial`` checks its input on the host; this does not.

    Args:
        log_probs: ``(..., V)``; minus infinity is never drawn.
        generator: source of the noise; on the CPU it gives the same draws for every device.
        do_sample: False takes the most likely token, the first among equals.

    Returns:
        ``(...)`` int64.
    """
    if not do_sample:
        return log_probs.argmax(dim=-1)
    device = log_probs.device if generator is None else generator.device
    noise = torch.empty(log_probs.shape, dtype=log_probs.dtype, device=device)
    noise.exponential_(generator=generator)
    # Zero noise would make a token of probability zero infinitely attractive, or not a number.
    noise.clamp_min_(torch.finfo(noise.dtype).tiny)
    return (log_probs.detach() - noise.log_().to(log_probs.device)).argmax(dim=-1)
