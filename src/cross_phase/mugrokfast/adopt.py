"""State of torch.optim.Muon and torch.optim.AdamW as state of MuonGrokfast."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .routing import MUON

State = Mapping[str, Any]


def adopted_states(
    param_groups: Sequence[Mapping[str, Any]],
    sources: Sequence[torch.optim.Optimizer | Mapping[str, Any]],
) -> dict[Tensor, dict[str, Any]]:
    """Return new state for the parameters that ``sources`` know.

    Args:
        param_groups: Those of the MuonGrokfast.
        sources: Optimizers, or state dicts with parameter names.

    Returns:
        Copies of the state in the form that MuonGrokfast keeps, by parameter.

    Raises:
        ValueError: See :meth:`~.optimizer.MuonGrokfast.adopt_state`.
    """
    groups = {param: group for group in param_groups for param in group["params"]}
    by_name = {
        name: param
        for group in param_groups
        for name, param in zip(group.get("param_names", ()), group["params"], strict=False)
    }
    result = {}
    for source in sources:
        if isinstance(source, torch.optim.Optimizer):
            pairs = _by_tensor(source, groups)
        else:
            pairs = _by_name(source, by_name)
        for name, param, state in pairs:
            result[param] = _convert(name, param, state, groups[param])
    return result


def _by_tensor(
    source: torch.optim.Optimizer, groups: Mapping[Tensor, Any]
) -> Iterator[tuple[str, Tensor, State]]:
    for param, state in source.state.items():
        name = f"a parameter of shape {tuple(param.shape)}"
        if param not in groups:
            raise ValueError(
                f"{type(source).__name__} has state for {name} that this optimizer does not have; "
                "build both from the same model"
            )
        yield name, param, state


def _by_name(
    source: Mapping[str, Any], by_name: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor, State]]:
    for group in source["param_groups"]:
        if "param_names" not in group or not by_name:
            raise ValueError(
                "a state dict can be adopted by parameter names only, and there are none: build "
                "both optimizers from a model or from named_parameters(), or pass the optimizer "
                "itself"
            )
        for name, index in zip(group["param_names"], group["params"], strict=True):
            if index not in source["state"]:
                continue
            if name not in by_name:
                raise ValueError(
                    f"the state dict has state for {name}, which this optimizer does not have; "
                    f"it has {', '.join(by_name)}"
                )
            yield name, by_name[name], source["state"][index]


def _convert(name: str, param: Tensor, state: State, group: Mapping[str, Any]) -> dict[str, Any]:
    known = {"momentum_buffer"} if "momentum_buffer" in state else {"step", "exp_avg", "exp_avg_sq"}
    if set(state) != known or (known == {"momentum_buffer"} and group["algorithm"] != MUON):
        raise ValueError(
            f"{name} has the state {', '.join(sorted(state))}, from which {group['algorithm']} "
            "cannot go on; only torch.optim.Muon's, and AdamW's without amsgrad, can be adopted"
        )
    shape = next(state[key] for key in ("momentum_buffer", "exp_avg") if key in state).shape
    if shape != param.shape:
        raise ValueError(
            f"{name} has the shape {tuple(param.shape)} here and state of shape {tuple(shape)}"
        )
    if group["algorithm"] == MUON:
        momentum = state.get("momentum_buffer", state.get("exp_avg"))
        return {"momentum_buffer": _copy(momentum, param)}
    on_device = group["fused"] or group["capturable"]
    step = torch.as_tensor(state["step"], dtype=torch.float32)
    return {
        "step": step.to(param.device if on_device else "cpu", copy=True),
        "exp_avg": _copy(state["exp_avg"], param),
        "exp_avg_sq": _copy(state["exp_avg_sq"], param),
    }


def _copy(value: Any, param: Tensor) -> Tensor:
    copied: Tensor = value.detach().to(param.device, copy=True)
    return copied
