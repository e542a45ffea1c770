"""Whether what one phase achieved is kept by the next."""

import math
import re
from collections.abc import Mapping
from typing import Literal

from .metric_values import as_number

Direction = Literal["higher", "lower"]

# Words that mark a metric of which less is better.
LOWER_IS_BETTER = frozenset(
    {
        *("loss", "perplexity", "ppl", "error", "divergence", "drop"),
        *("latency", "seconds", "hours", "time", "memory", "size"),
    }
)


def better_direction(metric: str) -> Direction:
    """Tell from a metric's name whether higher or lower values are better.

    ``val_loss``, ``perplexity`` or ``latency_ms`` are better lower, and anything that has no
    such word is better higher. Of ``group/metric`` only the metric counts.
    """
    words = re.split(r"[^a-z0-9]+", metric.lower().rpartition("/")[2])
    return "lower" if LOWER_IS_BETTER.intersection(words) else "higher"


class MetricContinuityTracker:
    """Follows metrics from phase to phase.

    Args:
        directions: For metrics whose name misleads :func:`better_direction`: ``"higher"`` or
            ``"lower"`` is better.

    Attributes:
        history: The metrics of each phase, in the order in which the phases came.

    Raises:
        ValueError: A direction is neither of the two.
    """

    def __init__(self, directions: Mapping[str, Direction] | None = None) -> None:
        self.directions = dict(directions or {})
        for metric, direction in self.directions.items():
            if direction not in ("higher", "lower"):
                raise ValueError(
                    f"the direction of {metric!r} must be 'higher' or 'lower', got {direction!r}"
                )
        self.history: dict[str, dict[str, float]] = {}

    def add_phase_metrics(self, phase: str | int, metrics: Mapping[str, float]) -> None:
        """Record metrics of a phase; those recorded for it before are replaced by name.

        Args:
            phase: ``"phase1"``, or 1 for the same.
            metrics: Numbers, or tensors of one element, by name.

        Raises:
            TypeError: A value is not a number. Nothing is recorded.
        """
        values = {name: float(as_number(name, value)) for name, value in metrics.items()}
        key = f"phase{phase}" if isinstance(phase, int) else phase
        self.history.setdefault(key, {}).update(values)

    def get_trend(self, metric: str) -> list[float]:
        """Return the metric's values over the phases that have it; empty where none has."""
        return [metrics[metric] for metrics in self.history.values() if metric in metrics]

    def detect_degradation(self, metric: str, threshold: float = 0.1) -> bool:
        """Tell whether the last value is worse than the best one before it.

        Losing a little in every phase therefore counts once it adds up.

        Args:
            metric: The metric's name.
            threshold: By how much worse, relative to the best value, counts; where the best is
                0, any worsening does.

        Returns:
            True where it degraded, or where the last value is NaN. False with fewer than two
            values.

        Raises:
            ValueError: ``threshold`` is negative or NaN.
        """
        if not threshold >= 0:
            raise ValueError(f"threshold must be 0 or more, got {threshold}")
        trend = self.get_trend(metric)
        if len(trend) < 2:
            return False
        last = trend[-1]
        if math.isnan(last):
            return True
        sign = -1 if self.directions.get(metric, better_direction(metric)) == "lower" else 1
        earlier = [value for value in trend[:-1] if not math.isnan(value)]
        if not earlier:
            return False
        best = max(earlier, key=lambda value: sign * value)
        return sign * (best - last) > threshold * abs(best)
