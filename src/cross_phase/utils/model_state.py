"""A model's tensors by name: which are tied, what fits, and how stored ones get into it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .tensor_files import StoredTensor, is_distributed

EXTRA_STATE = "_extra_state"

# How many problems an error message lists.
SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class NameDifferences:
    """The names that only one side has.

    Attributes:
        missing: Those of the model that are not stored.
        unexpected: Those stored that the model does not have.
    """

    missing: list[str]
    unexpected: list[str]


def check_module(model: object) -> None:
    """Check that this is a model.

    Raises:
        TypeError: It is not an ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def split_ties(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Keep one of the names that show the same memory; map the others to it.

    Args:
        state: A model's ``state_dict``.

    Returns:
        The tensors to store, and the names of the others.

    Raises:
        TypeError: A tensor shows some of its memory twice, so it could not be restored.
    """
    kept: dict[str, Any] = {}
    tied: dict[str, str] = {}
    owners: dict[tuple[object, ...], str] = {}
    for name, tensor in state.items():
        key = _view_key(tensor) if isinstance(tensor, Tensor) else None
        if key is not None and key in owners:
            tied[name] = owners[key]
            continue
        if key is not None:
            owners[key] = name
            if _shows_memory_twice(tensor):
                raise TypeError(f"model[{name}] is an expanded tensor: make it .contiguous() first")
        kept[name] = tensor
    return kept, tied


def restore_ties(
    stored: Mapping[str, StoredTensor], tied: Mapping[str, str]
) -> dict[str, StoredTensor]:
    """Give tied tensors their other names again.

    Raises:
        ValueError: The ties do not fit what is stored.
    """
    weights = dict(stored)
    for name, kept in tied.items():
        if kept not in stored or name in stored:
            raise ValueError(f"{name!r} is tied to {kept!r}, which does not fit the model's file")
        weights[name] = stored[kept]
    return weights


def tied_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Map names that are not among these to one that is tied to them in the model."""
    stored = set(names)
    keys = {name: _view_key(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    owners = {key: name for name, key in keys.items() if name in stored and key is not None}
    return {
        name: owners[key]
        for name, key in keys.items()
        if name not in stored and key is not None and key in owners
    }


def check_weights(
    model: nn.Module, weights: Mapping[str, StoredTensor], *, strict: bool, mapped: bool
) -> NameDifferences:
    """Check that weights fit a model, without reading their data.

    Args:
        model: The model.
        weights: The stored tensors by the model's names.
        strict: Whether the names must be the same ones.
        mapped: Whether they are to be mapped, which a model on the meta device allows too.

    Returns:
        The names on one side only.

    Raises:
        ValueError: They do not fit; names the tensors.
    """
    targets = model.state_dict(keep_vars=True)
    missing = [name for name in targets if name not in weights]
    unexpected = [name for name in weights if name not in targets]
    common = {name: weight for name, weight in weights.items() if name in targets}
    problems = _mismatches(targets, common, mapped=mapped)
    if strict:
        problems += [f"{name} is in the model but not in the checkpoint" for name in missing]
        problems += [f"{name} is in the checkpoint but not in the model" for name in unexpected]
    elif targets and not common:
        problems.append("the model and the checkpoint have no name in common")
    if mapped:
        custom = _custom_loading(model, common)
        if custom is not None:
            problems.append(f"{custom} loads its state in its own way: pass mmap=False")
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        listed = "; ".join(problems[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise ValueError(f"does not fit the model: {listed}")
    return NameDifferences(missing, unexpected)


def copy_weights(model: nn.Module, weights: Mapping[str, StoredTensor], *, strict: bool) -> None:
    """Copy weights that were checked into the model's own tensors."""
    targets = model.state_dict()
    common = {name: weight for name, weight in weights.items() if name in targets}
    if _custom_loading(model, common) is not None:
        state = {name: weight.read() for name, weight in common.items()}
        model.load_state_dict(state, strict=strict)
        return
    # Straight into the model's memory: no second copy of the weights, at no time.
    seen: set[tuple[object, ...]] = set()
    for name, weight in common.items():
        key = _view_key(targets[name])
        if key is None or key not in seen:
            weight.file.read_into(weight.entry, targets[name])
        if key is not None:
            seen.add(key)


def map_weights(model: nn.Module, weights: Mapping[str, StoredTensor]) -> None:
    """Make a model's tensors views of the mapped files; those on other devices are copied.

    Parameters stay the same objects, so optimizers and ties keep them; only those on the meta
    device are replaced, at every place where they are.
    """
    targets = model.state_dict(keep_vars=True)
    shown: dict[tuple[object, ...], Tensor] = {}
    replaced: dict[int, Tensor] = {}
    for name, weight in weights.items():
        target = targets.get(name)
        if target is None or id(target) in replaced:
            continue
        key = _view_key(target) or (name,)
        if key not in shown:
            shown[key] = weight.file.map(weight.entry)
        if target.is_meta:
            is_parameter = isinstance(target, nn.Parameter)
            replaced[id(target)] = (
                nn.Parameter(shown[key], target.requires_grad) if is_parameter else shown[key]
            )
        elif target.device.type == "cpu":
            target.data = shown[key]
        else:
            with torch.no_grad():
                target.copy_(shown[key])
    if replaced:
        _replace_tensors(model, replaced)


def _replace_tensors(model: nn.Module, replaced: Mapping[int, Tensor]) -> None:
    for module in model.modules():
        # nn.Module has no public way to replace an entry without registering it anew.
        for tensors in (module._parameters, module._buffers):  # noqa: SLF001
            for name, tensor in tensors.items():
                if id(tensor) in replaced:
                    tensors[name] = replaced[id(tensor)]  # type: ignore[assignment]


def _custom_loading(model: nn.Module, names: Iterable[str]) -> str | None:
    """Name what makes load_state_dict more than a copy into the tensors of state_dict."""
    for name in names:
        if name.rpartition(".")[2] == EXTRA_STATE:
            return name
    if type(model).load_state_dict is not nn.Module.load_state_dict:
        return type(model).__name__
    for module in model.modules():
        # Hooks and overrides have no public accessor.
        hooked = (
            module._load_state_dict_pre_hooks  # noqa: SLF001
            or module._load_state_dict_post_hooks  # noqa: SLF001
            or module._state_dict_hooks  # noqa: SLF001
        )
        own = [type(module)._load_from_state_dict, type(module)._save_to_state_dict]  # noqa: SLF001
        if (
            hooked
            or type(module).state_dict is not nn.Module.state_dict
            or not all(function.__module__.startswith("torch.nn.modules.") for function in own)
        ):
            return type(module).__name__
    return None


def _view_key(tensor: object) -> tuple[object, ...] | None:
    """Identify the memory that a tensor shows, and how; None where it shows none."""
    if not isinstance(tensor, Tensor) or is_lazy(tensor) or is_distributed(tensor):
        return None
    if tensor.layout is not torch.strided:
        return None
    if tensor.is_meta:
        return (id(tensor),) if isinstance(tensor, nn.Parameter) else None
    if tensor.numel() == 0:
        return None
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _shows_memory_twice(tensor: Tensor) -> bool:
    return any(
        size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


def _mismatches(
    targets: Mapping[str, Any], weights: Mapping[str, StoredTensor], *, mapped: bool
) -> list[str]:
    """Say why these weights cannot become the model's tensors of the same names."""
    problems: list[str] = []
    sources: dict[tuple[object, ...], str] = {}
    for name, weight in weights.items():
        target, entry = targets[name], weight.entry
        if name.rpartition(".")[2] == EXTRA_STATE:
            # The module takes it through set_extra_state, whatever its shape.
            continue
        if not isinstance(target, Tensor):
            problems.append(f"{name} is no tensor in the model")
        elif is_lazy(target):
            problems.append(f"{name} is not initialized in the model: run a forward pass first")
        elif target.is_meta and not mapped:
            problems.append(
                f"{name} is on the meta device in the model: pass mmap=True, or use "
                "model.to_empty() first"
            )
        elif is_distributed(target):
            problems.append(f"{name} is distributed: use load_distributed_checkpoint")
        elif tuple(target.shape) != entry.shape:
            problems.append(f"{name} is {tuple(target.shape)} in the model and {entry.shape} here")
        elif target.dtype != entry.dtype:
            problems.append(
                f"{name} is {target.dtype} in the model and {entry.dtype} here: "
                f"use model.to({entry.dtype}) first"
            )
        elif _shows_memory_twice(target):
            problems.append(f"{name} is an expanded tensor in the model: make it .contiguous()")
        else:
            other = sources.setdefault(_view_key(target) or (name,), name)
            if not weights[other].same_bytes(weight):
                problems.append(f"{other} and {name} are tied in the model and differ here")
    return problems
