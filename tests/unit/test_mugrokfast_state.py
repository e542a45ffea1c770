"""MuonGrokfast as a torch optimizer: groups, schedulers, state, copies, errors."""

import inspect
import io
import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from cross_phase.mugrokfast import MuGrokConfig, MuonGrokfast


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(24, 6), nn.LayerNorm(6))


def backward(model: nn.Module, seed: int = 0) -> Tensor:
    inputs = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(seed))
    loss: Tensor = model(inputs).square().mean() + sum(p.sum() for p in model.parameters())
    loss.backward()
    return loss


def train(model: nn.Module, optimizer: MuonGrokfast, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        backward(model, seed)
        optimizer.step()


def assert_same_bits(model: nn.Module, other: nn.Module) -> None:
    for param, other_param in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(param, other_param)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
    "linear": lambda o: lr_scheduler.LinearLR(o, total_iters=3),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.01], total_steps=10),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_moves_both_learning_rates_as_it_does_with_adamw(name: str) -> None:
    model, twin = small_model(), small_model()
    ours = MuonGrokfast(model)
    groups = [{"params": list(g["params"]), "lr": g["lr"]} for g in MuonGrokfast(twin).param_groups]
    theirs = torch.optim.AdamW(groups)
    schedules = [SCHEDULERS[name](ours), SCHEDULERS[name](theirs)]
    for seed in range(4):
        backward(model, seed)
        backward(twin, seed)
        ours.step()
        theirs.step()
        for schedule in schedules:
            schedule.step()
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
    assert all("initial_lr" in group for group in ours.param_groups)


def test_a_learning_rate_of_zero_moves_nothing() -> None:
    model = small_model()
    before = deepcopy(model)
    optimizer = MuonGrokfast(model, weight_decay=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(model, optimizer, range(2))
    assert_same_bits(model, before)


def test_reduce_on_plateau_lowers_both() -> None:
    optimizer = MuonGrokfast(small_model())
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(2):
        schedule.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 1e-4])


@pytest.mark.parametrize("ste", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_resumes_bit_for_bit_from_a_saved_state(dtype: torch.dtype, ste: bool) -> None:
    def build(model: nn.Module) -> MuonGrokfast:
        return MuonGrokfast(model, weight_decay=0.1, muon_ste_mode=ste)

    model = small_model().to(dtype)
    model.register_forward_pre_hook(lambda _, args: args[0].to(dtype))
    optimizer = build(model)
    train(model, optimizer, range(2))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, range(2, 4))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = small_model().to(dtype)
    resumed.register_forward_pre_hook(lambda _, args: args[0].to(dtype))
    resumed.load_state_dict(saved["model"])
    restored = build(resumed)
    restored.load_state_dict(saved["optimizer"])
    train(resumed, restored, range(2, 4))
    assert_same_bits(model, resumed)


@pytest.mark.parametrize(
    "copy", [deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["deepcopy", "pickle"]
)
def test_a_copy_trains_on_alone_and_alike(copy: Callable[[Any], Any]) -> None:
    model = small_model()
    optimizer = MuonGrokfast(model, config=MuGrokConfig.from_phase(7))
    train(model, optimizer, range(2))
    twin, copied = copy((model, optimizer))
    assert copied.config == optimizer.config
    assert copied.qk_clip.threshold == 28.0
    frozen = deepcopy(model)
    train(twin, copied, range(2, 4))
    assert_same_bits(model, frozen)
    train(model, optimizer, range(2, 4))
    assert_same_bits(model, twin)


def test_loading_keeps_the_watched_attention_layers() -> None:
    optimizer = MuonGrokfast(small_model())
    clip = optimizer.qk_clip
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.qk_clip is clip


def test_the_state_of_other_groups_is_refused() -> None:
    model = small_model()
    optimizer = MuonGrokfast(model)
    with pytest.raises(ValueError, match=r"adopt_state\(\) takes over"):
        optimizer.load_state_dict(torch.optim.AdamW(model.parameters()).state_dict())


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned() -> None:
    model = small_model()
    optimizer = MuonGrokfast(model)
    before = deepcopy(model)

    def closure() -> float:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        return backward(model)  # type: ignore[return-value]

    loss = optimizer.step(closure)
    assert loss == backward(before)
    assert not torch.equal(model[2].weight, before[2].weight)


def test_without_a_closure_step_returns_none() -> None:
    assert MuonGrokfast(small_model()).step() is None


def test_gradients_are_not_modified() -> None:
    model = small_model()
    optimizer = MuonGrokfast(model)
    backward(model)
    kept = [param.grad.clone() for param in model.parameters()]
    optimizer.step()
    for param, grad in zip(model.parameters(), kept, strict=True):
        assert torch.equal(param.grad, grad)


def test_gradients_may_be_zeroed_in_place() -> None:
    model, twin = small_model(), small_model()
    for module, set_to_none in ((model, False), (twin, True)):
        optimizer = MuonGrokfast(module)
        for seed in range(3):
            optimizer.zero_grad(set_to_none=set_to_none)
            backward(module, seed)
            optimizer.step()
    assert_same_bits(model, twin)


def test_parameters_without_gradients_are_left_alone() -> None:
    model = small_model()
    optimizer = MuonGrokfast(model, weight_decay=0.5)
    backward(model)
    conv = model[0].weight
    conv.grad = None
    before = conv.detach().clone()
    optimizer.step()
    assert torch.equal(conv, before)
    assert conv not in optimizer.state


def test_each_group_keeps_its_own_options() -> None:
    slow, fast = nn.Parameter(torch.zeros(4, 8)), nn.Parameter(torch.zeros(4, 8))
    optimizer = MuonGrokfast([{"params": [slow], "lr": 0.001}, {"params": [fast]}], muon_lr=0.1)
    slow.grad = fast.grad = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    torch.testing.assert_close(100 * slow.detach(), fast.detach())


def test_a_group_for_both_algorithms_becomes_two() -> None:
    optimizer = MuonGrokfast([nn.Parameter(torch.zeros(3, 3))])
    matrix, vector = nn.Parameter(torch.zeros(4, 8)), nn.Parameter(torch.zeros(8))
    optimizer.add_param_group({"params": [vector, matrix], "weight_decay": 0.3})
    added = optimizer.param_groups[1:]
    assert [group["params"][0] is p for group, p in zip(added, (matrix, vector), strict=True)]
    assert [(g["algorithm"], g["lr"], g["weight_decay"]) for g in added] == [
        ("muon", 0.01, 0.3),
        ("adamw", 1e-3, 0.3),
    ]


def test_a_group_that_cannot_be_added_leaves_the_optimizer_as_it_was() -> None:
    vector = nn.Parameter(torch.zeros(3))
    optimizer = MuonGrokfast([vector])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(4, 8)), vector]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"params": [nn.Parameter(torch.zeros(3))], "lr": -1.0}, ValueError, "lr must be in"),
        ({"params": [nn.Parameter(torch.zeros(3))], "lr": "1"}, TypeError, "lr must be a number"),
        ({"params": {nn.Parameter(torch.zeros(3))}}, TypeError, "pass a list, not a set"),
        ({"params": [1.0]}, TypeError, "must be tensors or pairs .* got float"),
        ({"params": torch.zeros(3, dtype=torch.int64)}, ValueError, "is torch.int64"),
        ({"params": torch.zeros(3, dtype=torch.complex64)}, ValueError, "is torch.complex64"),
        ({"params": torch.zeros(3), "algorithm": "muon"}, ValueError, "is no matrix"),
        ({"params": torch.zeros(3), "algorithm": "adam"}, ValueError, "must be one of muon, adamw"),
        ([torch.zeros(3)], TypeError, "param_group must be a dict, got list"),
    ],
)
def test_a_bad_group_is_a_clear_error(
    group: dict[str, Any], error: type[Exception], message: str
) -> None:
    optimizer = MuonGrokfast([nn.Parameter(torch.zeros(2, 2))])
    with pytest.raises(error, match=message):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"momentum": 1.0}, ValueError, r"momentum must be in \[0.0, 1.0\), got 1.0"),
        ({"muon_lr": float("nan")}, ValueError, "muon_lr must be in"),
        ({"muon_lr": True}, TypeError, "muon_lr must be a number"),
        ({"ns_steps": 0}, ValueError, "ns_steps must be in"),
        ({"ns_steps": 5.0}, TypeError, "ns_steps must be an integer"),
        ({"qk_clip_threshold": 0.0}, ValueError, "greater than 0"),
        ({"betas": (0.9,)}, TypeError, "betas must be a pair"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in"),
        ({"nesterov": 1}, TypeError, "nesterov must be True or False"),
        ({"adjust_lr_fn": None}, ValueError, "must be one of original, match_rms_adamw, got None"),
    ],
)
def test_a_bad_hyperparameter_is_a_clear_error(
    values: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MuGrokConfig(**values)


def test_the_config_must_be_a_config() -> None:
    with pytest.raises(TypeError, match="config must be a MuGrokConfig, got dict"):
        MuonGrokfast([nn.Parameter(torch.zeros(2))], config={"muon_lr": 0.1})  # type: ignore[arg-type]


def test_keyword_defaults_are_those_of_the_config() -> None:
    keywords = dict(inspect.signature(MuonGrokfast).parameters)
    del keywords["params"], keywords["config"], keywords["process_group"]
    assert {name: p.default for name, p in keywords.items()} == {
        field.name: field.default for field in fields(MuGrokConfig) if field.default is not MISSING
    }


def test_a_config_cannot_be_changed_but_copied_with_changes() -> None:
    config = MuGrokConfig()
    with pytest.raises(AttributeError):
        config.muon_lr = 0.1  # type: ignore[misc]
    assert replace(config, muon_lr=0.1).muon_lr == 0.1


def test_no_parameters_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        MuonGrokfast([])


def test_a_sparse_gradient_is_named_before_anything_is_changed() -> None:
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 4))
    optimizer = MuonGrokfast(model)
    model(torch.tensor([1, 2])).sum().backward()
    before = deepcopy(model)
    with pytest.raises(ValueError, match=r"0\.weight of shape \(10, 4\) has a sparse gradient"):
        optimizer.step()
    assert_same_bits(model, before)


def test_mu_norm_is_that_of_all_averages_together() -> None:
    params = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))]
    for param in params:
        param.grad = torch.full_like(param, 2.0)
    optimizer = MuonGrokfast(params)
    optimizer.step()
    assert optimizer.get_mu_norm() == pytest.approx((7 * 4.0) ** 0.5)


def test_without_the_filter_there_is_no_average() -> None:
    param = nn.Parameter(torch.zeros(2, 2))
    param.grad = torch.ones(2, 2)
    optimizer = MuonGrokfast([param], grokfast_lambda=0.0)
    optimizer.step()
    assert set(optimizer.state[param]) == {"momentum_buffer"}
    assert optimizer.get_mu_norm() == 0.0


def test_the_muon_learning_rate_follows_its_group() -> None:
    optimizer = MuonGrokfast([nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))])
    optimizer.param_groups[0]["lr"] = 0.7
    assert optimizer.get_muon_lr() == 0.7
    assert MuonGrokfast([nn.Parameter(torch.zeros(3))], muon_lr=0.2).get_muon_lr() == 0.2
