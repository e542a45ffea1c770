"""Tracking without a service: TensorBoard's files, and trackers by name."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cross_phase.monitoring.tensorboard_tracker import TensorBoardTracker
from cross_phase.monitoring.trackers import create_tracker
from cross_phase.monitoring.wandb_integration import WandBIntegration


def accumulated(folder: Path) -> Any:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    accumulator = accumulators.EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulated(folder).Scalars(name)]


def text(folder: Path, name: str) -> str:
    (event,) = accumulated(folder).Tensors(name)
    return str(event.tensor_proto.string_val[0].decode())


def test_metrics_config_and_artifacts_are_read_back_by_tensorboard(tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-1"
    checkpoint.mkdir()
    with TensorBoardTracker("ours", directory=tmp_path) as tracker:
        tracker.init_phase_run(3, {"lr": 1e-3}, "s1")
        for step in (5, 10):
            tracker.log_metrics({"train_loss": torch.tensor(step / 4), "x": math.inf}, step=step)
        tracker.log_artifact(checkpoint, aliases=["best"])

    folder = tmp_path / "ours" / "s1-phase3"
    assert scalars(folder, "train_loss") == [(5, 1.25), (10, 2.5)]
    assert scalars(folder, "x")[0] == (5, math.inf)
    assert '"lr": 0.001' in text(folder, "config")
    assert text(folder, "model/step-1") == f"{checkpoint} (best)"
    assert tracker.journal_path == tmp_path / "ours" / "s1-phase3.jsonl"
    lines = [json.loads(line) for line in tracker.journal_path.read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "start",
        "metrics",
        "metrics",
        "artifact",
        "finish",
    ]


def test_steps_are_counted_where_none_is_given_and_go_on_when_resumed(tmp_path: Path) -> None:
    tracker = TensorBoardTracker("ours", directory=tmp_path)
    tracker.init_phase_run(1, {}, "s1")
    tracker.log_metrics({"loss": 3.0})
    tracker.log_metrics({"loss": 2.0})
    tracker.log_metrics({"loss": 1.0}, step=7)
    tracker.init_phase_run(1, {}, "s1", resume=True)
    tracker.log_metrics({"loss": 0.5})
    tracker.finish()

    assert scalars(tmp_path / "ours" / "s1-phase1", "loss") == [(0, 3), (1, 2), (7, 1), (8, 0.5)]


def test_a_missing_tensorboard_says_how_to_install_it_and_metrics_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer", None)
    tracker = TensorBoardTracker(directory=tmp_path)

    assert tracker.init_phase_run(1, {}, "s1") is None
    tracker.log_metrics({"loss": 1.0})
    tracker.finish()

    assert "pip install tensorboard" in caplog.text
    assert tracker.journal_path is not None
    assert '"loss": 1.0' in tracker.journal_path.read_text()


def test_a_failed_run_is_marked(tmp_path: Path) -> None:
    tracker = TensorBoardTracker("ours", directory=tmp_path)
    tracker.init_phase_run(1, {}, "s1")
    tracker.finish(exit_code=3)

    assert text(tmp_path / "ours" / "s1-phase1", "failed") == "exit code 3"


def test_trackers_are_chosen_by_name(tmp_path: Path) -> None:
    wandb = create_tracker("wandb", "ours", directory=tmp_path, mode="offline")
    tensorboard = create_tracker("tensorboard", "ours", directory=tmp_path, strict=True)

    assert isinstance(wandb, WandBIntegration)
    assert isinstance(tensorboard, TensorBoardTracker)
    assert (wandb.project, tensorboard.project, tensorboard.strict) == ("ours", "ours", True)
    with pytest.raises(ValueError, match="'wandb', 'tensorboard', 'none'"):
        create_tracker("mlflow")  # type: ignore[arg-type]


def test_the_tracker_none_checks_names_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with create_tracker("none", directory=tmp_path, strict=True) as tracker:
        assert tracker.init_phase_run(3, {}, "s1") is None
        tracker.log_metrics({"train_loss": 1.0}, step=1)
        with pytest.raises(ValueError, match="did you mean 'train_loss'"):
            tracker.log_metrics({"train_los": 1.0})
        tracker.flush()

    assert list(tmp_path.iterdir()) == []


def test_importing_the_trackers_imports_no_backend_and_no_torch() -> None:
    code = (
        "import sys, cross_phase.monitoring.trackers\n"
        "print(sorted({'torch', 'wandb', 'tensorboard', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
