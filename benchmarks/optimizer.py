"""Cost of one optimizer step, as a ratio to torch.optim.Muon with fused AdamW in the same run.

Every round runs each alternative once, in turn, on the same parameters and gradients; the ratios
are taken within a round, and the median over the rounds is shown. On the CPU the time is that of
the thread, on CUDA that of events.
"""

import argparse
import ctypes
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.mugrokfast.muon import lr_ratio, matrix_shape

BASELINE = "torch Muon + AdamW"
Step = Callable[[], object]
Shapes = list[tuple[int, ...]]


def transformer(layers: int, width: int, vocabulary: int) -> Shapes:
    """Shapes of a GPT-2: fused qkv, output, MLP; embeddings, norms and biases."""
    layer: Shapes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    vectors: Shapes = [(3 * width,), (width,), (4 * width,), (width,), *[(width,)] * 4]
    return layer * layers + vectors * layers + [(vocabulary, width), (1024, width)]


CPU_SIZES: dict[str, Shapes] = {
    "48 × (32 × 32)": [(32, 32)] * 48,
    "48 × (64 × 64)": [(64, 64)] * 48,
    "48 × (64 × 256)": [(64, 256)] * 48,
    "48 × (128 × 128)": [(128, 128)] * 48,
    "48 × (8 × 768), rank 8": [(8, 768)] * 48,
    "48 × (128 × 512)": [(128, 512)] * 48,
    "12 × (256 × 256)": [(256, 256)] * 12,
    "8 × (512 × 512)": [(512, 512)] * 8,
    "GPT-2 small, 2 layers": transformer(2, 768, 50257),
}
FULL_SIZES: dict[str, Shapes] = {"GPT-2 small, 12 layers": transformer(12, 768, 50257)}
CUDA_SIZES: dict[str, Shapes] = {"1.3 B, 24 layers": transformer(24, 2048, 50257)}


def is_matrix(shape: tuple[int, ...]) -> bool:
    # An embedding is AdamW's.
    return len(shape) == 2 and shape[0] not in (1024, 50257)


def torch_muon(params: list[nn.Parameter]) -> Step:
    matrices = [p for p in params if is_matrix(tuple(p.shape))]
    others = [p for p in params if not is_matrix(tuple(p.shape))]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=1e-4, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    ]
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=1e-4, weight_decay=0.1, fused=True))
    return lambda: [optimizer.step() for optimizer in optimizers]


def eager_loop(params: list[nn.Parameter]) -> Step:
    """Grokfast, Muon and AdamW written down parameter by parameter, as in the papers."""
    state: dict[nn.Parameter, dict[str, Any]] = {p: {} for p in params}

    @torch.no_grad()
    def step() -> None:
        for p in params:
            s, g = state[p], p.grad
            assert g is not None
            s["ema"] = s["ema"] * 0.98 + g * 0.02 if "ema" in s else g.clone()
            g = g + 2.0 * s["ema"]
            p.mul_(1 - 1e-4 * 0.1)
            if is_matrix(tuple(p.shape)):
                s["buf"] = s["buf"] * 0.95 + g * 0.05 if "buf" in s else g * 0.05
                update = orthogonal(g * 0.05 + s["buf"] * 0.95)
                p.add_(update, alpha=-1e-4 * lr_ratio(matrix_shape(p.shape), "match_rms_adamw"))
            else:
                s["t"] = s.get("t", 0) + 1
                s["m"] = s["m"] * 0.9 + g * 0.1 if "m" in s else g * 0.1
                s["v"] = s["v"] * 0.999 + g * g * 0.001 if "v" in s else g * g * 0.001
                m, v = s["m"] / (1 - 0.9 ** s["t"]), s["v"] / (1 - 0.999 ** s["t"])
                p.add_(m / (v.sqrt() + 1e-8), alpha=-1e-4)

    return step


def orthogonal(matrix: Tensor) -> Tensor:
    x = matrix.bfloat16()
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def muon_grokfast(**options: Any) -> Callable[[list[nn.Parameter]], Step]:
    def build(params: list[nn.Parameter]) -> Step:
        groups = [
            {"params": members, "algorithm": algorithm}
            for algorithm, members in (
                ("muon", [p for p in params if is_matrix(tuple(p.shape))]),
                ("adamw", [p for p in params if not is_matrix(tuple(p.shape))]),
            )
            if members
        ]
        optimizer = MuonGrokfast(
            groups, muon_lr=1e-4, fallback_lr=1e-4, weight_decay=0.1, **options
        )
        return optimizer.step

    return build


ALTERNATIVES: dict[str, Callable[[list[nn.Parameter]], Step]] = {
    BASELINE: torch_muon,
    "eager loop": eager_loop,
    "λ=0": muon_grokfast(grokfast_lambda=0.0),
    "λ=0, gram": muon_grokfast(grokfast_lambda=0.0, ns_form="gram"),
    "λ=2": muon_grokfast(),
    "λ=2, gram": muon_grokfast(ns_form="gram"),
    "λ=2, gram, bf16 state": muon_grokfast(ns_form="gram", state_dtype=torch.bfloat16),
}


def seconds(run: Step, device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000
    begun = time.thread_time()
    run()
    return time.thread_time() - begun


def matmul_rate(device: torch.device) -> float:
    """Return the best bfloat16 FLOP/s of a large square product."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).bfloat16()
    best = min(seconds(lambda: a @ a, device) for _ in range(10))
    return 2 * size**3 / best


def standard_flops(shapes: Shapes) -> int:
    """Multiplications and additions of five standard Newton-Schulz iterations."""
    total = 0
    for shape in filter(is_matrix, shapes):
        short, long = sorted(shape)
        total += 5 * (4 * short * short * long + 2 * short**3)
    return total


def peak_bytes(run: Step, device: torch.device) -> int | None:
    """Return how much more memory one step takes than there was before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        # Linux with glibc: gives back what is free, and makes the peak the present value.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


def rounds(shapes: Shapes) -> int:
    return max(3, min(40, int(4e11 / max(1, standard_flops(shapes)))))


def measure(
    shapes: Shapes, names: list[str], device: torch.device, count: int
) -> Iterator[tuple[str, float, float, float, int | None]]:
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=generator).to(device)) for s in shapes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(device)
    steps = {name: ALTERNATIVES[name](params) for name in names}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(count):
        # Whoever runs first pays for the others' caches.
        order = names[turn % len(names) :] + names[: turn % len(names)]
        for name in order:
            times[name].append(seconds(steps[name], device))
    for name in names:
        ratios = [b / t for b, t in zip(times[BASELINE], times[name], strict=True)]
        spread = statistics.quantiles(ratios, n=4) if len(ratios) > 3 else [min(ratios)] * 3
        peak = peak_bytes(steps[name], device) if sum(map(math.prod, shapes)) > 10**7 else None
        yield name, statistics.median(times[name]), statistics.median(ratios), spread[0], peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, no GPT-2")
    parser.add_argument("--full", action="store_true", help="GPT-2 small with all 12 layers, too")
    parser.add_argument("--rounds", type=int, help="rounds for each size; by default by its cost")
    parser.add_argument("--only", nargs="+", choices=list(ALTERNATIVES), metavar="ALTERNATIVE")
    parser.add_argument("--size", help="only sizes with this in their name")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    sizes = dict(CPU_SIZES)
    if options.quick:
        sizes = {name: shapes for name, shapes in sizes.items() if "GPT" not in name}
    if options.full or device.type == "cuda":
        sizes |= FULL_SIZES
    if device.type == "cuda":
        sizes |= CUDA_SIZES
    names = [n for n in ALTERNATIVES if n == BASELINE or n in (options.only or ALTERNATIVES)]
    rate = matmul_rate(device)
    print(
        f"{device}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), "
        f"bf16 product {rate / 1e9:.0f} GFLOP/s"
    )
    for size, shapes in sizes.items():
        if options.size and options.size not in size:
            continue
        count = options.rounds or (4 if options.quick else rounds(shapes))
        floor = standard_flops(shapes) / rate
        print(
            f"\n{size}: {count} rounds, floor of the standard products {1000 * floor:.1f} ms\n"
            "| optimizer | ms | times faster | lower quartile | floor / time | peak |\n"
            "|---|---|---|---|---|---|"
        )
        for name, median, ratio, low, peak in measure(shapes, names, device, count):
            memory = "" if peak is None else f"{peak / 2**20:.0f} MiB"
            print(
                f"| {name} | {1000 * median:.1f} | {ratio:.2f} | {low:.2f} | "
                f"{floor / median:.2f} | {memory} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
