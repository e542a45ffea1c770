"""A save that is interrupted anywhere leaves the old checkpoint or the new one, whole."""

import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cross_phase.utils import (
    CheckpointError,
    checkpoint_folders,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
    tensor_files,
)

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs processes that can be forked and killed"
)

SIZE = 64


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory, where there is one: a kill is the same there, and fsync is free."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


def constant_model(value: float) -> nn.Linear:
    model = nn.Linear(SIZE, SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def save(path: Path, value: float) -> None:
    """Save a checkpoint in which everything says ``value``."""
    model = constant_model(value)
    save_checkpoint(
        model,
        path,
        config={"value": value},
        optimizer_state={"state": {0: {"momentum": torch.full((SIZE, SIZE), value)}}},
        extra_tensors={"extra": torch.full((SIZE,), value)},
    )


def load(path: Path) -> float:
    """Load a checkpoint, check that all of it says the same, and return what it says."""
    model = constant_model(-1.0)
    result = load_checkpoint(model, path, load_optimizer=True)
    said = {
        result["config"]["value"],
        *model.weight.unique().tolist(),
        *model.bias.unique().tolist(),
        *result["optimizer_state_dict"]["state"][0]["momentum"].unique().tolist(),
        *result["extra_tensors"]["extra"].unique().tolist(),
    }
    assert len(said) == 1, f"a mixture: {said}"
    return float(said.pop())


def in_child(work: Callable[[], None]) -> int:
    """Run work in a forked process; return the signal that killed it, or 0 if it finished."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child must never return into pytest
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the save raised in the child"
    return 0


def kill_at(number: int) -> None:
    """Kill this process at its n-th step to the disk, just before it is done."""
    steps = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    Path.mkdir = counted(Path.mkdir)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
    os.rmdir = counted(os.rmdir)
    tensor_files.write_all = counted(tensor_files.write_all)


def names(path: Path) -> list[str]:
    return sorted(file.name.partition("-")[0] for file in path.iterdir())


COMPLETE = ["extra", "manifest.json", "model", "model.safetensors.index.json", "optimizer"]


def test_a_kill_at_any_step_leaves_the_old_checkpoint_or_the_new_one(memory_path: Path) -> None:
    path = memory_path / "run"
    save(path, 0.0)
    outcomes: list[float] = []
    for number in range(1, 100):

        def work(number: int = number) -> None:
            kill_at(number)
            save(path, float(number))

        old = load(path)
        killed = in_child(work)
        now = load(path)
        assert now in (old, float(number))
        outcomes.append(now - old)
        if not killed:
            break

    assert not killed
    assert len(outcomes) > 15, "too few steps were seen: what does a save do to the disk now?"
    assert 0.0 in outcomes[:5]
    assert outcomes[-1] > 0
    assert names(path) == COMPLETE


def test_a_kill_during_the_first_save_leaves_no_checkpoint_or_a_whole_one(
    memory_path: Path,
) -> None:
    for number in range(1, 100):
        path = memory_path / str(number)

        def work(path: Path = path, number: int = number) -> None:
            kill_at(number)
            save(path, 1.0)

        killed = in_child(work)
        try:
            assert load(path) == 1.0
        except FileNotFoundError:
            assert killed
        save(path, 2.0)
        assert load(path) == 2.0
        assert names(path) == COMPLETE
        if not killed:
            break
    assert not killed


def limit_file_size(size: int, *, kill: bool) -> None:
    """Let writes beyond this many bytes fail, as on a full disk, or kill the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# The model's and the optimizer's files have about 17 KB, the others less than 2 KB.
@pytest.mark.parametrize("size", [0, 100, 900, 5_000, 16_500])
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_checkpoint(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "run"
    save(path, 1.0)

    def work() -> None:
        limit_file_size(size, kill=True)
        save(path, 2.0)

    assert in_child(work) == signal.SIGXFSZ
    assert load(path) == 1.0
    save(path, 3.0)
    assert load(path) == 3.0
    assert names(path) == COMPLETE


@pytest.mark.parametrize("size", [0, 900, 5_000, 16_500])
def test_a_write_that_fails_is_an_error_and_leaves_nothing_behind(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "run"
    save(path, 1.0)
    before = sorted(path.iterdir())

    def work() -> None:
        limit_file_size(size, kill=False)
        with pytest.raises(CheckpointError, match="could not be written"):
            save(path, 2.0)

    assert in_child(work) == 0
    assert load(path) == 1.0
    assert sorted(path.iterdir()) == before


def test_an_interrupt_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    save(path, 1.0)
    before = sorted(path.iterdir())

    def interrupt(path: Path, tensors: Any, algorithm: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_folders, "write_tensor_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(path, 2.0)

    assert sorted(path.iterdir()) == before
    assert load(path) == 1.0


def test_writers_and_readers_at_once_see_whole_checkpoints_only(tmp_path: Path) -> None:
    path = tmp_path / "run"
    save(path, 1.0)
    children = []
    for value in (1.0, 2.0):
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(15):
                    save(path, value)
            except BaseException:  # noqa: BLE001 - the child must never return into pytest
                os._exit(1)
            os._exit(0)
        children.append(pid)

    loads = 0
    running = list(children)
    while running:
        assert load(path) in (1.0, 2.0)
        loads += 1
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                assert status == 0
                running.remove(pid)

    assert loads > 2
    assert names(path) == COMPLETE


def test_a_checkpoint_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    save(path, 1.0)
    read = checkpoints.read_manifest
    writes = [2.0]

    def read_then_replace(folder: Path) -> bytes:
        text = read(folder)
        if writes:
            save(path, writes.pop())
        return text

    monkeypatch.setattr(checkpoints, "read_manifest", read_then_replace)

    assert load(path) == 2.0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_everything_is_on_disk_before_the_manifest_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name.split("-")[0])
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> Path:
        steps.append("place " + target.name.split("-")[0])
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    save(path, 1.0)

    roles = ("extra", "model", "optimizer")
    parent = f"sync {tmp_path.name.split('-')[0]}"
    index = "model.safetensors.index.json"
    assert sorted(steps[1:4]) == [f"sync {role}" for role in roles]
    assert [steps[0], *steps[4:]] == [
        parent,
        *[f"place {role}" for role in roles],
        *["sync manifest.json", f"sync {index}", "sync run"],
        *["place manifest.json", "sync run"],
        *[f"place {index}", "sync run"],
    ]


def test_threads_take_turns_too(tmp_path: Path) -> None:
    path = tmp_path / "run"
    threads = [threading.Thread(target=save, args=(path, float(value))) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert load(path) in (0.0, 1.0, 2.0, 3.0)
    assert names(path) == COMPLETE


@pytest.mark.skipif(sys.platform == "win32", reason="there is no lock to lose")
def test_without_locks_a_save_removes_only_what_it_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError("locks are not supported here")

    monkeypatch.setattr(checkpoint_folders.fcntl, "flock", no_locks)
    path = tmp_path / "run"
    save(path, 1.0)
    # Another writer's file, which no manifest refers to yet.
    foreign = path / f"model-{'0' * 32}-00001.safetensors"
    foreign.write_bytes(b"half written")

    save(path, 2.0)

    assert load(path) == 2.0
    assert foreign.exists()
    foreign.unlink()
    assert names(path) == COMPLETE
