"""The public face of run tracking. Exactly nine tests; more are in test_run_tracking.py."""

import pytest
import torch

from cross_phase.monitoring.wandb_integration import (
    METRICS_COUNT,
    MetricContinuityTracker,
    WandBIntegration,
)


def test_metrics_count_covers_the_eight_phases() -> None:
    assert METRICS_COUNT == {
        "phase1": 37,
        "phase2": 370,
        "phase3": 17,
        "phase4": 19,
        "phase5": 78,
        "phase6": 32,
        "phase7": 28,
        "phase8": 95,
    }


def test_metrics_count_adds_up_to_676() -> None:
    assert sum(METRICS_COUNT.values()) == 676


def test_integration_defaults_to_an_offline_run_of_the_shared_project() -> None:
    integration = WandBIntegration()

    assert integration.mode == "offline"
    assert integration.project == "agent-forge-v2"
    assert integration.entity is None


def test_integration_takes_the_project_under_both_names() -> None:
    assert WandBIntegration(project_name="ours", mode="disabled").project == "ours"
    assert WandBIntegration(project_name="ours", project="theirs").project == "theirs"


def test_integration_refuses_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="online, offline, disabled"):
        WandBIntegration(mode="on-line")  # type: ignore[arg-type]


def test_tracker_starts_with_an_empty_history() -> None:
    tracker = MetricContinuityTracker()

    assert len(tracker.history) == 0
    assert tracker.get_trend("accuracy") == []
    assert tracker.detect_degradation("accuracy") is False


def test_tracker_keeps_the_metrics_of_each_phase(device: torch.device) -> None:
    tracker = MetricContinuityTracker()

    tracker.add_phase_metrics("phase1", {"accuracy": 45.0, "loss": torch.tensor(2.5).to(device)})

    assert tracker.history == {"phase1": {"accuracy": 45.0, "loss": 2.5}}


def test_tracker_returns_a_trend_in_the_order_of_the_phases(device: torch.device) -> None:
    tracker = MetricContinuityTracker()
    for phase, accuracy in enumerate((45.0, 56.0, 62.0), start=1):
        tracker.add_phase_metrics(phase, {"accuracy": torch.tensor(accuracy, device=device)})

    assert tracker.get_trend("accuracy") == [45.0, 56.0, 62.0]


def test_tracker_detects_degradation_in_the_direction_of_the_metric() -> None:
    tracker = MetricContinuityTracker()
    for phase, (accuracy, loss) in enumerate(((45, 2.0), (56, 1.5), (62, 1.2)), start=1):
        tracker.add_phase_metrics(phase, {"accuracy": accuracy, "loss": loss})

    assert tracker.detect_degradation("accuracy", threshold=0.1) is False
    assert tracker.detect_degradation("loss", threshold=0.1) is False

    tracker.add_phase_metrics(4, {"accuracy": 30, "loss": 2.4})

    assert tracker.detect_degradation("accuracy", threshold=0.1) is True
    assert tracker.detect_degradation("loss", threshold=0.1) is True
