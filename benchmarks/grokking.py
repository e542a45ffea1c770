"""Steps until a small transformer that has memorised modular multiplication generalises.

The task of Grokfast (arXiv 2405.20233): a · b mod p from half of all pairs. All optimizers get the
same weight decay, learning rate, batches and initial weights; what differs is the optimizer alone.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.mugrokfast.routing import route_model

ROOT = Path(__file__).resolve().parent.parent
TARGET = 0.95


@dataclass(frozen=True)
class Setting:
    """What all optimizers share."""

    p: int = 97
    fraction: float = 0.5
    width: int = 128
    layers: int = 2
    heads: int = 4
    batch: int = 512
    steps: int = 6000
    every: int = 20
    lr: float = 1e-3
    weight_decay: float = 1.0
    alpha: float = 0.98
    lamb: float = 2.0


# Smaller in everything, so that four optimizers and five seeds fit into five minutes of one core.
QUICK = Setting(p=23, fraction=0.7, width=64, layers=1, heads=2, batch=256, steps=1000, every=10)


class Block(nn.Module):
    """A layer of a pre-norm decoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class Decoder(nn.Module):
    """Tokens (B, T) to logits (B, vocabulary) of what follows the last one."""

    def __init__(self, vocabulary: int, length: int, setting: Setting) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, setting.width)
        self.positions = nn.Embedding(length, setting.width)
        self.blocks = nn.ModuleList(
            Block(setting.width, setting.heads) for _ in range(setting.layers)
        )
        self.norm = nn.LayerNorm(setting.width)
        self.head = nn.Linear(setting.width, vocabulary, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.size(1)]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, -1]))
        return logits


def adamw(model: nn.Module, setting: Setting) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.AdamW(
            model.parameters(),
            lr=setting.lr,
            betas=(0.9, 0.98),
            weight_decay=setting.weight_decay,
            fused=True,
        )
    ]


def adamw_grokfast(model: nn.Module, setting: Setting) -> list[torch.optim.Optimizer]:
    group = {"params": list(model.named_parameters()), "algorithm": "adamw"}
    return [_grokfast([group], setting, setting.lamb)]


def muon(model: nn.Module, setting: Setting) -> list[torch.optim.Optimizer]:
    routed = route_model(model)
    return [
        torch.optim.Muon(
            [param for _, param, route in routed if route.algorithm == "muon"],
            lr=setting.lr,
            weight_decay=setting.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [param for _, param, route in routed if route.algorithm == "adamw"],
            lr=setting.lr,
            betas=(0.9, 0.98),
            weight_decay=setting.weight_decay,
            fused=True,
        ),
    ]


def muon_grokfast(model: nn.Module, setting: Setting) -> list[torch.optim.Optimizer]:
    return [_grokfast(model, setting, setting.lamb)]


def _grokfast(
    params: nn.Module | list[dict[str, object]], setting: Setting, lamb: float
) -> MuonGrokfast:
    return MuonGrokfast(
        params,
        muon_lr=setting.lr,
        fallback_lr=setting.lr,
        grokfast_alpha=setting.alpha,
        grokfast_lambda=lamb,
        weight_decay=setting.weight_decay,
        betas=(0.9, 0.98),
    )


OPTIMIZERS: dict[str, Callable[[nn.Module, Setting], list[torch.optim.Optimizer]]] = {
    "AdamW": adamw,
    "AdamW+Grokfast": adamw_grokfast,
    "Muon": muon,
    "MuonGrokfast": muon_grokfast,
}


@dataclass
class Run:
    """One optimizer with one seed."""

    optimizer: str
    seed: int
    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    reached: int | None = None
    cpu_seconds: float = 0.0


def data(setting: Setting, seed: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return inputs (N, 4) and products (N,) for training and for validation."""
    p = setting.p
    a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).unbind(1)
    ids = torch.stack([a, torch.full_like(a, p), b, torch.full_like(a, p + 1)], dim=1)
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(seed))
    cut = int(setting.fraction * p * p)
    products = a * b % p
    return tuple(
        tensor[part].to(device) for part in (order[:cut], order[cut:]) for tensor in (ids, products)
    )


@torch.no_grad()
def accuracy(model: nn.Module, ids: Tensor, products: Tensor) -> float:
    return (model(ids).argmax(1) == products).float().mean().item()


def train(name: str, setting: Setting, seed: int, device: torch.device, *, on: bool) -> Run:
    """Train until the target is reached, or, with ``on``, for all steps."""
    ids, products, other_ids, other_products = data(setting, seed, device)
    torch.manual_seed(seed)
    model = Decoder(setting.p + 2, 4, setting).to(device)
    optimizers = OPTIMIZERS[name](model, setting)
    # Ten steps of warm-up, as the paper has them.
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda t: min(1.0, (t + 1) / 10)) for o in optimizers
    ]
    batches = torch.Generator().manual_seed(seed)
    run = Run(name, seed)
    started = time.process_time()
    for step in range(1, setting.steps + 1):
        chosen = torch.randint(len(ids), (setting.batch,), generator=batches).to(device)
        loss = F.cross_entropy(model(ids[chosen]), products[chosen])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % setting.every == 0:
            run.steps.append(step)
            run.train.append(accuracy(model, ids, products))
            run.validation.append(accuracy(model, other_ids, other_products))
            if run.reached is None and run.validation[-1] >= TARGET:
                run.reached = step
                if not on:
                    break
    run.cpu_seconds = time.process_time() - started
    return run


def table(runs: list[Run], steps: int) -> str:
    lines = [
        "| optimizer | steps to 95 % validation, median | range | reached | CPU s a step |",
        "|---|---|---|---|---|",
    ]
    for name in OPTIMIZERS:
        mine = [run for run in runs if run.optimizer == name]
        if not mine:
            continue
        reached = sorted(run.reached or math.inf for run in mine)
        shown = [f"{r:.0f}" if r < math.inf else f"> {steps}" for r in reached]
        median = statistics.median(reached)
        middle = f"{median:.0f}" if median < math.inf else f"> {steps}"
        cost = statistics.median(run.cpu_seconds / run.steps[-1] for run in mine)
        count = sum(run.reached is not None for run in mine)
        lines.append(
            f"| {name} | {middle} | {shown[0]} to {shown[-1]} | {count} of {len(mine)} "
            f"| {cost:.4f} |"
        )
    return "\n".join(lines)


def plot(runs: list[Run], setting: Setting, path: Path) -> None:
    # The benchmark runs without matplotlib up to here.
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for i, name in enumerate(OPTIMIZERS):
        for k, run in enumerate(run for run in runs if run.optimizer == name):
            label = name if k == 0 else None
            axes.plot(run.steps, run.validation, color=f"C{i}", alpha=0.7, lw=1, label=label)
    axes.axhline(TARGET, color="grey", lw=0.8, ls="--")
    axes.set(
        xlabel="steps",
        ylabel="validation accuracy",
        title=f"a · b mod {setting.p}, weight decay {setting.weight_decay:g}, one line per seed",
    )
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small form for one CPU core")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="at most so many")
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--lamb", type=float, help="Grokfast's amplification")
    parser.add_argument("--p", type=int, help="the modulus")
    parser.add_argument("--only", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--on", action="store_true", help="do not stop a run that is there")
    parser.add_argument("--minutes", type=float, help="begin no further seed after so long")
    parser.add_argument("--json", type=Path, help="write the curves to this file")
    parser.add_argument("--plot", type=Path, help="default: docs/images/grokking[-quick].png")
    options = parser.parse_args()
    changes = {
        name: value
        for name in ("steps", "weight_decay", "lamb", "p")
        if (value := getattr(options, name)) is not None
    }
    setting = Setting(**{**asdict(QUICK if options.quick else Setting()), **changes})
    print(setting, f"device={options.device} torch={torch.__version__}", flush=True)
    runs: list[Run] = []
    started = time.monotonic()
    for seed in range(options.seeds):
        if options.minutes and time.monotonic() - started > 60 * options.minutes:
            print(f"stopping after {seed} seeds: {options.minutes:g} minutes are over")
            break
        for name in options.only:
            run = train(name, setting, seed, torch.device(options.device), on=options.on)
            runs.append(run)
            print(
                f"seed {seed} {name:<15} 95 % at {run.reached or '-':>5}, last validation "
                f"{run.validation[-1]:.3f}, {run.cpu_seconds:.1f} CPU s",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps([asdict(r) for r in runs]))
    print(table(runs, setting.steps))
    name = "grokking-quick.png" if options.quick else "grokking.png"
    plot(runs, setting, options.plot or ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main()
