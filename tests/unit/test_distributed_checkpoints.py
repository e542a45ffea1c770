"""Checkpoints of models that are spread over processes, with real ones over gloo."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import GPT2Config, GPT2LMHeadModel

from cross_phase.utils import CheckpointError, load_checkpoint, save_checkpoint, verify_checkpoint
from cross_phase.utils.distributed_checkpoints import (
    load_distributed_checkpoint,
    save_distributed_checkpoint,
)

pytestmark = [
    pytest.mark.skipif(
        not (hasattr(os, "fork") and dist.is_available() and dist.is_gloo_available()),
        reason="needs processes that can be forked, and gloo",
    ),
    pytest.mark.filterwarnings("ignore"),
]

INPUTS = torch.linspace(-1, 1, 24).reshape(4, 6)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def spread(model: nn.Module) -> nn.Module:
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(INPUTS).square().sum().backward()
    optimizer.step()


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).clone()
        for name, t in model.state_dict().items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def in_processes(count: int, work: Callable[[int], None]) -> None:
    """Run work in that many processes that know each other; what one prints is shown."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    children = []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                dist.init_process_group("gloo", rank=rank, world_size=count)
                work(rank)
                dist.barrier()
                code = 0
            except BaseException as error:  # noqa: BLE001 - a child must never return to pytest
                print(f"process {rank}: {type(error).__name__}: {error}", flush=True)
            os._exit(code)
        children.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert statuses == [0] * count


def test_a_spread_model_goes_on_bit_for_bit_and_one_process_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "run"

    def work(rank: int) -> None:
        model = spread(network(0))
        optimizer = adamw(model)
        step(model, optimizer)
        save_distributed_checkpoint(
            model,
            path,
            optimizer,
            {"lr": 0.1},
            training_state={"seen": torch.arange(3)},
            max_shard_size=200,
        )
        saved = whole(model)
        step(model, optimizer)
        other = spread(network(1))
        other_optimizer = adamw(other)
        result = load_distributed_checkpoint(other, path, other_optimizer)
        assert same(saved, whole(other))
        assert result["config"] == {"lr": 0.1}
        assert result["training_state"]["seen"].tolist() == [0, 1, 2]
        step(other, other_optimizer)
        assert same(whole(model), whole(other))

    in_processes(2, work)

    summary = verify_checkpoint(path)
    assert summary.files > 3
    alone, reference = network(2), network(0)
    optimizer, reference_optimizer = adamw(alone), adamw(reference)
    step(reference, reference_optimizer)
    state = load_checkpoint(alone, path, load_optimizer=True)["optimizer_state_dict"]
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    set_optimizer_state_dict(alone, optimizer, state, options=options)
    expected = reference.state_dict()
    for name, tensor in alone.state_dict().items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name
    assert all(float(state["step"]) == 1 for state in optimizer.state.values())
    leftovers = [p for p in path.iterdir() if p.name.startswith(".") or p.is_dir()]
    assert leftovers == []


def test_what_one_process_saved_is_spread_over_several_ties_included(tmp_path: Path) -> None:
    def gpt2(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        return GPT2LMHeadModel(config)

    path = save_checkpoint(gpt2(0), tmp_path / "run")

    def work(rank: int) -> None:
        model = gpt2(1)
        load_distributed_checkpoint(spread(model), path)
        assert same(whole(model), whole(gpt2(0)))
        save_distributed_checkpoint(model, tmp_path / "again")

    in_processes(2, work)

    other = gpt2(2)
    load_checkpoint(other, tmp_path / "again")
    assert same(dict(other.state_dict()), dict(gpt2(0).state_dict()))
    # Stored once, as transformers does.
    assert verify_checkpoint(tmp_path / "again").tensors == verify_checkpoint(path).tensors


def test_a_failure_in_one_process_fails_all_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = save_checkpoint(network(0), tmp_path / "run")
    before = sorted(file.name for file in path.iterdir())

    def work(rank: int) -> None:
        model = spread(network(1))
        state: dict[str, Any] = {"x": {1, 2}} if rank == 1 else {}
        with pytest.raises(CheckpointError, match=r"not saved, by process 1: .*builtins.set"):
            save_distributed_checkpoint(model, path, training_state=state)

    in_processes(2, work)

    assert sorted(file.name for file in path.iterdir()) == before
    verify_checkpoint(path)


def test_a_damaged_or_foreign_checkpoint_changes_nothing_in_any_process(tmp_path: Path) -> None:
    path = save_checkpoint(network(0), tmp_path / "run")
    other = save_checkpoint(nn.Linear(2, 2), tmp_path / "other")
    (file,) = path.glob("model-*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    def work(rank: int) -> None:
        model = spread(network(1))
        before = whole(model)
        with pytest.raises(CheckpointError, match="is damaged: the checksum of tensor"):
            load_distributed_checkpoint(model, path)
        with pytest.raises(CheckpointError, match="does not fit the model"):
            load_distributed_checkpoint(model, other)
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            load_distributed_checkpoint(model, tmp_path / "nowhere")
        assert same(before, whole(model))

    in_processes(2, work)


def test_one_process_without_a_group_saves_and_loads_too(tmp_path: Path) -> None:
    model, other = network(0), network(1)
    optimizer, other_optimizer = adamw(model), adamw(other)
    step(model, optimizer)

    path = save_distributed_checkpoint(model, tmp_path / "run", optimizer)
    load_distributed_checkpoint(other, path, other_optimizer)
    step(model, optimizer)
    step(other, other_optimizer)

    assert same(dict(model.state_dict()), dict(other.state_dict()))
    with pytest.raises(CheckpointError, match="another optimizer"):
        load_distributed_checkpoint(other, path, torch.optim.SGD(other.parameters(), momentum=0.9))
    plain = save_checkpoint(model, tmp_path / "plain", optimizer_state=optimizer.state_dict())
    with pytest.raises(CheckpointError, match="by parameter names"):
        load_distributed_checkpoint(other, plain, other_optimizer)


def test_a_spread_model_is_refused_where_it_would_be_saved_in_parts(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        model = spread(network(0))
        with pytest.raises(CheckpointError, match="save_distributed_checkpoint"):
            save_checkpoint(model, tmp_path / f"run{rank}")
        path = save_distributed_checkpoint(model, tmp_path / "run")
        with pytest.raises(CheckpointError, match="load_distributed_checkpoint"):
            load_checkpoint(model, path)

    in_processes(2, work)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
