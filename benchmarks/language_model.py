"""A character-level language model on generated text: loss against steps and against CPU time.

The text is arithmetic and sentences from a small grammar, made here from a seed. AdamW, Muon with
AdamW, and MuonGrokfast with and without its filter get the same model, batches, learning rate and
weight decay.
"""

import argparse
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.mugrokfast.routing import route_model

ROOT = Path(__file__).resolve().parent.parent
NOUNS = ("fox", "river", "stone", "child", "engine", "garden", "letter", "winter")
VERBS = ("finds", "follows", "remembers", "breaks", "paints", "leaves", "hears")
ADJECTIVES = ("old", "quiet", "green", "broken", "early", "narrow")


def text(characters: int, seed: int) -> str:
    """Return sentences and sums; a sentence names its subject again in the end."""
    chance = random.Random(seed)
    lines: list[str] = []
    length = 0
    while length < characters:
        if chance.random() < 0.4:
            a, b = chance.randrange(100), chance.randrange(100)
            line = f"{a} + {b} = {a + b}"
        else:
            subject, thing = chance.sample(NOUNS, 2)
            adjective = chance.choice(ADJECTIVES)
            line = f"the {adjective} {subject} {chance.choice(VERBS)} a {thing}, said the {subject}"
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)[:characters]


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, -1)
        seen = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class CharacterModel(nn.Module):
    def __init__(self, vocabulary: int, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, 4) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(
            self.norm(self.layers(self.tokens(ids) + self.positions.weight[: ids.size(1)]))
        )
        return logits


def optimizers(name: str, model: nn.Module, lr: float, decay: float) -> list[torch.optim.Optimizer]:
    if name == "AdamW":
        return [torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay, fused=True)]
    if name == "Muon":
        routed = route_model(model)
        matrices = [p for _, p, route in routed if route.algorithm == "muon"]
        others = [p for _, p, route in routed if route.algorithm == "adamw"]
        return [
            torch.optim.Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=lr, weight_decay=decay, fused=True),
        ]
    lamb = {"MuonGrokfast": 2.0, "MuonGrokfast λ=0.3": 0.3, "MuonGrokfast λ=0": 0.0}[name]
    return [
        MuonGrokfast(
            model,
            muon_lr=lr,
            fallback_lr=lr,
            weight_decay=decay,
            grokfast_lambda=lamb,
            ns_form="gram",
        )
    ]


NAMES = ("AdamW", "Muon", "MuonGrokfast λ=0", "MuonGrokfast λ=0.3", "MuonGrokfast")


@dataclass
class Run:
    name: str
    seed: int
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def train(name: str, seed: int, options: argparse.Namespace) -> Run:
    characters = text(200_000, seed)
    alphabet = sorted(set(characters))
    ids = torch.tensor([alphabet.index(c) for c in characters], device=options.device)
    cut = int(0.9 * len(ids))
    torch.manual_seed(seed)
    model = CharacterModel(len(alphabet), options.length, options.width, options.layers)
    model = model.to(options.device)
    each = optimizers(name, model, options.lr, options.weight_decay)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda t: min(1.0, (t + 1) / 20)) for o in each
    ]
    chance = torch.Generator().manual_seed(seed)
    held_out = ids[cut : cut + 32 * (options.length + 1)].view(32, -1)
    run = Run(name, seed)
    spent = 0.0
    for step in range(options.steps + 1):
        if step % options.every == 0:
            with torch.no_grad():
                run.losses.append(loss_of(model, held_out).item())
            run.steps.append(step)
            run.seconds.append(spent)
        begun = time.process_time()
        starts = torch.randint(cut - options.length - 1, (options.batch, 1), generator=chance)
        window = starts + torch.arange(options.length + 1)
        for optimizer in each:
            optimizer.zero_grad()
        loss_of(model, ids[window.to(options.device)]).backward()
        for optimizer, schedule in zip(each, schedules, strict=True):
            optimizer.step()
            schedule.step()
        spent += time.process_time() - begun
    return run


def loss_of(model: nn.Module, window: Tensor) -> Tensor:
    return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())


def plot(runs: list[Run], path: Path) -> None:
    # The benchmark runs without matplotlib up to here.
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, both = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained", sharey=True)
    for i, name in enumerate(NAMES):
        mine = [run for run in runs if run.name == name]
        if not mine:
            continue
        losses = [statistics.median(v) for v in zip(*(run.losses for run in mine), strict=True)]
        seconds = [statistics.median(v) for v in zip(*(run.seconds for run in mine), strict=True)]
        both[0].plot(mine[0].steps, losses, color=f"C{i}", label=name)
        both[1].plot(seconds, losses, color=f"C{i}")
    both[0].set(xlabel="steps", ylabel="held-out loss, nats per character", yscale="log")
    both[1].set(xlabel="CPU seconds")
    both[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller model, 200 steps, one seed")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--plot", type=Path, default=ROOT / "docs" / "images" / "language_model.png"
    )
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds = 200, 1
        options.width, options.layers, options.length, options.batch = 64, 2, 64, 16
    print(vars(options), f"torch={torch.__version__}", flush=True)
    runs = []
    print("| optimizer | seed | held-out loss | half way | CPU s |\n|---|---|---|---|---|")
    for seed in range(options.seeds):
        for name in NAMES:
            run = train(name, seed, options)
            runs.append(run)
            middle = run.losses[len(run.losses) // 2]
            cells = (name, seed, f"{run.losses[-1]:.4f}", f"{middle:.4f}", f"{run.seconds[-1]:.1f}")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    plot(runs, options.plot)


if __name__ == "__main__":
    main()
