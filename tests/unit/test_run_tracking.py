"""WandBIntegration's runs: for real and offline, and when everything goes wrong."""

import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cross_phase.monitoring.run_journal import RunJournal
from cross_phase.monitoring.wandb_integration import WandBIntegration


class FakeRun:
    """Stands in for ``wandb.Run`` where W&B must fail, or must be watched."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.logged: list[tuple[dict[str, float], int | None]] = []
        self.log_calls = 0
        self.exit_code: int | None = None

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.log_calls += 1
        if self.error is not None:
            raise self.error
        self.logged.append((metrics, step))

    def finish(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("wandb")
    module.run = FakeRun()  # type: ignore[attr-defined]
    module.init_arguments = []  # type: ignore[attr-defined]

    def init(**arguments: Any) -> FakeRun:
        module.init_arguments.append(arguments)
        return module.run  # type: ignore[no-any-return]

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def events(integration: WandBIntegration) -> list[dict[str, Any]]:
    assert integration.journal_path is not None
    return [json.loads(line) for line in integration.journal_path.read_text().splitlines()]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.fixture
def real_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    yield wandb
    wandb.teardown()


def test_an_offline_run_leaves_wandb_files_and_a_journal(
    tmp_path: Path, real_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tmp_path / "run.v1"
    checkpoint.mkdir()
    (checkpoint / "weights.txt").write_text("1 2 3")

    with WandBIntegration(directory=tmp_path) as integration:
        run = integration.init_phase_run("phase3", {"lr": 1e-3}, "session-1")
        assert isinstance(run, real_wandb.Run)
        assert run.config["lr"] == 1e-3
        for step in range(3):
            integration.log_metrics({"train_loss": torch.tensor(3.0 - step)}, step=step)
        integration.log_artifact(checkpoint)
        integration.log_artifact(checkpoint / "weights.txt", kind="dataset")

    real_wandb.teardown()  # only now has W&B's own process written everything
    (run_file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written = run_file.read_bytes()
    assert b"train_loss" in written
    assert b"run.v1" in written
    assert errors(caplog) == []
    assert [event["event"] for event in events(integration)] == [
        "start",
        *["metrics"] * 3,
        *["artifact"] * 2,
        "finish",
    ]


def test_runs_are_named_and_grouped_by_session_and_phase(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration("ours", entity="team", directory=tmp_path)

    assert integration.init_phase_run(2, {"population": 8}, "s1") is fake_wandb.run

    (arguments,) = fake_wandb.init_arguments
    assert arguments == {
        "project": "ours",
        "entity": "team",
        "mode": "offline",
        "dir": tmp_path,
        "name": "s1-phase2",
        "group": "s1",
        "job_type": "phase2",
        "config": {"population": 8},
    }
    assert integration.journal_path == tmp_path / "ours" / "s1-phase2.jsonl"


def test_metrics_reach_wandb_and_the_journal_as_plain_numbers(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    integration.log_metrics({"a": torch.tensor(2), "b": 0.5, "c": math.nan, "d": -math.inf}, step=7)

    ((logged, step),) = fake_wandb.run.logged
    assert step == 7
    assert (logged["a"], logged["b"], logged["d"]) == (2, 0.5, -math.inf)
    assert type(logged["a"]) is int
    line = events(integration)[-1]
    assert line["step"] == 7
    assert line["metrics"] == {"a": 2, "b": 0.5, "c": "NaN", "d": "-Infinity"}


def test_a_failing_wandb_is_logged_once_and_metrics_are_kept(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    fake_wandb.run = run = FakeRun(ConnectionError("quota exceeded"))  # type: ignore[attr-defined]
    integration = WandBIntegration(mode="online", directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    for step in range(5):
        integration.log_metrics({"loss": float(step)}, step=step)
    integration.finish()

    assert run.log_calls == 1
    (message,) = errors(caplog)
    assert str(integration.journal_path) in message
    assert "quota exceeded" in caplog.text
    kept = [event["metrics"]["loss"] for event in events(integration) if "metrics" in event]
    assert kept == [0, 1, 2, 3, 4]


def test_a_run_that_cannot_start_does_not_stop_training(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    def no_key(**arguments: Any) -> None:
        raise RuntimeError("no API key")

    fake_wandb.init = no_key  # type: ignore[attr-defined]
    integration = WandBIntegration(mode="online", directory=tmp_path)

    assert integration.init_phase_run(1, {}, "s1") is None
    integration.log_metrics({"loss": 1.0})

    assert len(errors(caplog)) == 1
    assert events(integration)[-1]["metrics"] == {"loss": 1.0}


def test_a_missing_wandb_says_how_to_install_it_and_metrics_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    integration = WandBIntegration(directory=tmp_path)

    assert integration.init_phase_run(1, {}, "s1") is None
    integration.log_metrics({"loss": 1.0})

    assert "pip install wandb" in caplog.text
    assert events(integration)[-1]["metrics"] == {"loss": 1.0}


def test_a_journal_that_cannot_be_written_is_logged_once_and_wandb_goes_on(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    integration = WandBIntegration("taken", directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    integration.log_metrics({"loss": 1.0})
    integration.log_metrics({"loss": 0.5})

    assert len(errors(caplog)) == 1
    assert [metrics["loss"] for metrics, _ in fake_wandb.run.logged] == [1.0, 0.5]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_logged_once_and_wandb_goes_on(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "s1-phase1.jsonl").symlink_to("/dev/full")
    integration = WandBIntegration("ours", directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    integration.log_metrics({"loss": 1.0})
    integration.finish()

    (message,) = errors(caplog)
    assert "s1-phase1.jsonl cannot be written" in message
    assert [metrics["loss"] for metrics, _ in fake_wandb.run.logged] == [1.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_journal_on_a_full_disk_raises_and_leaves_nothing_pending() -> None:
    journal = RunJournal(Path("/dev/full"))

    with pytest.raises(OSError, match="No space left"):
        journal.write("metrics", metrics={"loss": 1.0})
    journal.close()


def test_a_new_run_finishes_the_one_before(tmp_path: Path, fake_wandb: ModuleType) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")
    first = events(integration)
    path = integration.journal_path

    integration.init_phase_run(2, {}, "s1")

    assert fake_wandb.run.exit_code == 0
    assert path is not None
    assert len(path.read_text().splitlines()) == len(first) + 1
    assert integration.journal_path != path


def test_an_exception_marks_the_run_as_failed(tmp_path: Path, fake_wandb: ModuleType) -> None:
    def train(integration: WandBIntegration) -> None:
        integration.init_phase_run(1, {}, "s1")
        raise ZeroDivisionError

    integration = WandBIntegration(directory=tmp_path)
    with pytest.raises(ZeroDivisionError), integration:
        train(integration)

    assert fake_wandb.run.exit_code == 1
    assert events(integration)[-1]["exit_code"] == 1


def test_disabled_tracking_writes_nothing_and_imports_no_wandb(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cross_phase.monitoring.wandb_integration import WandBIntegration\n"
        f"w = WandBIntegration(mode='disabled', directory={str(tmp_path)!r})\n"
        "assert w.init_phase_run(1, {}, 's1') is None\n"
        "w.log_metrics({'loss': 1.0})\n"
        "w.finish()\n"
        "print('wandb' in sys.modules, 'torch' in sys.modules)"
    )
    source = Path(__file__).parents[2] / "src"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


def test_logging_before_a_run_is_an_error() -> None:
    integration = WandBIntegration()

    with pytest.raises(RuntimeError, match="init_phase_run"):
        integration.log_metrics({"loss": 1.0})
    with pytest.raises(RuntimeError, match="init_phase_run"):
        integration.log_artifact(__file__)


def test_strict_mode_refuses_a_misspelt_metric_before_it_is_logged(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration(directory=tmp_path, strict=True)
    integration.init_phase_run(3, {}, "s1")

    with pytest.raises(ValueError, match="did you mean 'train_loss'"):
        integration.log_metrics({"train_los": 1.0})
    integration.log_metrics({"train_loss": 1.0})

    assert fake_wandb.run.logged == [({"train_loss": 1.0}, None)]


def test_a_missing_artifact_is_an_error(tmp_path: Path, fake_wandb: ModuleType) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        integration.log_artifact(tmp_path / "nothing.txt")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a:b", "a\0b"])
def test_names_that_would_leave_the_directory_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="project"):
        WandBIntegration(name)
    with pytest.raises(ValueError, match="session_id"):
        WandBIntegration().init_phase_run(1, {}, name)
