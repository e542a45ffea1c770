"""MuonGrokfast over several processes against one process.

Every test runs in real processes of the gloo backend; a server that has imported torch once forks
them.
"""

import multiprocessing
import multiprocessing.connection
import os
import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import cross_phase.mugrokfast.optimizer as optimizer_module
from cross_phase.mugrokfast import MuonGrokfast

OPTIONS: dict[str, Any] = {"muon_lr": 0.02, "fallback_lr": 0.01, "weight_decay": 0.1}


def build() -> nn.Module:
    """Sizes that 2 and 4 processes cannot divide, fewer rows than processes, a convolution."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=1),
        nn.Flatten(),
        nn.Linear(30, 17),
        nn.ReLU(),
        nn.Linear(17, 17, bias=False),
        nn.Linear(17, 18),
        nn.LayerNorm(18),
        nn.Linear(18, 3),
    )


def inputs(seed: int) -> Tensor:
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        model(inputs(seed)).square().mean().backward()
        optimizer.step()


def whole(param: Tensor) -> Tensor:
    return param.full_tensor() if isinstance(param, DTensor) else param.detach()


def assert_same_bits(model: nn.Module, other: nn.Module) -> None:
    for (name, param), other_param in zip(
        model.named_parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(whole(param), whole(other_param)), name


def reference(steps: int = 3, **options: Any) -> nn.Module:
    model = build()
    train(model, optimizer_for(model, **options), range(steps))
    return model


def optimizer_for(model: nn.Module, **options: Any) -> MuonGrokfast:
    optimizer = MuonGrokfast(model, **OPTIONS, **options)
    for group in optimizer.param_groups:
        # The fused kernel rounds the end of a vector differently, and shards end elsewhere.
        group["fused"] = False
    return optimizer


def sharded(**options: Any) -> tuple[nn.Module, MuonGrokfast]:
    model = build()
    fully_shard(model[2])
    fully_shard(model)
    return model, optimizer_for(model, **options)


def counted(run: Callable[[], None]) -> list[int]:
    """Return how many matrices each process orthogonalises during ``run``."""
    original = optimizer_module.orthogonalize
    mine = torch.zeros(1, dtype=torch.int64)

    def counting(matrices: list[Tensor], **options: Any) -> list[Tensor]:
        mine.add_(len(matrices))
        return original(matrices, **options)

    optimizer_module.orthogonalize = counting
    try:
        run()
    finally:
        optimizer_module.orthogonalize = original
    counts = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    return [int(count) for count in counts]


def check_replicas_share_the_matrices_and_agree_with_one_process() -> None:
    model = build()
    optimizer = optimizer_for(model, process_group=dist.group.WORLD)
    counts = counted(lambda: train(model, optimizer, range(3)))
    assert sum(counts) == 3 * 5
    assert min(counts) >= 3
    assert_same_bits(model, reference())


def check_distributed_data_parallel_trains_like_one_process_on_the_whole_batch() -> None:
    world, rank = dist.get_world_size(), dist.get_rank()
    model = DistributedDataParallel(build())
    optimizer = optimizer_for(model, process_group=dist.group.WORLD)
    for seed in range(3):
        optimizer.zero_grad()
        model(inputs(seed).chunk(world)[rank]).square().mean().backward()
        optimizer.step()
    for param, expected in zip(model.parameters(), reference().parameters(), strict=True):
        torch.testing.assert_close(param, expected, rtol=0, atol=2e-3)
    first = model.module[2].weight.detach().clone()
    dist.broadcast(first, src=0)
    assert torch.equal(first, model.module[2].weight)


def check_shards_agree_with_one_process_and_each_matrix_is_done_once() -> None:
    model, optimizer = sharded()
    counts = counted(lambda: train(model, optimizer, range(3)))
    assert sum(counts) == 3 * 5
    assert min(counts) >= 3
    assert isinstance(optimizer.state[model[2].weight]["momentum_buffer"], DTensor)
    assert_same_bits(model, reference())
    single = build()
    twin = optimizer_for(single)
    train(single, twin, range(3))
    assert optimizer.get_mu_norm() == pytest.approx(twin.get_mu_norm(), rel=1e-5)


def check_sharded_options_agree_with_one_process() -> None:
    for options in (
        {"muon_ste_mode": True},
        {"ns_form": "gram", "state_dtype": torch.bfloat16},
        {"nesterov": False, "maximize": True, "nonfinite_grads": "skip"},
    ):
        model, optimizer = sharded(**options)
        train(model, optimizer, range(2))
        other = reference(2, **options)
        for param, expected in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(whole(param), expected.detach(), rtol=1e-6, atol=1e-6)


def check_a_sharded_optimizer_resumes_from_its_distributed_state() -> None:
    model, optimizer = sharded()
    train(model, optimizer, range(2))
    saved = deepcopy(get_optimizer_state_dict(model, optimizer))
    assert "2.weight" in saved["state"]
    other, restored = sharded()
    with torch.no_grad():
        for param, value in zip(other.parameters(), model.parameters(), strict=True):
            param.copy_(value)
    set_optimizer_state_dict(other, restored, saved)
    train(model, optimizer, range(2, 4))
    train(other, restored, range(2, 4))
    assert_same_bits(other, model)


def check_a_nan_in_one_shard_skips_the_step_everywhere() -> None:
    model, optimizer = sharded(nonfinite_grads="skip")
    train(model, optimizer, range(1))
    before = [whole(param).clone() for param in model.parameters()]
    model(inputs(1)).square().mean().backward()
    if dist.get_rank() == 1:
        model[2].weight.grad.to_local()[0, 0] = float("nan")
    optimizer.step()
    assert optimizer.skipped_steps == 1
    for param, expected in zip(model.parameters(), before, strict=True):
        assert torch.equal(whole(param), expected)


def check_hidden_layouts_of_two_dimensions_agree_with_one_process() -> None:
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("a", "b"))
    model = build()
    train(model, optimizer_for(model), range(1))
    full = build()
    named = dict(full.named_parameters())
    placements = {
        # Two dimensions, and one twice; the others are sharded in groups that are replicas.
        "2.weight": [Shard(0), Shard(1)],
        "4.weight": [Shard(1), Shard(1)],
    }
    full(inputs(0)).square().mean().backward()
    shards = {}
    for name, param in named.items():
        placement = placements.get(name, [Replicate(), Shard(0)])
        shard = nn.Parameter(distribute_tensor(param.detach(), mesh, placement))
        shard.grad = distribute_tensor(param.grad, mesh, placement)
        shards[name] = shard
    MuonGrokfast(list(shards.items()), **OPTIONS).step()
    for name, param in model.named_parameters():
        torch.testing.assert_close(whole(shards[name]), param.detach(), rtol=0, atol=1e-6)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.q_proj(x) @ self.k_proj(x).mT


def clipped_attention(shard: bool) -> tuple[Tensor, list[int]]:
    torch.manual_seed(0)
    model = Attention()
    group = dist.group.WORLD
    if shard:
        fully_shard(model)
        group = None
    optimizer = MuonGrokfast(
        model, muon_lr=0.0, fallback_lr=0.0, qk_clip_threshold=0.5, process_group=group
    )
    optimizer.qk_clip.watch("a", model.q_proj, model.k_proj, num_heads=2)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(dist.get_rank()))
    if shard:
        model(x).sum().backward()
    else:
        DistributedDataParallel(model)(x).sum().backward()
    optimizer.step()
    return whole(model.q_proj.weight).clone(), optimizer.qk_clip.clip_counts["a"]


def check_processes_clip_by_the_largest_logit_of_all() -> None:
    weights, counts = clipped_attention(shard=False)
    gathered = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, weights)
    for other in gathered:
        assert torch.equal(weights, other)
    assert counts == [1, 1]
    from_shards, shard_counts = clipped_attention(shard=True)
    torch.testing.assert_close(from_shards, weights)
    assert shard_counts == counts
    # Each process alone would have clipped by its own logits.
    torch.manual_seed(0)
    model = Attention()
    factors = weights.norm(dim=1) / model.q_proj.weight.norm(dim=1)
    largest = torch.zeros(2)
    for rank in range(dist.get_world_size()):
        x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(rank))
        query, key = model.q_proj(x).view(2, 5, 2, 4), model.k_proj(x).view(2, 5, 2, 4)
        logits = torch.einsum("bthd,bshd->hbts", query, key) / 2
        largest = torch.maximum(largest, logits.flatten(1).amax(1))
    torch.testing.assert_close(factors.view(2, 4)[:, 0].detach(), (0.5 / largest).sqrt().detach())


CHECKS = {
    2: [
        check_replicas_share_the_matrices_and_agree_with_one_process,
        check_shards_agree_with_one_process_and_each_matrix_is_done_once,
        check_distributed_data_parallel_trains_like_one_process_on_the_whole_batch,
        check_a_sharded_optimizer_resumes_from_its_distributed_state,
        check_a_nan_in_one_shard_skips_the_step_everywhere,
        check_processes_clip_by_the_largest_logit_of_all,
    ],
    4: [
        check_replicas_share_the_matrices_and_agree_with_one_process,
        check_shards_agree_with_one_process_and_each_matrix_is_done_once,
        check_sharded_options_agree_with_one_process,
        check_hidden_layouts_of_two_dimensions_agree_with_one_process,
    ],
}


def work(rank: int, world: int, store: str, results: Any) -> None:
    """Run all checks in one process of the group; report what failed in each."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    for check in CHECKS[world]:
        try:
            check()
        except Exception:  # noqa: BLE001 - it is reported, whatever it is
            results.put((check.__name__, rank, traceback.format_exc()))
            # The others wait in the next collective operation for ever.
            os._exit(1)
        results.put((check.__name__, rank, None))
    dist.destroy_process_group()


def run_checks(world: int, store: Path) -> dict[str, str]:
    """Run the checks of one world size; return the failures by check."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    results = context.SimpleQueue()
    processes = [
        context.Process(target=work, args=(rank, world, str(store), results), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    running = {process.sentinel: process for process in processes}
    while running:
        ended = multiprocessing.connection.wait(list(running), timeout=120)
        codes = []
        for sentinel in ended:
            process = running.pop(sentinel)
            process.join()
            codes.append(process.exitcode)
        if not ended or any(codes):
            # One has failed, or all hang: the others would wait for it.
            for process in running.values():
                process.kill()
                process.join()
            running.clear()
    done: dict[str, list[int]] = {}
    failures: dict[str, str] = {}
    while not results.empty():
        name, rank, error = results.get()
        if error is None:
            done.setdefault(name, []).append(rank)
        else:
            failures[name] = failures.get(name, "") + f"rank {rank}: {error}"
    for check in CHECKS[world]:
        if len(done.get(check.__name__, ())) < world:
            failures.setdefault(check.__name__, "not every process finished it")
    return failures


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, str]]:
    """The failures of each world size; its processes are started once."""
    found: dict[int, dict[str, str]] = {}

    def of(world: int) -> dict[str, str]:
        if world not in found:
            found[world] = run_checks(world, tmp_path_factory.mktemp("store") / str(world))
        return found[world]

    return of


@pytest.mark.parametrize(
    ("world", "name"),
    [
        pytest.param(world, check.__name__, id=f"{world}-{check.__name__.removeprefix('check_')}")
        for world, checks in CHECKS.items()
        for check in checks
    ],
)
def test_in_processes(failures: Callable[[int], dict[str, str]], world: int, name: str) -> None:
    assert name not in failures(world), failures(world)[name]
