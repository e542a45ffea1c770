"""MuonGrokfast in the loops that people write: scaled, compiled, captured, accumulated."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cross_phase.mugrokfast import MuGrokConfig, MuonGrokfast

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def build(device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.LayerNorm(40), nn.Linear(40, 5)).to(device)


def loss_of(model: nn.Module, seed: int) -> Tensor:
    device = next(model.parameters()).device
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed)).to(device)
    loss: Tensor = model(inputs).square().mean()
    return loss


def train(model: nn.Module, optimizer: MuonGrokfast, step: Callable[[], Any], count: int) -> None:
    for seed in range(count):
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        step()


def trained(count: int = 4, device: str = "cpu", **options: Any) -> nn.Module:
    model = build(device)
    optimizer = MuonGrokfast(model, weight_decay=0.1, **options)
    train(model, optimizer, optimizer.step, count)
    return model


def assert_close(model: nn.Module, other: nn.Module, atol: float = 0.0) -> None:
    for param, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(param, expected, rtol=0, atol=atol)


def test_a_grad_scaler_unscales_for_it_and_skips_what_overflows() -> None:
    model = build()
    optimizer = MuonGrokfast(model, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for seed in range(4):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, seed)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert_close(model, trained())
    before = deepcopy(model)
    optimizer.zero_grad()
    scaler.scale(loss_of(model, 9)).backward()
    model[0].weight.grad[0, 0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    assert_close(model, before)
    assert scaler.get_scale() == 2.0**9


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    model = build()
    optimizer = MuonGrokfast(model, weight_decay=0.1)
    for seed in range(4):
        optimizer.zero_grad()
        for _ in range(4):
            (loss_of(model, seed) / 4).backward()
        optimizer.step()
    assert_close(model, trained())


def test_step_hooks_run_around_the_step() -> None:
    model = build()
    optimizer = MuonGrokfast(model)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    loss_of(model, 0).backward()
    optimizer.step()
    assert seen == ["before", "after"]


@pytest.mark.parametrize("lr", [0.02, torch.tensor(0.02)])
def test_a_learning_rate_may_be_a_tensor(lr: Any) -> None:
    model = build()
    named = list(model.named_parameters())
    optimizer = MuonGrokfast([{"params": named, "lr": lr}], weight_decay=0.1)
    train(model, optimizer, optimizer.step, 4)
    assert_close(model, trained(muon_lr=0.02, fallback_lr=0.02), atol=1e-6)


def test_a_scheduler_changes_a_tensor_in_place() -> None:
    model = build()
    optimizer = MuonGrokfast(model, capturable=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    loss_of(model, 0).backward()
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == rates
    assert [rate.item() for rate in rates] == pytest.approx([0.005, 0.0005])


@pytest.mark.parametrize("lr", [torch.tensor([0.1, 0.2]), torch.tensor(1)])
def test_a_tensor_that_is_no_learning_rate_is_an_error(lr: Tensor) -> None:
    with pytest.raises(ValueError, match="lr as a tensor must hold one floating-point number"):
        MuonGrokfast([{"params": [nn.Parameter(torch.zeros(2, 2))], "lr": lr}])


def test_capturable_steps_are_the_same_steps() -> None:
    assert_close(trained(capturable=True), trained(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grokfast_filter": "ma"}, "capturable needs grokfast_filter='ema'"),
        ({"nonfinite_grads": "skip"}, "capturable needs nonfinite_grads='propagate'"),
    ],
)
def test_what_the_host_decides_cannot_be_captured(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MuGrokConfig(capturable=True, **options)
    with pytest.raises(ValueError, match=message):
        MuonGrokfast([{"params": [nn.Parameter(torch.zeros(2))], "capturable": True}], **options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_step_is_the_same_step() -> None:
    """Through torch.compile's tracer; code for the machine would take a minute to make."""
    model = build()
    optimizer = MuonGrokfast(model, weight_decay=0.1, ns_steps=2)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    torch._dynamo.reset()
    step = torch.compile(optimizer.step, backend="eager")
    stats = torch._dynamo.utils.counters["stats"]
    graphs = []
    for seed in range(4):
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        step()
        graphs.append(stats["unique_graphs"])
    # State is made in the first step; nothing is traced again from the third one on.
    assert graphs[0] > 0
    assert graphs[3] == graphs[1]
    assert_close(model, trained(4, ns_steps=2), atol=2e-4)
    torch._dynamo.reset()


@pytest.mark.cuda
@needs_cuda
def test_on_cuda_the_step_is_that_of_the_cpu() -> None:
    for options in ({}, {"ns_form": "gram"}, {"muon_ste_mode": True}):
        on_cuda = trained(device="cuda", **options)
        # bfloat16 rounds differently there; an update is an orthogonal matrix times 0.013.
        assert_close(on_cuda.cpu(), trained(**options), atol=2e-3)


@pytest.mark.cuda
@needs_cuda
def test_on_cuda_without_the_filter_it_follows_torch_muon_and_adamw() -> None:
    model, twin = build("cuda"), build("cuda")
    ours = MuonGrokfast(
        model, muon_lr=0.02, fallback_lr=0.01, grokfast_lambda=0.0, adjust_lr_fn="original"
    )
    matrices = [p for p in twin.parameters() if p.ndim == 2]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0)
    adamw = torch.optim.AdamW(
        [p for p in twin.parameters() if p.ndim < 2], lr=0.01, weight_decay=0.0, fused=True
    )
    muon.register_step_post_hook(lambda *_: adamw.step())
    train(model, ours, ours.step, 4)
    train(twin, ours, muon.step, 0)
    for seed in range(4):
        twin.zero_grad()
        loss_of(twin, seed).backward()
        muon.step()
    assert_close(model, twin, atol=4e-3)


@pytest.mark.cuda
@needs_cuda
def test_on_cuda_a_graph_captures_the_step() -> None:
    model = build("cuda")
    optimizer = MuonGrokfast(model, weight_decay=0.1, capturable=True)
    inputs = torch.empty(8, 6, device="cuda")

    def whole_step() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()

    def fill(seed: int) -> None:
        inputs.copy_(torch.randn(8, 6, generator=torch.Generator().manual_seed(seed)))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for seed in range(2):
            fill(seed)
            optimizer.zero_grad()
            whole_step()
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    fill(2)
    with torch.cuda.graph(graph):
        whole_step()
    for seed in range(2, 4):
        fill(seed)
        for param in model.parameters():
            param.grad.zero_()
        graph.replay()
    assert_close(model, trained(device="cuda"), atol=2e-3)


@pytest.mark.cuda
@needs_cuda
def test_on_cuda_the_step_waits_for_nothing() -> None:
    model = build("cuda")
    optimizer = MuonGrokfast(model, weight_decay=0.1, qk_clip_threshold=1e-3)
    optimizer.qk_clip.watch("a", model[0], model[0], num_heads=2, num_key_value_heads=9)
    train(model, optimizer, optimizer.step, 1)
    loss_of(model, 1).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(param.isfinite().all() for param in model.parameters())


@pytest.mark.cuda
@needs_cuda
def test_on_cuda_logits_that_are_not_finite_are_reported_when_counts_are_read() -> None:
    model = build("cuda")
    optimizer = MuonGrokfast(model)
    optimizer.qk_clip.watch("a", model[0], model[0], num_heads=2, num_key_value_heads=9)
    optimizer.qk_clip.observe("a", torch.tensor([1.0, float("nan")], device="cuda"))
    optimizer.step()
    with pytest.raises(ValueError, match="a: attention logits are not finite"):
        optimizer.get_qk_clip_count()
