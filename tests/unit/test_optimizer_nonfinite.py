"""What a NaN or infinite gradient does."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from cross_phase.mugrokfast import MuGrokConfig, MuonGrokfast


def model_with_gradients(value: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    model[1].weight.grad[2, 3] = value
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_by_default_it_goes_through_as_with_torch_optimizers(value: float) -> None:
    model = model_with_gradients(value)
    MuonGrokfast(model).step()
    assert not model[1].weight.isfinite().any()
    assert model[0].weight.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_raise_names_the_parameter_and_changes_nothing(value: float) -> None:
    model = model_with_gradients(value)
    before = deepcopy(model.state_dict())
    optimizer = MuonGrokfast(model, nonfinite_grads="raise")
    with pytest.raises(FloatingPointError, match=r"1\.weight of shape \(3, 6\) has a gradient"):
        optimizer.step()
    assert len(optimizer.state) == 0
    for name, value_ in model.state_dict().items():
        assert torch.equal(value_, before[name])


def test_a_parameter_without_a_name_is_named_by_its_place() -> None:
    model = model_with_gradients(float("nan"))
    optimizer = MuonGrokfast(model.parameters(), nonfinite_grads="raise")
    with pytest.raises(FloatingPointError, match="parameter 1 of group 0 of shape"):
        optimizer.step()


def test_skip_leaves_the_step_out_counts_it_and_goes_on() -> None:
    model = model_with_gradients(1.0)
    optimizer = MuonGrokfast(model, nonfinite_grads="skip")
    optimizer.step()
    before = deepcopy((model.state_dict(), optimizer.state_dict()))
    model[1].weight.grad[0, 0] = float("nan")
    optimizer.step()
    assert optimizer.skipped_steps == 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[0][name])
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, before[1]["state"][index][name])
    assert deepcopy(optimizer).skipped_steps == 1
    model[1].weight.grad[0, 0] = 1.0
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert not torch.equal(model[0].weight, before[0]["0.weight"])


def test_a_skipped_step_does_not_clip_by_its_logits() -> None:
    model = model_with_gradients(float("nan"))
    optimizer = MuonGrokfast(model, nonfinite_grads="skip", qk_clip_threshold=1e-3)
    optimizer.qk_clip.watch("a", model[0], model[0], num_heads=1, num_key_value_heads=1)
    optimizer.qk_clip.observe("a", torch.tensor([float("nan")]))
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert optimizer.get_qk_clip_count() == 0


def test_finite_and_missing_gradients_pass() -> None:
    model = model_with_gradients(1.0)
    model[0].weight.grad = None
    optimizer = MuonGrokfast(model, nonfinite_grads="raise")
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()
    assert model[1].weight in optimizer.state


def test_an_unknown_policy_is_an_error() -> None:
    with pytest.raises(ValueError, match="nonfinite_grads must be one of propagate, raise, skip"):
        MuGrokConfig(nonfinite_grads="ignore")
