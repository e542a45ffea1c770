"""What describe() says, and that it is true of the state."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from cross_phase.mugrokfast import MuonGrokfast


class TiedLM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.conv = nn.Conv1d(8, 6, 3)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.tokens.weight


def test_each_parameter_has_its_route_rate_and_reason() -> None:
    rows = {row.name: row for row in MuonGrokfast(TiedLM(), weight_decay=0.1).describe()}
    assert {name: (row.algorithm, row.lr, row.reason) for name, row in rows.items()} == {
        "conv.weight": ("muon", 0.01, "3 dimensions, flattened to 2"),
        "tokens.weight": ("adamw", 0.001, "in Embedding, tied to the output head"),
        "conv.bias": ("adamw", 0.001, "bias by its name"),
        "norm.weight": ("adamw", 0.001, "in LayerNorm"),
        "norm.bias": ("adamw", 0.001, "in LayerNorm"),
    }
    assert rows["conv.weight"].shape == (6, 8, 3)
    assert rows["conv.weight"].weight_decay == 0.1


def test_names_shapes_and_groups_give_reasons_too() -> None:
    params = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(()))]
    optimizer = MuonGrokfast([{"params": params[:1], "algorithm": "adamw"}, {"params": params[1:]}])
    assert [(row.name, row.reason) for row in optimizer.describe()] == [
        ("parameter 0 of group 0", "as its group says"),
        ("parameter 0 of group 1", "0 dimensions"),
    ]
    named = MuonGrokfast([("lm_head.weight", params[0])]).describe()
    assert [(row.name, row.reason) for row in named] == [
        ("lm_head.weight", "output head by its name")
    ]
    untied = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False))
    reasons = {row.name: row.reason for row in MuonGrokfast(untied).describe()}
    assert reasons == {
        "1.weight": "matrix",
        "0.weight": "in Embedding",
        "2.weight": "output head",
    } | {"1.bias": "bias by its name"}


def test_the_table_shows_present_learning_rates_and_survives_a_copy() -> None:
    model = nn.Sequential(nn.Linear(512, 1024, bias=False))
    _, optimizer = deepcopy((model, MuonGrokfast(model)))
    optimizer.param_groups[0]["lr"] = 0.5
    assert str(optimizer.describe()).splitlines() == [
        "parameter  shape     route  lr   weight decay  reason",
        "0.weight   1024×512  muon   0.5  0             matrix",
        "muon: 1 parameters, 524,288 entries, 4.0 MiB of state",
    ]


@pytest.mark.parametrize(
    ("options", "matrix", "vector"),
    [
        ({}, 2 * 4, 3 * 4),
        ({"grokfast_lambda": 0.0}, 4, 2 * 4),
        ({"state_dtype": torch.bfloat16}, 2 * 2, 2 + 2 * 4),
        ({"muon_ste_mode": True}, 3 * 4, 3 * 4),
        ({"grokfast_filter": "ma", "grokfast_window": 5}, 7 * 4, 8 * 4),
    ],
)
def test_state_takes_the_bytes_per_entry_that_are_said(
    options: dict[str, Any], matrix: int, vector: int
) -> None:
    params = [nn.Parameter(torch.ones(20, 30)), nn.Parameter(torch.ones(50))]
    optimizer = MuonGrokfast(params, **options)
    for _ in range(2):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    measured = [
        sum(
            value.untyped_storage().nbytes()
            for name, value in optimizer.state[param].items()
            if isinstance(value, torch.Tensor) and name != "step"
        )
        for param in params
    ]
    assert measured == [matrix * 600, vector * 50]
    assert [row.state_bytes for row in optimizer.describe()] == measured


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16])
def test_state_of_its_own_type_keeps_it_over_a_save(
    dtype: torch.dtype, state_dtype: torch.dtype
) -> None:
    def build() -> tuple[nn.Parameter, MuonGrokfast]:
        param = nn.Parameter(torch.ones(8, 24, dtype=dtype))
        return param, MuonGrokfast([param], state_dtype=state_dtype)

    def train(param: nn.Parameter, optimizer: MuonGrokfast, seeds: range) -> None:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            param.grad = torch.randn(8, 24, generator=generator).to(dtype)
            optimizer.step()

    param, optimizer = build()
    train(param, optimizer, range(2))
    twin, restored = build()
    twin.data.copy_(param)
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    for name in ("grokfast_ema", "momentum_buffer"):
        assert restored.state[twin][name].dtype == state_dtype
    train(param, optimizer, range(2, 4))
    train(twin, restored, range(2, 4))
    assert torch.equal(param, twin)


def test_bfloat16_state_trains_nearly_alike() -> None:
    """The update is an orthogonal matrix: a relative error of its size is what matters."""
    moves = []
    for state_dtype in (None, torch.bfloat16):
        param = nn.Parameter(torch.zeros(32, 96))
        optimizer = MuonGrokfast([param], state_dtype=state_dtype)
        for seed in range(20):
            param.grad = torch.randn(32, 96, generator=torch.Generator().manual_seed(seed)) + 0.3
            optimizer.step()
        moves.append(param.detach().clone())
    assert (moves[0] - moves[1]).norm() < 0.03 * moves[0].norm()
