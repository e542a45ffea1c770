"""Thought generation against a plain loop and against transformers' own ``generate``.

Every ratio is of two measurements taken one after the other in one run, CPU time of one thread; the
medians over all rounds are reported. The model is a GPT-2 configuration with random weights, once
with nearly uniform predictions and once with predictions as peaked as a trained model's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from phase3_quietstar.architecture import ThoughtGenerator
from phase3_quietstar.decoding import Sequences

TOP_P = 0.9


@dataclass(frozen=True)
class Setting:
    """What is generated, and from what."""

    batch_size: int = 2
    num_thoughts: int = 4
    length: int = 16
    context: int = 64
    width: int = 256
    layers: int = 4
    vocab_size: int = 50257
    rounds: int = 5


QUICK = Setting(length=4, context=16, width=64, layers=2, vocab_size=5000, rounds=1)


def build(setting: Setting, peaked: bool, device: torch.device) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=setting.layers,
        n_embd=setting.width,
        n_head=4,
        vocab_size=setting.vocab_size,
        n_positions=1024,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval().to(device)
    if peaked:
        with torch.no_grad():
            # Logits of standard deviation 4.8: an entropy of about 3 nats.
            model.transformer.ln_f.weight.fill_(4.8 / (0.02 * setting.width**0.5))
    return model


def plain_loop(model: GPT2LMHeadModel, input_ids: Tensor, setting: Setting) -> Tensor:
    """One thought after another, each step a forward pass over everything and a sort."""
    thoughts = []
    for _ in range(setting.num_thoughts):
        tokens = input_ids
        for _ in range(setting.length):
            probs = model(tokens, use_cache=False).logits[:, -1].softmax(dim=-1)
            descending, order = probs.sort(dim=-1, descending=True)
            outside = descending.cumsum(dim=-1) - descending >= TOP_P
            kept = descending.masked_fill(outside, 0.0)
            drawn = order.gather(-1, torch.multinomial(kept, 1))
            tokens = torch.cat([tokens, drawn], dim=-1)
        thoughts.append(tokens[:, input_ids.shape[1] :])
    return torch.stack(thoughts, dim=1)


def with_generate(model: GPT2LMHeadModel, input_ids: Tensor, setting: Setting) -> Tensor:
    tokens: Tensor = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=TOP_P,
        num_return_sequences=setting.num_thoughts,
        min_new_tokens=setting.length,
        max_new_tokens=setting.length,
    )
    return tokens[:, input_ids.shape[1] :]


def generator_of(
    model: GPT2LMHeadModel, setting: Setting, cuda_graph: bool = False
) -> ThoughtGenerator:
    return ThoughtGenerator(
        model,
        setting.num_thoughts,
        setting.length,
        setting.length,
        top_p=TOP_P,
        cuda_graph=cuda_graph,
    )


def with_thoughts(
    model: GPT2LMHeadModel, input_ids: Tensor, setting: Setting, cuda_graph: bool = False
) -> Tensor:
    return generator_of(model, setting, cuda_graph)(input_ids, input_ids.shape[1] - 1).thoughts


def everywhere(model: GPT2LMHeadModel, input_ids: Tensor, setting: Setting) -> Tensor:
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    sequences = Sequences(model, input_ids)
    return (
        generator_of(model, setting)
        .think_at(sequences, positions.expand(len(input_ids), -1))
        .token_ids
    )


def seconds(call: Callable[[], Tensor], device: torch.device) -> float:
    """CPU time; on CUDA wall time up to the end of the last kernel."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    call()
    return time.process_time() - started


@torch.no_grad()
def compare(setting: Setting, peaked: bool, device: torch.device) -> dict[str, float]:
    model = build(setting, peaked, device)
    generator = torch.Generator().manual_seed(1)
    shape = (setting.batch_size, setting.context)
    input_ids = torch.randint(1, setting.vocab_size, shape, generator=generator).to(device)
    middle = input_ids[:, : setting.context // 2]
    calls: dict[str, Callable[[], Tensor]] = {
        "loop": lambda: plain_loop(model, input_ids, setting),
        "generate": lambda: with_generate(model, input_ids, setting),
        "thoughts": lambda: with_thoughts(model, input_ids, setting),
        "loop, middle position": lambda: plain_loop(model, middle, setting),
        "all positions": lambda: everywhere(model, input_ids, setting),
    }
    if device.type == "cuda":
        calls["CUDA graph"] = lambda: with_thoughts(model, input_ids, setting, cuda_graph=True)
    for name in calls.keys() & {"generate", "thoughts", "CUDA graph"}:
        calls[name]()
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(setting.rounds):
        for name, call in calls.items():
            measured[name].append(seconds(call, device))
    tokens = setting.batch_size * setting.num_thoughts * setting.length
    position = [value / setting.context for value in measured["all positions"]]

    def ratio(slow: list[float], fast: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(slow, fast, strict=True))

    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    step = statistics.median(measured["thoughts"]) / setting.length
    on_cuda = {}
    if "CUDA graph" in measured:
        graphed = statistics.median(measured["CUDA graph"])
        on_cuda = {
            "CUDA graph, tokens/s": tokens / graphed,
            "CUDA graph / generate": ratio(measured["generate"], measured["CUDA graph"]),
            "CUDA graph, weights read, GB/s": weights * setting.length / graphed / 1e9,
        }
    return {
        "loop, tokens/s": tokens / statistics.median(measured["loop"]),
        "generate, tokens/s": tokens / statistics.median(measured["generate"]),
        "thoughts, tokens/s": tokens / statistics.median(measured["thoughts"]),
        "all positions, tokens/s": tokens
        * setting.context
        / statistics.median(measured["all positions"]),
        "thoughts / loop": ratio(measured["loop"], measured["thoughts"]),
        "thoughts / generate": ratio(measured["generate"], measured["thoughts"]),
        "all positions / loop, per position": ratio(measured["loop, middle position"], position),
        "all positions / generate, per position": ratio(measured["generate"], position),
        # Against the device's bandwidth: how near a step is to the time that reading takes.
        "thoughts, weights read, GB/s": weights / step / 1e9,
        **on_cuda,
    }


@torch.no_grad()
def peak_memory(what: str, setting: Setting) -> float:
    """MiB that a call adds to this process' peak; for a process of its own."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(setting, peaked=True, device=device)
    call = {"generate": with_generate, "thoughts": with_thoughts}[what]
    small = Setting(**(asdict(setting) | {"length": 1, "num_thoughts": 1}))
    call(model, torch.ones(1, 8, dtype=torch.long, device=device), small)
    generator = torch.Generator().manual_seed(1)
    shape = (setting.batch_size, setting.context)
    input_ids = torch.randint(1, setting.vocab_size, shape, generator=generator).to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(model, input_ids, setting)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # The peak starts again from what is there now (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_resident_set()
    call(model, input_ids, setting)
    return peak_resident_set() - before


def peak_resident_set() -> float:
    """MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def memory_in_processes(setting: Setting) -> dict[str, float]:
    peaks = {}
    for what in ("generate", "thoughts"):
        command = [
            sys.executable,
            __file__,
            "--peak",
            what,
            "--setting",
            json.dumps(asdict(setting)),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[f"{what}, peak MiB"] = float(result.stdout.split()[-1])
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny model, one round: does it run")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--peak", choices=["generate", "thoughts"], help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_memory(options.peak, Setting(**options.setting)))
        return
    device = torch.device(options.device)
    setting = QUICK if options.quick else Setting()
    if options.rounds:
        setting = Setting(**(asdict(setting) | {"rounds": options.rounds}))
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} thread(s), {setting}")
    for peaked in (True, False):
        print(f"\npredictions {'peaked' if peaked else 'nearly uniform'}")
        for name, value in compare(setting, peaked, device).items():
            print(f"  {name:<40} {value:10.2f}")
    long = Setting(
        **(asdict(setting) | {"context": 64 if options.quick else 768, "num_thoughts": 16})
    )
    print(f"\nmemory beyond the model, context {long.context}, {long.num_thoughts} thoughts")
    for name, value in memory_in_processes(long).items():
        print(f"  {name:<40} {value:10.1f}")


if __name__ == "__main__":
    main()
