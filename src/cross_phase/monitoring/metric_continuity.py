"""Whether what one phase achieved is kept by the next."""

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from .metric_values import as_number

FORMAT = "cross_phase.metric_continuity"
VERSION = 1
PHASES = tuple(f"phase{number}" for number in range(1, 9))

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


@dataclass(frozen=True)
class MetricTrend:
    """How a metric went over the phases.

    Attributes:
        phases: The phases that have it, in order.
        values: Its value in each of them.
        direction: Whether higher or lower is better.
        best_phase: The phase with the best value; None where all are NaN.
        change: By how much the last value is better than the first, relative to the first;
            negative where it is worse, NaN where that is not defined.
        degraded: Whether the last value is worse than the best one before it; see
            :meth:`MetricContinuityTracker.detect_degradation`.
    """

    phases: tuple[str, ...]
    values: tuple[float, ...]
    direction: Direction
    best_phase: str | None
    change: float
    degraded: bool


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
        sign = self._sign(metric)
        earlier = [value for value in trend[:-1] if not math.isnan(value)]
        if not earlier:
            return False
        best = max(earlier, key=lambda value: sign * value)
        return sign * (best - last) > threshold * abs(best)

    def trends(self, threshold: float = 0.1) -> dict[str, MetricTrend]:
        """Summarise every metric over the phases, in the order in which the metrics came.

        Args:
            threshold: See :meth:`detect_degradation`.

        Returns:
            The trends by metric.

        Raises:
            ValueError: ``threshold`` is negative or NaN.
        """
        names = list(dict.fromkeys(name for metrics in self.history.values() for name in metrics))
        return {name: self._trend(name, threshold) for name in names}

    def save(self, path: str | PathLike[str]) -> Path:
        """Write history and directions to a JSON file, which changes all at once.

        Args:
            path: The file; its folder is made where it does not exist.

        Returns:
            The file.

        Raises:
            OSError: It cannot be written; the file that was there still is.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        body = {
            "format": FORMAT,
            "version": VERSION,
            "directions": self.directions,
            # JSON has no NaN and no infinity: those are written as text.
            "history": {
                phase: {
                    name: value if math.isfinite(value) else str(value)
                    for name, value in metrics.items()
                }
                for phase, metrics in self.history.items()
            },
        }
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(body, file, indent=1, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
        return target

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "MetricContinuityTracker":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not such a file.
        """
        source = Path(path)
        try:
            body: Any = json.loads(source.read_bytes())
            known = {"format": FORMAT, "version": VERSION}
            if {name: body[name] for name in known} != known:
                raise ValueError("it is of another format or version")  # noqa: TRY301 - one place
            tracker = cls(body["directions"])
            for phase, metrics in body["history"].items():
                tracker.add_phase_metrics(
                    phase, {name: float(value) for name, value in metrics.items()}
                )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{source} holds no metrics of phases: {error}") from error
        return tracker

    def plot(self, path: str | PathLike[str], metrics: Sequence[str] | None = None) -> Path:
        """Draw each metric over the phases, one panel for each.

        Degraded metrics are drawn in red, and the best phase is marked.

        Args:
            path: The image; its ending decides the format (``.png``, ``.svg``, ``.pdf``).
            metrics: Which ones, and in which order; all by default.

        Returns:
            The image.

        Raises:
            ImportError: matplotlib is not installed.
            KeyError: A metric is in no phase.
            ValueError: There is no metric to draw.
        """
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install matplotlib") from error
        trends = self.trends()
        names = list(trends) if metrics is None else list(metrics)
        unknown = [name for name in names if name not in trends]
        if unknown:
            raise KeyError(f"no phase has metric {unknown[0]!r}")
        if not names:
            raise ValueError("there is no metric to draw: add_phase_metrics first")
        phases = [*PHASES, *(phase for phase in self.history if phase not in PHASES)]
        figure = Figure(figsize=(8, 1 + 1.6 * len(names)), layout="constrained")
        panels = figure.subplots(len(names), 1, squeeze=False, sharex=True)
        for panel, name in zip(panels[:, 0], names, strict=True):
            trend = trends[name]
            positions = [phases.index(phase) for phase in trend.phases]
            color = "tab:red" if trend.degraded else "tab:blue"
            panel.plot(positions, trend.values, marker="o", color=color)
            if trend.best_phase is not None:
                best = trend.phases.index(trend.best_phase)
                panel.plot(
                    positions[best], trend.values[best], marker="*", markersize=14, color="k"
                )
            panel.set_ylabel(f"{name}\n({trend.direction} is better)", fontsize=8)
            panel.set_xticks(range(len(phases)), phases, fontsize=8)
            panel.set_xlim(-0.5, len(phases) - 0.5)
            panel.grid(visible=True, alpha=0.3)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)
        return target

    def _sign(self, metric: str) -> int:
        direction = self.directions.get(metric, better_direction(metric))
        return -1 if direction == "lower" else 1

    def _trend(self, metric: str, threshold: float) -> MetricTrend:
        points = {phase: m[metric] for phase, m in self.history.items() if metric in m}
        values = tuple(points.values())
        sign = self._sign(metric)
        known = [phase for phase, value in points.items() if not math.isnan(value)]
        first, last = values[0], values[-1]
        change = sign * (last - first) / abs(first) if first != 0 else math.nan
        return MetricTrend(
            tuple(points),
            values,
            "higher" if sign > 0 else "lower",
            max(known, key=lambda phase: sign * points[phase]) if known else None,
            change,
            self.detect_degradation(metric, threshold),
        )
