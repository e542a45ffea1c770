"""The memory model of calculate_safe_batch_size against the peak of real training steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc to measure"
)

# Run in a process of its own, whose allocator gives every large tensor back at once.
SCRIPT = """
import json, os, warnings
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging
from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.utils import calculate_safe_batch_size, get_model_size
logging.set_verbosity_error()

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

OPTIMIZERS = {
    "adamw": lambda model: torch.optim.AdamW(model.parameters()),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "muon_grokfast": MuonGrokfast,
}

def used_share(width, layers, vocabulary, length, dtype, optimizer_name, dropout, memory_gb):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=vocabulary, n_positions=length, n_embd=width, n_layer=layers,
        n_head=width // 64, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        bos_token_id=0, eos_token_id=0, use_cache=False)).to(getattr(torch, dtype)).train()
    optimizer = OPTIMIZERS[optimizer_name](model)
    batch = calculate_safe_batch_size(
        model, memory_gb, sequence_length=length, optimizer=optimizer_name,
        fused_attention=dropout == 0)
    without_tensors = status("VmRSS") - get_model_size(model)["size_mb"] * 2**20

    def step(size):
        tokens = torch.randint(0, vocabulary, (size, length))
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(1)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    step(batch)
    return batch, (status("VmHWM") - without_tensors) / (memory_gb * 2**30)

for case in json.loads(os.environ["CASES"]):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(used_share(*case)).encode())
        os._exit(0)
    os.close(writing)
    print(os.read(reading, 100).decode(), flush=True)
    os.wait()
"""

# width, layers, vocabulary, length, dtype, optimizer, dropout, memory in GiB
CASES = [
    (256, 4, 1000, 128, "float32", "adamw", 0.0, 0.16),
    (256, 2, 1000, 256, "float32", "sgd", 0.1, 0.2),
    (128, 2, 8000, 128, "bfloat16", "adamw", 0.0, 0.16),
    (256, 2, 1000, 128, "float32", "muon_grokfast", 0.0, 0.16),
]


def test_the_batch_trains_within_the_memory_and_uses_most_of_it() -> None:
    environment = {
        "CASES": json.dumps(CASES),
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    }
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    measured = [json.loads(line) for line in result.stdout.splitlines()]

    assert len(measured) == len(CASES)
    for case, (batch, share) in zip(CASES, measured, strict=True):
        assert batch > 3, case
        assert 0.45 < share <= 1.0, (case, batch, share)
