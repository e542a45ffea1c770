"""What a call of log_metrics costs training, against a step of 10 ms.

A step is 10 ms of matrix products in torch, which leave Python's lock free as training does; steps
with and without tracking alternate, so that what else the machine does meets both alike.
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from cross_phase.monitoring.trackers import create_tracker

NAMES = [f"metric_{number}" for number in range(10)]


def make_step(target: float) -> Any:
    a = torch.randn(256, 256)

    def products(count: int) -> None:
        for _ in range(count):
            torch.mm(a, a)

    products(200)
    # The thread's own time: others on the machine must not make the step shorter.
    started = time.thread_time()
    products(2000)
    count = max(1, round(target * 2000 / (time.thread_time() - started)))
    return lambda: products(count)


def measure(tracker: str, steps: int, folder: Path) -> tuple[float, float, float, float]:
    """Return medians of a step, of the call's CPU time and of the longer step, and its mean."""
    options: dict[str, Any] = {} if tracker == "none" else {"directory": folder}
    plain, logged, calls = [], [], []
    step = make_step(0.010)
    with create_tracker(tracker, **options) as run:  # type: ignore[arg-type]
        run.init_phase_run(1, {}, "bench")
        for number in range(steps):
            started = time.perf_counter()
            step()
            plain.append(time.perf_counter() - started)
            started, cpu = time.perf_counter(), time.thread_time()
            run.log_metrics(dict.fromkeys(NAMES, 1.0 / (number + 1)), step=number)
            calls.append(time.thread_time() - cpu)
            step()
            logged.append(time.perf_counter() - started)
        run.flush()
    longer = sorted(b - a for a, b in zip(plain, logged, strict=True))
    mean = statistics.mean(longer[steps // 20 : steps - steps // 20])
    return statistics.median(plain), statistics.median(calls), statistics.median(longer), mean


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench tracking", description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    logging.basicConfig()
    print("| tracker | step ms | the call, CPU µs | share | longer step, µs | share | mean, µs |")
    print("|---|---|---|---|---|---|---|")
    for tracker in ("none", "tensorboard", "wandb"):
        with tempfile.TemporaryDirectory(prefix="bench-tracking-") as folder:
            step, call, longer, mean = measure(tracker, options.steps, Path(folder))
        cells = f"{step * 1e3:.2f} | {call * 1e6:.0f} | {call / step:.2%} | {longer * 1e6:.0f}"
        print(f"| {tracker} | {cells} | {longer / step:.2%} | {mean * 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
