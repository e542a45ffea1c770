"""A disk that is full for real, and not by a simulated error."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from cross_phase.utils import CheckpointError, load_checkpoint, save_checkpoint, verify_checkpoint

SIZE_BYTES = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root and the mount command")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def model_of(count: int, value: float) -> nn.Module:
    model = nn.ParameterList([torch.full((1000,), value) for _ in range(count)])
    assert sum(parameter.nbytes for parameter in model.parameters()) == 4000 * count
    return model


@pytest.mark.parametrize("free", [0, 1, 40_000, 150_000, 400_000, 599_000])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    small_disk: Path, free: int
) -> None:
    path = save_checkpoint(model_of(80, 1.0), small_disk / "run")
    before = {file.name: file.stat().st_size for file in path.iterdir()}
    room = shutil.disk_usage(small_disk).free
    (small_disk / "other").write_bytes(bytes(max(0, room - free)))

    with pytest.raises(CheckpointError, match=r"could not be written.*No space left"):
        save_checkpoint(model_of(170, 2.0), path, max_shard_size="100KB")

    assert {file.name: file.stat().st_size for file in path.iterdir()} == before
    loaded = model_of(80, 0.0)
    load_checkpoint(loaded, path)
    assert all(bool((parameter == 1.0).all()) for parameter in loaded.parameters())


def test_saving_goes_on_once_there_is_room_again(small_disk: Path) -> None:
    path = save_checkpoint(model_of(80, 1.0), small_disk / "run")
    filler = small_disk / "other"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(model_of(80, 2.0), path)

    filler.unlink()
    save_checkpoint(model_of(80, 3.0), path)

    verify_checkpoint(path)
    assert len(list(path.glob("model-*"))) == 1
