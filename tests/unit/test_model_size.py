"""get_model_size: counts, bytes and categories."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from cross_phase.utils import get_model_size
from cross_phase.utils.model_size import size_category


def test_size_is_counted_in_mebibytes_of_the_parameters(device: torch.device) -> None:
    size = get_model_size(nn.Linear(1024, 512, bias=False, device=device))

    assert size == {"params": 524_288, "size_mb": 2.0, "size_category": "tiny"}


@pytest.mark.parametrize(
    ("dtype", "size_mb"),
    [(torch.float64, 4.0), (torch.float32, 2.0), (torch.bfloat16, 1.0), (torch.float8_e5m2, 0.5)],
)
def test_size_follows_the_real_dtype(dtype: torch.dtype, size_mb: float) -> None:
    model = nn.Linear(1024, 512, bias=False).to(dtype)

    assert get_model_size(model)["size_mb"] == size_mb


def test_size_of_mixed_dtypes_is_the_sum_of_each() -> None:
    model = nn.Sequential(nn.Linear(8, 4, bias=False).half(), nn.Linear(4, 2, bias=False).double())

    assert get_model_size(model)["size_mb"] * 2**20 == 32 * 2 + 8 * 8


def test_shared_parameters_count_once() -> None:
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    )
    assert model.lm_head.weight is model.transformer.wte.weight

    distinct = {id(parameter): parameter.numel() for parameter in model.parameters()}
    assert get_model_size(model)["params"] == sum(distinct.values())
    assert get_model_size(nn.ModuleList([model, model]))["params"] == sum(distinct.values())


def test_buffers_are_not_parameters() -> None:
    assert get_model_size(nn.BatchNorm1d(16))["params"] == 32


@pytest.mark.parametrize(
    ("params", "category"),
    [
        (0, "tiny"),
        (49_999_999, "tiny"),
        (50_000_000, "small"),
        (499_999_999, "small"),
        (500_000_000, "medium"),
        (1_999_999_999, "medium"),
        (2_000_000_000, "large"),
    ],
)
def test_categories_change_at_50m_500m_and_2b(params: int, category: str) -> None:
    assert size_category(params) == category


def test_a_model_on_the_meta_device_has_its_full_size() -> None:
    size = get_model_size(nn.Linear(50_000, 50_000, device="meta"))

    assert size["params"] == 50_000 * 50_001
    assert size["size_category"] == "large"


def test_a_model_without_parameters_has_size_zero() -> None:
    assert get_model_size(nn.ReLU()) == {"params": 0, "size_mb": 0.0, "size_category": "tiny"}


def test_a_lazy_parameter_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="forward pass"):
        get_model_size(nn.LazyLinear(4))


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match="dict"):
        get_model_size({"weight": torch.zeros(2)})  # type: ignore[arg-type]
