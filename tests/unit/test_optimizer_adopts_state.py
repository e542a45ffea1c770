"""Going on from the state of torch.optim.Muon and torch.optim.AdamW."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from cross_phase.mugrokfast import MuonGrokfast


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.LayerNorm(20), nn.Linear(20, 5))


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], seeds: range) -> None:
    for seed in seeds:
        inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        model.zero_grad()
        model(inputs).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def torch_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    return [
        torch.optim.Muon(
            [(n, p) for n, p in named if p.ndim == 2],
            lr=0.02,
            weight_decay=0.1,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [(n, p) for n, p in named if p.ndim < 2], lr=0.01, weight_decay=0.1, fused=True
        ),
    ]


def muon_grokfast(model: nn.Module, **options: Any) -> MuonGrokfast:
    options = {"muon_lr": 0.02, "fallback_lr": 0.01, "weight_decay": 0.1, **options}
    return MuonGrokfast(model, grokfast_lambda=0.0, **options)


@pytest.mark.parametrize("from_dicts", [False, True])
def test_training_goes_on_bit_for_bit(from_dicts: bool) -> None:
    model = build()
    theirs = torch_optimizers(model)
    train(model, theirs, range(3))
    ours = muon_grokfast(twin := deepcopy(model))
    if from_dicts:
        ours.adopt_state(*[deepcopy(optimizer.state_dict()) for optimizer in theirs])
    else:
        ours = muon_grokfast(model)
        ours.adopt_state(*theirs)
        saved = deepcopy(ours.state_dict())
        ours = muon_grokfast(twin)
        ours.load_state_dict(saved)
    train(model, theirs, range(3, 6))
    train(twin, [ours], range(3, 6))
    for param, expected in zip(twin.parameters(), model.parameters(), strict=True):
        assert torch.equal(param, expected)


def test_adamws_first_moment_becomes_the_momentum_of_a_matrix() -> None:
    model = build()
    adamw = torch.optim.AdamW(model.parameters())
    train(model, [adamw], range(2))
    ours = muon_grokfast(model)
    ours.adopt_state(adamw)
    weight, bias = model[0].weight, model[0].bias
    assert set(ours.state[weight]) == {"momentum_buffer"}
    assert torch.equal(ours.state[weight]["momentum_buffer"], adamw.state[weight]["exp_avg"])
    assert ours.state[bias]["step"].item() == 2.0
    # A copy: the other optimizer can go on alone.
    adamw.state[weight]["exp_avg"].zero_()
    assert ours.state[weight]["momentum_buffer"].abs().sum() > 0


def test_parameters_that_no_source_knows_start_without_state() -> None:
    model = build()
    muon, _ = torch_optimizers(model)
    train(model, [muon], range(1))
    ours = muon_grokfast(model)
    ours.adopt_state(muon)
    assert set(ours.state) == {model[0].weight, model[2].weight}


def refused(model: nn.Module, kind: str) -> tuple[MuonGrokfast, Any]:
    params = list(model.parameters())
    if kind == "no names":
        source: torch.optim.Optimizer = torch.optim.AdamW(params)
    elif kind == "amsgrad":
        source = torch.optim.AdamW(model.named_parameters(), amsgrad=True)
    elif kind == "sgd":
        source = torch.optim.SGD(model.named_parameters(), momentum=0.9)
    elif kind == "unknown name":
        source = torch.optim.AdamW([(f"x.{n}", p) for n, p in model.named_parameters()])
    else:
        model = build()
        source = torch.optim.AdamW(model.parameters())
    train(model, [source], range(1))
    return muon_grokfast(build() if kind == "stranger" else model), (
        source if kind == "stranger" else source.state_dict()
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no names", "by parameter names only, and there are none"),
        ("amsgrad", "only torch.optim.Muon's, and AdamW's without amsgrad"),
        ("sgd", "from which adamw cannot go on"),
        ("unknown name", "has state for x.0.weight, which this optimizer does not have"),
        ("stranger", "AdamW has state for a parameter of shape"),
    ],
)
def test_state_without_a_meaning_is_refused_and_nothing_changed(kind: str, message: str) -> None:
    ours, source = refused(build(), kind)
    with pytest.raises(ValueError, match=message):
        ours.adopt_state(source)
    assert len(ours.state) == 0


def test_state_of_another_shape_is_refused() -> None:
    model = build()
    train(model, optimizers := torch_optimizers(model), range(1))
    other = nn.Sequential(nn.Linear(6, 21), nn.LayerNorm(21), nn.Linear(21, 5))
    with pytest.raises(ValueError, match=r"0\.weight has the shape \(21, 6\) here and state"):
        muon_grokfast(other).adopt_state(optimizers[0].state_dict())
