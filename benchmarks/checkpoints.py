"""Saving and loading checkpoints, against bare safetensors and torch.save / torch.load.

Every measurement is a fresh process, which does its work three times: its time is the least of
them, its peak memory that of the first. Those of one round come right after each other, and a
ratio is the median over the rounds of the ratios within a round.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cross_phase.utils import load_checkpoint, save_checkpoint

LAYER = 2048
REPEATS = 3


def model_of(megabytes: int) -> nn.Module:
    torch.manual_seed(0)
    count = max(1, round(megabytes * 1e6 / (LAYER * LAYER * 4)))
    layers = [nn.Linear(LAYER, LAYER, bias=False, device="meta") for _ in range(count)]
    model = nn.Sequential(*layers).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.rand(()).item())
    return model


def bytes_of(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def save_bare(model: nn.Module, folder: Path) -> None:
    save_file(dict(model.state_dict()), folder / "bare.safetensors")


def save_bare_fsync(model: nn.Module, folder: Path) -> None:
    save_bare(model, folder)
    sync(folder / "bare.safetensors")


def save_torch_fsync(model: nn.Module, folder: Path) -> None:
    torch.save(model.state_dict(), folder / "torch.pt")
    sync(folder / "torch.pt")


def load_bare(model: nn.Module, folder: Path) -> None:
    model.load_state_dict(load_file(folder / "bare.safetensors"))


def load_torch_only(folder: Path) -> object:
    return torch.load(folder / "torch.pt", weights_only=True)


def load_torch(model: nn.Module, folder: Path) -> None:
    model.load_state_dict(torch.load(folder / "torch.pt", weights_only=True))


SAVES: dict[str, Callable[[nn.Module, Path], object]] = {
    "safetensors save_file": save_bare,
    "safetensors save_file + fsync": save_bare_fsync,
    "torch.save + fsync": save_torch_fsync,
    "save_checkpoint": lambda model, folder: save_checkpoint(model, folder / "ours"),
    "save_checkpoint, sha256": lambda model, folder: save_checkpoint(
        model, folder / "sha256", checksum="sha256"
    ),
}


def prepare(model: nn.Module, folder: Path) -> None:
    """Write what the loads read."""
    for name in ("safetensors save_file", "torch.save + fsync", "save_checkpoint"):
        SAVES[name](model, folder)


LOADS: dict[str, Callable[[nn.Module, Path], object]] = {
    "torch.load, into no model": lambda _, folder: load_torch_only(folder),
    "torch.load + load_state_dict": load_torch,
    "load_file + load_state_dict": load_bare,
    "load_checkpoint": lambda model, folder: load_checkpoint(model, folder / "ours"),
    "load_checkpoint, mmap": lambda model, folder: load_checkpoint(
        model, folder / "ours", mmap=True
    ),
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, megabytes: int, folder: Path) -> None:
    """Print one measurement as JSON."""
    model = model_of(megabytes)
    work = {**SAVES, **LOADS, "prepare": prepare}[name]
    before = peak_bytes()
    walls, cpus, peak = [], [], 0.0
    for _ in range(1 if name == "prepare" else REPEATS):
        if name not in LOADS:
            # All of them write new files: to overwrite one means to free its blocks first.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        cpu, wall = cpu_seconds(), time.perf_counter()
        kept = work(model, folder)
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu_seconds() - cpu)
        # Above the process with the model in it, as a share of the model.
        peak = peak or (peak_bytes() - before) / bytes_of(model)
        del kept
    result = {"wall": min(walls), "cpu": min(cpus), "peak": peak}
    print(json.dumps(result))


def in_fresh_process(name: str, megabytes: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, "--folder", str(folder)]
    result = subprocess.run(
        [*command, "--megabytes", str(megabytes)], capture_output=True, text=True, check=True
    )
    measured: dict[str, float] = json.loads(result.stdout)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench checkpoints", description=__doc__)
    parser.add_argument("--full", action="store_true", help="5 GB instead of 500 MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, help="another size")
    parser.add_argument("--folder", type=Path, help="where to write; must be empty, is emptied")
    parser.add_argument("--measure", choices=[*SAVES, *LOADS, "prepare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    megabytes = options.megabytes or (5000 if options.full else 500)
    if options.measure:
        measure(options.measure, megabytes, options.folder)
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-checkpoints-", dir=options.folder))
    try:
        rounds = []
        for number in range(options.rounds):
            # Every other round backwards, so that no one always comes after the same.
            saves, loads = (list(names)[:: 1 - 2 * (number % 2)] for names in (SAVES, LOADS))
            measured = {name: in_fresh_process(name, megabytes, folder / "saves") for name in saves}
            in_fresh_process("prepare", megabytes, folder / "loads")
            measured.update(
                {name: in_fresh_process(name, megabytes, folder / "loads") for name in loads}
            )
            rounds.append(measured)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)
    print(f"\n{megabytes} MB, {options.rounds} rounds, medians; torch {torch.__version__}\n")
    report("save", list(SAVES), "safetensors save_file + fsync", rounds)
    report("load", list(LOADS), "torch.load + load_state_dict", rounds)


def report(
    what: str, names: list[str], base: str, rounds: list[dict[str, dict[str, float]]]
) -> None:
    print(f"| {what} | wall s | CPU s | wall ratio | CPU ratio | peak above, of the model |")
    print("|---|---|---|---|---|---|")
    for name in names:
        cells = [name]
        cells += [f"{statistics.median(r[name][k] for r in rounds):.3f}" for k in ("wall", "cpu")]
        cells += [
            f"{statistics.median(r[name][k] / r[base][k] for r in rounds):.2f}"
            for k in ("wall", "cpu")
        ]
        cells.append(f"{statistics.median(r[name]['peak'] for r in rounds):.2f}")
        print(f"| {' | '.join(cells)} |")
    print(f"\nRatios to {base}.\n")


if __name__ == "__main__":
    main()
