"""The distribution that thought tokens are drawn from, and the draw.

On accelerators nothing here waits for the device: every function maps tensors to tensors.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Nuclei of language models are mostly smaller; larger ones are found by bisection.
PREFILTER_SIZE = 256
# Rows that are worked on together on a CPU.
CPU_ROWS = 8


@dataclass(frozen=True)
class SamplingSettings:
    """How a distribution over tokens is made from logits: temperature, then top-k, then top-p.

    Attributes:
        temperature: divides the logits.
        top_p: nucleus mass, in (0, 1].
        top_k: the most tokens that are kept; None keeps all.
        do_sample: False takes the most likely token.

    Raises:
        ValueError: the settings define no distribution.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    do_sample: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"temperature must be positive and finite, got {self.temperature}; "
                "do_sample=False takes the most likely token"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p must be in (0, 1], got {self.top_p}; 1 keeps the whole vocabulary"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k must be at least 1, got {self.top_k}; None keeps the whole vocabulary"
            )


def nucleus_mask(probs: Tensor, top_p: float) -> Tensor:
    """The smallest set of tokens whose probability mass reaches ``top_p`` (arXiv 1904.09751).

    Among equally likely tokens the one of lower index goes first. The most likely token is always
    kept. On the CPU the vocabulary is not sorted: the probability of the nucleus' last token is
    found among the largest few, or else by bisection, exactly up to the rounding of sums.

    Args:
        probs: ``(..., V)``, rows summing to 1.
        top_p: in (0, 1].

    Returns:
        ``(..., V)`` booleans.
    """
    if top_p >= 1:
        return torch.ones_like(probs, dtype=torch.bool)
    rows = probs.reshape(-1, probs.shape[-1])
    if _may_look(probs):
        smallest, count = _nucleus_by_selection(rows, top_p)
    else:
        descending = rows.sort(dim=-1, descending=True).values
        smallest, count = _last_of_nucleus(descending, top_p)
    return _keep_largest(rows, smallest, count).view(probs.shape)


def top_k_mask(values: Tensor, top_k: int) -> Tensor:
    """The ``top_k`` largest of each row ``(..., V)``; among equals those of lower index."""
    if top_k >= values.shape[-1]:
        return torch.ones_like(values, dtype=torch.bool)
    smallest = values.topk(top_k, dim=-1).values[..., -1:]
    return _keep_largest(values, smallest, torch.full_like(smallest, top_k, dtype=torch.long))


def filtered_logits(
    logits: Tensor, settings: SamplingSettings, kept: Tensor | None = None
) -> Tensor:
    """Scaled logits, minus infinity for tokens that are not to be drawn.

    Differentiable in ``logits``; the choice of tokens is taken as given.

    Args:
        logits: ``(..., V)``, any floating dtype; half precision is computed in float32.
        settings: temperature, top-k and top-p.
        kept: ``(..., n)`` indices of tokens that are to be kept in any case.

    Returns:
        ``(..., V)`` in float32 (float64 for float64).
    """
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / settings.temperature
    mask: Tensor | None = None
    if settings.top_k is not None:
        mask = top_k_mask(scaled.detach(), settings.top_k)
    if settings.top_p < 1:
        candidates = scaled.detach()
        if mask is not None:
            candidates = candidates.masked_fill(~mask, -math.inf)
        nucleus = nucleus_mask(candidates.softmax(dim=-1), settings.top_p)
        mask = nucleus if mask is None else mask & nucleus
    if mask is None:
        return scaled
    if kept is not None:
        mask = mask.scatter(-1, kept, value=True)
    return scaled.masked_fill(~mask, -math.inf)


def sampling_log_probs(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Log-probabilities ``(..., V)`` that tokens are drawn with; see ``filtered_logits``."""
    return filtered_logits(logits, settings).log_softmax(dim=-1)


def token_log_probs(logits: Tensor, token_ids: Tensor, settings: SamplingSettings) -> Tensor:
    """Log-probabilities of tokens that were drawn earlier, differentiable in ``logits``.

    A drawn token is kept even where the rounding of recomputed logits would put it just outside
    the nucleus: it was inside, and a probability of 0 would be wrong by far more.

    Args:
        logits: ``(..., V)``.
        token_ids: ``(...)`` int64.
        settings: those of the draw.

    Returns:
        ``(...)`` in float32 (float64 for float64).
    """
    index = token_ids.unsqueeze(-1)
    filtered = filtered_logits(logits, settings, kept=index)
    return filtered.log_softmax(dim=-1).gather(-1, index).squeeze(-1)


def sample_tokens(
    logits: Tensor, uniforms: Tensor | None, settings: SamplingSettings
) -> tuple[Tensor, Tensor]:
    """Draws one token per row by inverting the cumulative distribution, or takes the likeliest.

    Args:
        logits: ``(R, V)``; minus infinity is never drawn.
        uniforms: ``(R,)`` in [0, 1); None where ``settings.do_sample`` is False.
        settings: the distribution.

    Returns:
        The tokens ``(R,)`` int64, and their log-probabilities ``(R,)``, differentiable in
        ``logits``.
    """
    if not _may_look(logits) or logits.shape[0] <= CPU_ROWS:
        return _sample_rows(logits, uniforms, settings)
    # A few rows at a time stay in the CPU's cache through all that is done with them.
    chunks = torch.split(logits, CPU_ROWS)
    parts: Iterable[Tensor | None] = (
        [None] * len(chunks) if uniforms is None else torch.split(uniforms, CPU_ROWS)
    )
    sampled = [_sample_rows(*chunk, settings) for chunk in zip(chunks, parts, strict=True)]
    token_ids, log_probs = zip(*sampled, strict=True)
    return torch.cat(token_ids), torch.cat(log_probs)


def _sample_rows(
    logits: Tensor, uniforms: Tensor | None, settings: SamplingSettings
) -> tuple[Tensor, Tensor]:
    filtered = filtered_logits(logits, settings)
    if not settings.do_sample or uniforms is None:
        index = filtered.detach().argmax(dim=-1, keepdim=True)
    else:
        probs = filtered.detach().softmax(dim=-1)
        cumulative = probs.cumsum(dim=-1)
        target = uniforms.to(probs.dtype).unsqueeze(-1) * cumulative[..., -1:]
        index = torch.searchsorted(cumulative, target, right=True)
        index = index.clamp_max(probs.shape[-1] - 1)
        # Rounding may end the search on a token that cannot be drawn.
        possible = probs.gather(-1, index) > 0
        if not (_may_look(logits) and bool(possible.all())):
            index = torch.where(possible, index, probs.argmax(dim=-1, keepdim=True))
    return index.squeeze(-1), filtered.log_softmax(dim=-1).gather(-1, index).squeeze(-1)


def _may_look(tensor: Tensor) -> bool:
    """Whether a look at the values costs nothing: on the CPU, outside ``torch.compile``."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _last_of_nucleus(descending: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The smallest probability in the nucleus and the nucleus' size, each ``(R, 1)``."""
    mass_before = F.pad(descending.cumsum(dim=-1)[..., :-1], (1, 0))
    count = (mass_before < top_p).sum(dim=-1, keepdim=True)
    return descending.gather(-1, count - 1), count


def _nucleus_by_selection(probs: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """As ``_last_of_nucleus``, from unsorted rows ``(R, V)``."""
    largest = probs.topk(min(PREFILTER_SIZE, probs.shape[-1]), dim=-1).values
    smallest, count = _last_of_nucleus(largest, top_p)
    if largest.shape[-1] < probs.shape[-1]:
        reached = largest.sum(dim=-1) >= top_p
        for row in (~reached).nonzero().flatten().tolist():
            smallest[row], count[row] = _nucleus_by_bisection(probs[row], top_p)
    return smallest, count


def _nucleus_by_bisection(probs: Tensor, top_p: float) -> tuple[float, int]:
    """As ``_last_of_nucleus``, for one row ``(V,)``.

    The mass above a threshold falls in steps, at the probabilities that occur. Positive floats are
    ordered as their bit patterns are, so halving the range of patterns ends at such a step.
    """
    bits = torch.int32 if probs.dtype == torch.float32 else torch.int64
    low, high = -1, int(probs.amax().view(bits))
    # Were the last of the nucleus less than this, all outside it could not make up the rest.
    least = torch.tensor((1 - top_p) / (2 * probs.numel()), dtype=probs.dtype)
    low = max(low, int(least.view(bits)))
    # Invariant: the mass above `high` is less than top_p, that above `low` is not.
    while high - low > 1:
        middle = (low + high) // 2
        threshold = torch.tensor(middle, dtype=bits).view(probs.dtype).item()
        if F.threshold(probs, threshold, 0.0).sum().item() < top_p:
            high = middle
        else:
            low = middle
    smallest = torch.tensor(high, dtype=bits).view(probs.dtype).item()
    missing = top_p - F.threshold(probs, smallest, 0.0).sum().item()
    equal = max(1, math.ceil(missing / smallest)) if smallest > 0 else 1
    return smallest, int((probs > smallest).count_nonzero()) + equal


def _keep_largest(values: Tensor, smallest: Tensor, count: Tensor) -> Tensor:
    """The ``count`` largest of each row, the last of them equal to ``smallest``."""
    at_least = values >= smallest
    if _may_look(values) and bool((at_least.count_nonzero(dim=-1).unsqueeze(-1) <= count).all()):
        return at_least
    equal = values == smallest
    above = at_least & ~equal
    allowed = count - above.sum(dim=-1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=-1) <= allowed))
