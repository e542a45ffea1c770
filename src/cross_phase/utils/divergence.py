"""Whether a loss curve has diverged."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

# Of all pairs in the window, this much more must rise than fall (Kendall's tau): a plateau of
# independent noise reaches it in about one window of 10 in a hundred.
MIN_CONCORDANCE = 0.6

# A level this many times the best one before it is divergence, even where it is flat by now.
LEVEL_FACTOR = 2.0


def detect_training_divergence(
    losses: Iterable[float], window: int = 10, *, threshold: float = 0.1
) -> bool:
    """Tell from the losses so far whether training diverges.

    It does when a loss is NaN or infinite; when the last ``window`` losses rise, that is when
    their Kendall rank correlation with time is at least 0.6 and their Theil-Sen slope adds up
    to more than ``threshold`` of their median magnitude over the window; or when the median of
    the last window is more than twice the lowest median of an earlier, complete window. All
    three are relative to the losses' own scale, and single outliers do not decide.

    Args:
        losses: Losses in order of time: numbers, or tensors of one element.
        window: How many of the last losses are looked at, at least 2. Short windows react
            sooner and to noise; time and memory grow with its square.
        threshold: The rise over one window, relative to the losses, that counts.

    Returns:
        True where training diverges. With fewer than ``window`` losses only NaN and infinity
        count.

    Raises:
        ValueError: ``window`` is below 2, or ``threshold`` is negative or NaN.
    """
    if window < 2:
        raise ValueError(f"window must be at least 2, got {window}")
    if not threshold >= 0:
        raise ValueError(f"threshold must be 0 or more, got {threshold}")
    values = [float(loss) for loss in losses]
    if not all(math.isfinite(value) for value in values):
        return True
    if len(values) < window:
        return False
    # In units of the largest loss: nothing overflows, and every rule is relative anyhow.
    scale = max(abs(value) for value in values) or 1.0
    curve = torch.tensor([value / scale for value in values], dtype=torch.float64)
    return _rises(curve[-window:], threshold) or _left_best_level(curve, window)


def _rises(recent: Tensor, threshold: float) -> bool:
    count = len(recent)
    earlier, later = torch.triu_indices(count, count, offset=1)
    steps = recent[later] - recent[earlier]
    concordance = float(steps.sign().mean())
    slope = float((steps / (later - earlier)).median())
    rise = slope * (count - 1)
    return concordance >= MIN_CONCORDANCE and rise > threshold * float(recent.abs().median())


def _left_best_level(curve: Tensor, window: int) -> bool:
    earlier = curve[:-window]
    if len(earlier) < window:
        return False
    level = float(curve[-window:].median())
    best = float(earlier.unfold(0, window, 1).median(dim=1).values.min())
    return level - best > (LEVEL_FACTOR - 1) * abs(best)
