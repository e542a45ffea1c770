"""Metrics from phase to phase: directions, trends, degradation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cross_phase.monitoring.metric_continuity import MetricContinuityTracker, better_direction


def tracker_of(metric: str, values: list[float]) -> MetricContinuityTracker:
    tracker = MetricContinuityTracker()
    for phase, value in enumerate(values, start=1):
        tracker.add_phase_metrics(phase, {metric: value})
    return tracker


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("accuracy", "higher"),
        ("tokens_per_second", "higher"),
        ("compression_ratio", "higher"),
        ("memory/accuracy", "higher"),
        ("loss", "lower"),
        ("Val-Loss", "lower"),
        ("memory/perplexity", "lower"),
        ("latency_ms", "lower"),
        ("gpu_memory_gb", "lower"),
    ],
)
def test_direction_follows_from_the_metric_name(metric: str, direction: str) -> None:
    assert better_direction(metric) == direction


def test_a_given_direction_wins_over_the_name() -> None:
    tracker = MetricContinuityTracker({"time_saved": "higher"})
    tracker.add_phase_metrics(1, {"time_saved": 10})
    tracker.add_phase_metrics(2, {"time_saved": 5})

    assert tracker.detect_degradation("time_saved") is True


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="'higher' or 'lower'"):
        MetricContinuityTracker({"accuracy": "up"})  # type: ignore[dict-item]


def test_small_losses_in_every_phase_add_up_to_degradation() -> None:
    tracker = tracker_of("accuracy", [62, 59, 57])
    assert tracker.detect_degradation("accuracy", threshold=0.1) is False

    tracker.add_phase_metrics(4, {"accuracy": 55})
    assert tracker.detect_degradation("accuracy", threshold=0.1) is True


def test_recovery_ends_degradation() -> None:
    assert tracker_of("accuracy", [62, 30, 61]).detect_degradation("accuracy") is False


def test_a_last_value_of_nan_is_degradation_and_an_earlier_one_is_passed_over() -> None:
    assert tracker_of("loss", [2.0, math.nan]).detect_degradation("loss") is True
    assert tracker_of("loss", [math.nan, 2.0, 3.0]).detect_degradation("loss") is True
    assert tracker_of("loss", [math.nan, 2.0]).detect_degradation("loss") is False


def test_any_worsening_counts_where_the_best_value_is_zero() -> None:
    assert tracker_of("loss", [0.0, 0.01]).detect_degradation("loss", threshold=0.5) is True


def test_phases_without_the_metric_are_left_out_of_its_trend() -> None:
    tracker = tracker_of("accuracy", [45, 56])
    tracker.add_phase_metrics(3, {"perplexity": 20.0})
    tracker.add_phase_metrics(4, {"accuracy": 62})

    assert tracker.get_trend("accuracy") == [45, 56, 62]


def test_a_phase_recorded_again_is_updated_in_its_place() -> None:
    tracker = tracker_of("accuracy", [45, 56])
    tracker.add_phase_metrics(1, {"accuracy": 50, "loss": 2.0})

    assert tracker.get_trend("accuracy") == [50, 56]
    assert tracker.history["phase1"] == {"accuracy": 50, "loss": 2.0}


@pytest.mark.parametrize("value", ["62", None, torch.zeros(2), [1.0]])
def test_a_value_that_is_no_number_is_refused_and_nothing_recorded(value: object) -> None:
    tracker = MetricContinuityTracker()

    with pytest.raises(TypeError, match="'accuracy'"):
        tracker.add_phase_metrics(1, {"loss": 1.0, "accuracy": value})  # type: ignore[dict-item]
    assert tracker.history == {}


@pytest.mark.parametrize("threshold", [-0.1, math.nan])
def test_a_threshold_below_zero_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        tracker_of("loss", [1.0, 2.0]).detect_degradation("loss", threshold=threshold)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8),
    factor=st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**20]),
    threshold=st.floats(0, 2),
)
def test_degradation_does_not_depend_on_the_unit(
    values: list[float], factor: float, threshold: float
) -> None:
    scaled = [value * factor for value in values]
    if any(value != 0 and abs(value) < 1e-290 for value in values):
        return
    assert tracker_of("accuracy", values).detect_degradation("accuracy", threshold) == tracker_of(
        "accuracy", scaled
    ).detect_degradation("accuracy", threshold)
