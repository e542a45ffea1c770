"""Does thinking before an answer help a tiny model, at equal compute?

The task: a text gives a function f as a table, then a question about it. Half of the texts write
the way out, ``? x f(x) f(f(x))``; the other half only the result, ``! x f(f(x)) .``, which is what
is tested. One layer of attention can look up f once for each token, so that the result by itself
is out of its reach, and the way is within it. Three arms start from the same weights: no thoughts;
thoughts that are only read (no REINFORCE, so that they are extra computation); and the whole
objective. Compute is counted in tokens that pass through the model, a backward pass as two, and is
the same for all arms: without thoughts there are more steps.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from phase3_quietstar.architecture import QuietSTaRModel
from phase3_quietstar.decoding import Sequences
from phase3_quietstar.objective import QuietSTaRObjective

ROOT = Path(__file__).resolve().parent.parent
ARMS = ("without thoughts", "thoughts, no REINFORCE", "thoughts, REINFORCE")
BACKWARD = 2  # in forward passes


@dataclass(frozen=True)
class Setting:
    """The task, the model and the budget."""

    values: int = 5
    width: int = 64
    layers: int = 1
    batch_size: int = 64
    num_thoughts: int = 4
    thought_length: int = 3
    lr: float = 3e-3
    weight_decay: float = 0.01
    thought_steps: int = 500
    test_problems: int = 500
    points: int = 15

    @property
    def context(self) -> int:
        """Tokens of a text: the table, the marker, x, and two more."""
        return self.values + 4

    def tokens_per_problem(self, arm: str) -> int:
        """Tokens through the model for one problem of one step, a backward pass counted as two."""
        if arm == ARMS[0]:
            return self.context * (1 + BACKWARD)
        sampled = self.context + self.num_thoughts * (self.thought_length + 2)
        scored = self.context + self.num_thoughts * (self.thought_length + 2)
        return sampled + scored * (1 + BACKWARD)

    def steps(self, arm: str) -> int:
        budget = self.thought_steps * self.tokens_per_problem(ARMS[2])
        return budget // self.tokens_per_problem(arm)


QUICK = Setting(values=3, width=16, batch_size=8, thought_steps=6, points=2, test_problems=9)


def texts(
    setting: Setting, count: int, generator: torch.Generator, written_out: bool | None = None
) -> Tensor:
    """Texts ``(count, context)``: half of them written out, or as told."""
    values = setting.values
    table = torch.randint(values, (count, values), generator=generator)
    start = torch.randint(values, (count, 1), generator=generator)
    once = table.gather(1, start)
    twice = table.gather(1, once)
    is_long = torch.rand(count, 1, generator=generator) < 0.5
    if written_out is not None:
        is_long = torch.full_like(is_long, written_out)
    long_marker, short_marker, stop = (torch.full_like(start, values + i) for i in range(3))
    marker = torch.where(is_long, long_marker, short_marker)
    rest = torch.where(is_long, torch.cat([once, twice], 1), torch.cat([twice, stop], 1))
    return torch.cat([table, marker, start, rest], dim=-1)


def build(setting: Setting, seed: int) -> QuietSTaRModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=setting.values + 3,
        n_layer=setting.layers,
        n_embd=setting.width,
        n_head=4,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return QuietSTaRModel(
        GPT2LMHeadModel(config),
        setting.width,
        num_thoughts=setting.num_thoughts,
        max_thought_length=setting.thought_length,
        top_p=1.0,
        num_heads=4,
        dropout=0.0,
        # A thought begins as a way that is written out does.
        thought_token_id=setting.values,
    )


def loss_of(
    model: QuietSTaRModel, arm: str, batch: Tensor, setting: Setting, generator: torch.Generator
) -> Tensor:
    if arm == ARMS[0]:
        logits = model.base_model(batch, use_cache=False).logits  # type: ignore[attr-defined]
        all_tokens = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        return 0.5 * all_tokens + 0.5 * F.cross_entropy(logits[:, -3], batch[:, -2])
    objective = QuietSTaRObjective(future_tokens=1, policy_weight=1.0 if arm == ARMS[2] else 0.0)
    before_answer = torch.tensor([setting.context - 3])
    return model.training_loss(batch, objective, positions=before_answer, generator=generator).loss


@torch.no_grad()
def accuracy(model: QuietSTaRModel, arm: str, sequences: Tensor) -> float:
    question, answer = sequences[:, :-2], sequences[:, -2]
    read = Sequences(model.base_model, question)
    if arm == ARMS[0]:
        logits = read.logits[:, -1]
    else:
        last = torch.full((len(question), 1), question.shape[1] - 1)
        generator = torch.Generator().manual_seed(0)
        logits = model.eval().think(read, last, generator=generator)[0][:, 0]
        model.train()
    return (logits.argmax(dim=-1) == answer).double().mean().item()


def train(setting: Setting, arm: str, seed: int) -> dict[str, object]:
    model = build(setting, seed)
    source = torch.Generator().manual_seed(12345)
    direct, long = (texts(setting, setting.test_problems, source, way) for way in (False, True))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=setting.lr, weight_decay=setting.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    steps = setting.steps(arm)
    marks = {round(steps * (i + 1) / setting.points) for i in range(setting.points)}
    curve = []
    started = time.process_time()
    for step in range(1, steps + 1):
        batch = texts(setting, setting.batch_size, generator)
        loss = loss_of(model, arm, batch, setting, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in marks:
            tokens = step * setting.batch_size * setting.tokens_per_problem(arm)
            curve.append((tokens, accuracy(model, arm, direct)))
    return {
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "curve": curve,
        "one_step": accuracy(model, arm, long),
        "direct": curve[-1][1],
        "cpu_seconds": time.process_time() - started,
    }


def table(runs: list[dict[str, object]]) -> str:
    lines = [
        "| arm | steps | accuracy on f(f(x)), each seed | median | f(x), median | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        of_arm = [run for run in runs if run["arm"] == arm]
        direct = [float(str(run["direct"])) for run in of_arm]
        one_step = statistics.median(float(str(run["one_step"])) for run in of_arm)
        cpu = statistics.median(float(str(run["cpu_seconds"])) for run in of_arm)
        each = ", ".join(f"{value:.3f}" for value in direct)
        median = statistics.median(direct)
        lines.append(
            f"| {arm} | {of_arm[0]['steps']} | {each} | {median:.3f} | {one_step:.3f} | {cpu:.0f} |"
        )
    return "\n".join(lines)


def plot(runs: list[dict[str, object]], path: Path, chance: float) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only where there is something to draw

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for colour, arm in zip(("tab:gray", "tab:blue", "tab:red"), ARMS, strict=True):
        for index, run in enumerate(run for run in runs if run["arm"] == arm):
            tokens, values = zip(*run["curve"], strict=True)  # type: ignore[misc]
            millions = [count / 1e6 for count in tokens]
            axes.plot(millions, values, color=colour, alpha=0.8, label=None if index else arm)
    axes.axhline(chance, color="black", linewidth=0.8, linestyle=":", label="chance")
    axes.set_xlabel("compute: tokens through the model (millions, a backward pass as two)")
    axes.set_ylabel("accuracy on f(f(x))")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="best", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of the arms with thoughts")
    parser.add_argument("--plot", type=Path, help="where to save the plot")
    parser.add_argument("--json", type=Path, help="where to save the numbers")
    options = parser.parse_args()
    setting = QUICK if options.quick else Setting()
    if options.steps:
        setting = Setting(thought_steps=options.steps)
    runs = []
    for seed in range(1 if options.quick else options.seeds):
        for arm in ARMS:
            runs.append(train(setting, arm, seed))
            run = runs[-1]
            print(
                f"seed {seed}, {arm}: {run['direct']:.3f} on f(f(x)), {run['one_step']:.3f} on "
                f"f(x), {run['cpu_seconds']:.0f} s",
                flush=True,
            )
    print(f"\n{setting}\n{table(runs)}")
    if options.json:
        options.json.write_text(json.dumps(runs))
    if options.plot:
        plot(runs, options.plot, 1 / setting.values)


if __name__ == "__main__":
    main()
