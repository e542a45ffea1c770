"""Metrics over the eight phases: summaries, files and plots."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cross_phase.monitoring.metric_continuity import MetricContinuityTracker
from cross_phase.monitoring.phase_metrics import PHASE_METRICS


def eight_phases() -> MetricContinuityTracker:
    tracker = MetricContinuityTracker({"time_saved": "higher"})
    accuracies = [45, 56, 62, 58, 66, 67, 69, 40]
    for phase, accuracy in enumerate(accuracies, start=1):
        tracker.add_phase_metrics(phase, {"accuracy": accuracy, "time_saved": phase})
        if phase % 2:
            tracker.add_phase_metrics(phase, {"perplexity": 40.0 / phase})
    return tracker


def test_trends_over_the_eight_phases_say_best_change_and_degradation() -> None:
    tracker = eight_phases()

    trends = tracker.trends()

    assert list(trends) == ["accuracy", "time_saved", "perplexity"]
    assert trends["accuracy"].phases == tuple(PHASE_METRICS)
    assert trends["accuracy"].best_phase == "phase7"
    assert trends["accuracy"].change == pytest.approx(-5 / 45)
    assert trends["accuracy"].degraded is True
    assert trends["perplexity"].phases == ("phase1", "phase3", "phase5", "phase7")
    assert trends["perplexity"].direction == "lower"
    assert trends["perplexity"].change == pytest.approx(1 - 1 / 7)
    assert trends["time_saved"].direction == "higher"
    assert [trend.degraded for trend in trends.values()] == [True, False, False]
    assert tracker.trends(threshold=0.5)["accuracy"].degraded is False


def test_trends_of_values_without_a_scale_are_nan_and_of_no_best_phase() -> None:
    tracker = MetricContinuityTracker()
    tracker.add_phase_metrics(1, {"loss": math.nan, "drop": 0.0})
    tracker.add_phase_metrics(2, {"loss": math.nan, "drop": 1.0})

    trends = tracker.trends()

    assert trends["loss"].best_phase is None
    assert math.isnan(trends["loss"].change)
    assert math.isnan(trends["drop"].change)
    assert trends["drop"].best_phase == "phase1"


SAVED = '{"format": "cross_phase.metric_continuity", "version": 1, "directions": {}, "history": %s}'

values = st.floats(width=64)
histories = st.dictionaries(
    st.sampled_from([f"phase{n}" for n in range(1, 9)]),
    st.dictionaries(st.text(min_size=1, max_size=8), values, min_size=1, max_size=3),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(history=histories)
def test_what_is_saved_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, history: dict[str, dict[str, float]]
) -> None:
    tracker = MetricContinuityTracker({"time_saved": "higher"})
    for phase, metrics in history.items():
        tracker.add_phase_metrics(phase, metrics)
    path = tmp_path_factory.mktemp("metrics") / "a" / "metrics.json"

    loaded = MetricContinuityTracker.load(tracker.save(path))

    assert repr(loaded.history) == repr(tracker.history)
    assert loaded.directions == tracker.directions
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = eight_phases().save(tmp_path / "metrics.json")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        MetricContinuityTracker().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": "other", "version": 1, "directions": {}, "history": {}}',
        '{"format": "cross_phase.metric_continuity", "version": 2}',
        '{"format": "cross_phase.metric_continuity", "version": 1, "directions": {"a": "up"}}',
        SAVED % '{"phase1": {"loss": "low"}}',
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)

    with pytest.raises(ValueError, match=r"metrics\.json holds no metrics of phases"):
        MetricContinuityTracker.load(tmp_path / "metrics.json")


def test_the_plot_has_a_panel_for_each_metric_and_shows_degradation_in_red(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    red = "#d62728"

    path = eight_phases().plot(tmp_path / "plots" / "trends.svg", ["accuracy", "perplexity"])
    svg = path.read_text()
    good = eight_phases().plot(tmp_path / "good.svg", ["perplexity"]).read_text()

    assert svg.count('id="axes_') == 2
    assert red in svg
    assert red not in good
    assert eight_phases().plot(tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_nothing_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    with pytest.raises(KeyError, match="'acuracy'"):
        eight_phases().plot(tmp_path / "x.png", ["acuracy"])
    with pytest.raises(ValueError, match="no metric to draw"):
        MetricContinuityTracker().plot(tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
