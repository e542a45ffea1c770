"""The checkpoints of a run: retention, the latest one, resuming in one call."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cross_phase.utils import (
    CheckpointError,
    CheckpointSeries,
    checkpoint_series,
    save_checkpoint,
    tensor_files,
    verify_checkpoint,
)


class Run:
    """A tiny training run with everything that has a state, randomness included."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        self.model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)

    def step(self) -> float:
        inputs = torch.randn(4, 6) * random.random() * np.random.random()  # noqa: NPY002
        self.optimizer.zero_grad()
        loss = self.model(inputs).square().mean()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        return self.model, self.optimizer, self.scheduler


def save_steps(series: CheckpointSeries, losses: dict[int, float]) -> None:
    for step, loss in losses.items():
        series.save(step, nn.Linear(2, 2), metrics={"val_loss": loss})


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    run, series = Run(0), CheckpointSeries(tmp_path / "checkpoints")
    for _ in range(3):
        run.step()
    series.save(3, *run.parts, metrics={"val_loss": 0.5}, config={"lr": 0.1}, metadata={"who": "x"})
    expected = [run.step() for _ in range(3)]

    other = Run(1)
    resumed = series.resume(*other.parts)

    assert resumed is not None
    assert (resumed.step, resumed.metrics) == (3, {"val_loss": 0.5})
    assert (resumed.config, resumed.metadata) == ({"lr": 0.1}, {"who": "x"})
    assert [other.step() for _ in range(3)] == expected


def test_a_run_without_checkpoints_starts_afresh(tmp_path: Path) -> None:
    series = CheckpointSeries(tmp_path / "checkpoints", keep_best=1, metric="val_loss")

    assert series.resume(*Run(0).parts) is None
    assert series.latest() is None
    assert series.best() is None
    assert not (tmp_path / "checkpoints").exists()


def test_the_latest_and_the_best_are_kept_and_the_rest_removed(tmp_path: Path) -> None:
    series = CheckpointSeries(tmp_path, keep_last=2, keep_best=2, metric="val_loss")

    save_steps(series, {1: 0.9, 2: 0.1, 3: 0.3, 4: 0.2, 5: 0.8, 100_000_000: 0.7})

    assert series.steps() == [2, 4, 5, 100_000_000]
    assert series.best() == series.path(2)
    assert series.latest() == series.path(100_000_000)
    assert min(path.name for path in tmp_path.iterdir()) == "step-00000002"


def test_the_best_may_be_the_highest(tmp_path: Path) -> None:
    series = CheckpointSeries(tmp_path, keep_last=1, keep_best=1, metric="val_loss", mode="max")

    save_steps(series, {1: 0.5, 2: 0.9, 3: 0.9, 4: float("nan"), 5: 0.1})

    assert series.best() == series.path(3)
    assert series.steps() == [3, 5]


def test_what_is_no_checkpoint_of_the_series_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "step-one").mkdir()
    save_checkpoint(nn.Linear(2, 2), tmp_path / "final")
    series = CheckpointSeries(tmp_path, keep_last=1)

    save_steps(series, {1: 1.0, 2: 1.0})

    assert {p.name for p in tmp_path.iterdir()} == {"notes", "step-one", "final", "step-00000002"}


def test_latest_is_right_after_a_kill_at_any_write(tmp_path: Path) -> None:
    series = CheckpointSeries(tmp_path, keep_last=1)
    save_steps(series, {1: 1.0})
    outcomes = []
    for number in range(1, 60):
        pid = os.fork()
        if pid == 0:
            count = 0

            def killing(function: Any, number: int = number) -> Any:
                def call(*args: Any, **kwargs: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*args, **kwargs)

                return call

            os.fsync = lambda descriptor: None  # a kill does not need the disk
            tensor_files.write_all = killing(tensor_files.write_all)
            Path.replace = killing(Path.replace)  # type: ignore[method-assign]
            Path.unlink = killing(Path.unlink)  # type: ignore[method-assign]
            checkpoint_series.shutil.rmtree = killing(checkpoint_series.shutil.rmtree)
            save_steps(series, {number + 1: 1.0})
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        latest = series.latest()
        assert latest is not None
        verify_checkpoint(latest)
        assert latest in (series.path(number + 1), series.path(number), series.path(1)) or outcomes
        outcomes.append(latest)
        if os.WIFEXITED(status):
            break

    assert os.WIFEXITED(status)
    assert os.WEXITSTATUS(status) == 0
    assert len(outcomes) > 8
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{number + 1:08}"]


def test_an_earlier_step_can_be_resumed(tmp_path: Path) -> None:
    series = CheckpointSeries(tmp_path)
    model = nn.Linear(2, 2)
    for step in (1, 2):
        with torch.no_grad():
            model.weight.fill_(step)
        series.save(step, model)

    resumed = series.resume(model, step=1)

    assert resumed is not None
    assert (resumed.step, float(model.weight.detach().mean())) == (1, 1.0)
    with pytest.raises(FileNotFoundError, match="step-00000007"):
        series.resume(model, step=7)


def test_more_objects_with_a_state_are_resumed_by_name(tmp_path: Path) -> None:
    series = CheckpointSeries(tmp_path)
    sampler, scaler = nn.Linear(2, 2), torch.amp.GradScaler("cpu", init_scale=8.0)
    series.save(1, nn.Linear(1, 1), stateful={"sampler": sampler, "scaler": scaler})

    other, other_scaler = nn.Linear(2, 2), torch.amp.GradScaler("cpu")
    series.resume(nn.Linear(1, 1), stateful={"sampler": other, "scaler": other_scaler})

    assert torch.equal(sampler.weight, other.weight)
    assert other_scaler.get_scale() == 8.0
    with pytest.raises(CheckpointError, match="no state of 'ema'"):
        series.resume(nn.Linear(1, 1), stateful={"ema": other})


@pytest.mark.parametrize("damage", ["optimizer", "model", "groups", "scheduler", "architecture"])
def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path: Path, damage: str) -> None:
    run, series = Run(0), CheckpointSeries(tmp_path)
    run.step()
    path = series.save(
        1, run.model, run.optimizer, None if damage == "scheduler" else run.scheduler
    )
    other = Run(1)
    if damage in ("optimizer", "model"):
        (file,) = path.glob(f"{damage}-*")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "groups":
        other.optimizer = torch.optim.AdamW(list(other.model.parameters())[:2])
    elif damage == "architecture":
        other.model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    generator = torch.get_rng_state()

    with pytest.raises(CheckpointError, match="step-00000001"):
        series.resume(*other.parts)

    after = other.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert other.optimizer.state_dict()["state"] == {}
    assert torch.equal(generator, torch.get_rng_state())


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_checkpoint(nn.Linear(2, 2), tmp_path / "step-00000001")

    with pytest.raises(CheckpointError, match="use load_checkpoint"):
        CheckpointSeries(tmp_path).resume(nn.Linear(2, 2))


def test_an_unreadable_manifest_does_not_stop_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = CheckpointSeries(tmp_path, keep_last=1, keep_best=1, metric="val_loss")
    save_steps(series, {1: 0.1, 2: 0.5})
    (series.path(1) / "manifest.json").write_text(json.dumps({}))

    save_steps(series, {3: 0.4})

    assert series.best() == series.path(3)
    assert "the metrics of" in caplog.text


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    for arguments in ({"keep_last": 0}, {"keep_best": -1}, {"keep_best": 1}, {"mode": "least"}):
        with pytest.raises(ValueError, match=r"keep_last|keep_best|mode"):
            CheckpointSeries(tmp_path, **arguments)
    with pytest.raises(ValueError, match="step must be 0 or more"):
        CheckpointSeries(tmp_path).save(-1, nn.Linear(1, 1))
    with pytest.raises(ValueError, match="metric 'val_loss'"):
        CheckpointSeries(tmp_path, keep_best=1, metric="val_loss").save(1, nn.Linear(1, 1))
    with pytest.raises(ValueError, match="needs metric="):
        CheckpointSeries(tmp_path).best()
    assert list(tmp_path.iterdir()) == []
