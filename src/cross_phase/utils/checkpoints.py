"""Save and load a model with its training state: safetensors and JSON, no pickle.

A checkpoint is a folder of safetensors files and a manifest; see ``checkpoint_folders``.
"""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .checkpoint_errors import CheckpointError
from .checkpoint_folders import Manifest, read_manifest, replace_checkpoint
from .state_trees import decode_tree, encode_tree
from .tensor_files import read_tensor_files, require_safetensors, storable_tensors

# How many names an error message lists.
SHOWN_NAMES = 5


def save_checkpoint(
    model: nn.Module,
    output_path: str | PathLike[str],
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    optimizer_state: Mapping[str, Any] | None = None,
    extra_tensors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Save a model, and what belongs to it, as one folder that changes all at once.

    Whatever happens meanwhile (a crash, a kill, a full disk), the folder holds the checkpoint
    that was there before, or the new one, never a mixture. Everything is stored bit for bit;
    tensors that share memory in whole (tied weights) are stored once.

    Args:
        model: The model; its ``state_dict`` is stored, which must hold only tensors.
        output_path: The folder, under exactly this name. A checkpoint in it is replaced.
        config: Nested dict, list, tuple, str, int, float, bool, None, ``torch.dtype``,
            ``torch.device`` and ``pathlib.Path``.
        metadata: Of the same types.
        optimizer_state: ``optimizer.state_dict()``: of the same types, and tensors.
        extra_tensors: More tensors by name; their names do not meet the model's.

    Returns:
        The folder.

    Raises:
        TypeError: ``model`` is not an ``nn.Module``.
        CheckpointError: Something cannot be stored, by name, before anything is written; or
            writing failed, and the checkpoint that was there is still there.
        ImportError: safetensors is not installed.
    """
    require_safetensors()
    _check_module(model)
    folder = Path(output_path)
    try:
        kept, tied = _split_ties(model.state_dict())
        tensors = {"model": storable_tensors(kept, "model")}
        encoded_config = encode_tree(dict(config or {}), "config")
        encoded_metadata = encode_tree(dict(metadata or {}), "metadata")
        encoded_optimizer = None
        if optimizer_state is not None:
            optimizer_tensors: dict[str, Tensor] = {}
            encoded_optimizer = encode_tree(
                dict(optimizer_state), "optimizer_state", optimizer_tensors
            )
            tensors["optimizer"] = storable_tensors(optimizer_tensors, "optimizer_state")
        if extra_tensors:
            tensors["extra"] = storable_tensors(extra_tensors, "extra_tensors")
    except (TypeError, ValueError) as error:
        raise CheckpointError(folder, f"not saved: {error}") from error
    try:
        replace_checkpoint(
            folder,
            tensors,
            tied=tied,
            config=encoded_config,
            metadata=encoded_metadata,
            optimizer=encoded_optimizer,
        )
    except OSError as error:
        raise CheckpointError(folder, f"could not be written: {error}") from error
    return folder


def load_checkpoint(
    model: nn.Module,
    checkpoint_path: str | PathLike[str],
    device: str | torch.device = "cpu",
    load_optimizer: bool = False,
    strict: bool = True,
) -> dict[str, Any]:
    """Load a model's weights, all of them or none, and return what was saved beside them.

    Everything is checked before a parameter is touched: the manifest, each file's length and
    SHA-256, and every tensor's name, shape and dtype. The optimizer's file is read and checked
    only where it is asked for. The weights are copied into the model's own tensors.

    Args:
        model: The model to load into, on any device; it stays there.
        checkpoint_path: The folder that :func:`save_checkpoint` returned.
        device: Where the returned tensors are put.
        load_optimizer: Whether to return the optimizer's state.
        strict: Whether the names in the model and in the checkpoint must be the same ones.
            Otherwise those in both are loaded, and there must be some. Shapes and dtypes must
            match in any case.

    Returns:
        ``config``, ``metadata`` and ``extra_tensors`` (dicts, empty where none was saved),
        ``optimizer_state_dict`` (None where it was not asked for), and the names that were only
        on one side: ``missing_keys`` (of the model) and ``unexpected_keys`` (of the checkpoint).

    Raises:
        TypeError: ``model`` is not an ``nn.Module``.
        FileNotFoundError: There is no checkpoint.
        CheckpointError: It is damaged, is not this model's, or has no optimizer state though
            that was asked for. The model is unchanged.
        ImportError: safetensors is not installed.
    """
    require_safetensors()
    _check_module(model)
    folder = Path(checkpoint_path)
    roles = ["model", "extra", "optimizer"] if load_optimizer else ["model", "extra"]
    manifest, tensors = _read_checkpoint(folder, roles)
    if load_optimizer and manifest.optimizer is None:
        raise CheckpointError(folder, "has no optimizer state: pass load_optimizer=False")
    try:
        config = decode_tree(manifest.config)
        metadata = decode_tree(manifest.metadata)
        optimizer_state = (
            decode_tree(manifest.optimizer, _copies(tensors["optimizer"], device))
            if load_optimizer
            else None
        )
        weights = _restore_ties(tensors["model"], manifest.tied)
    except ValueError as error:
        raise CheckpointError(folder, f"the manifest cannot be read: {error}") from error
    extra_tensors = _copies(tensors["extra"], device)

    targets = model.state_dict()
    missing = [name for name in targets if name not in weights]
    unexpected = [name for name in weights if name not in targets]
    common = {name: weight for name, weight in weights.items() if name in targets}
    problems = _mismatches(targets, common)
    if strict:
        problems += [f"{name} is in the model but not in the checkpoint" for name in missing]
        problems += [f"{name} is in the checkpoint but not in the model" for name in unexpected]
    elif targets and not common:
        problems.append("the model and the checkpoint have no name in common")
    if problems:
        more = len(problems) - SHOWN_NAMES
        listed = "; ".join(problems[:SHOWN_NAMES]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(folder, f"does not fit the model: {listed}")
    model.load_state_dict(common, strict=strict)
    return {
        "config": config,
        "metadata": metadata,
        "extra_tensors": extra_tensors,
        "optimizer_state_dict": optimizer_state,
        "missing_keys": missing,
        "unexpected_keys": unexpected,
    }


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _view_key(tensor: Tensor) -> tuple[object, ...] | None:
    """Identify the memory that a tensor shows, and how; None where it shows none."""
    if is_lazy(tensor) or tensor.is_meta or tensor.layout is not torch.strided:
        return None
    if tensor.numel() == 0:
        return None
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _split_ties(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Keep one of the names that show the same memory; map the others to it."""
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


def _restore_ties(stored: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    weights = dict(stored)
    for name, kept in tied.items():
        if kept not in stored or name in stored:
            raise ValueError(f"{name!r} is tied to {kept!r}, which does not fit the model's file")
        weights[name] = stored[kept]
    return weights


def _shows_memory_twice(tensor: Tensor) -> bool:
    return any(
        size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


def _copies(tensors: Mapping[str, Tensor], device: str | torch.device) -> dict[str, Tensor]:
    """Copy tensors off the mapped file, onto the device."""
    return {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}


def _read_checkpoint(
    folder: Path, roles: Iterable[str]
) -> tuple[Manifest, dict[str, dict[str, Tensor]]]:
    while True:
        text = read_manifest(folder)
        try:
            manifest = Manifest.from_json(text)
            tensors = {
                role: read_tensor_files(folder, manifest.files.get(role, ())) for role in roles
            }
        except FileNotFoundError as error:
            # A writer may have replaced the checkpoint since: then there is a newer manifest.
            if read_manifest(folder) != text:
                continue
            raise CheckpointError(folder, f"a data file is missing: {error}") from error
        except (ValueError, OSError) as error:
            raise CheckpointError(folder, str(error)) from error
        return manifest, tensors


def _mismatches(targets: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    """Say why these weights cannot be copied into the model's tensors of the same names."""
    problems: list[str] = []
    sources: dict[tuple[object, ...], str] = {}
    for name, weight in weights.items():
        target = targets[name]
        if not isinstance(target, Tensor):
            problems.append(f"{name} is no tensor in the model")
        elif is_lazy(target):
            problems.append(f"{name} is not initialized in the model: run a forward pass first")
        elif target.is_meta:
            problems.append(
                f"{name} is on the meta device in the model: use model.to_empty() first"
            )
        elif name.rpartition(".")[2] == "_extra_state":
            # The module takes it through set_extra_state, whatever its shape.
            continue
        elif target.shape != weight.shape:
            problems.append(f"{name} is {_shape(target)} in the model and {_shape(weight)} here")
        elif target.dtype != weight.dtype:
            problems.append(
                f"{name} is {target.dtype} in the model and {weight.dtype} here: "
                f"use model.to({weight.dtype}) first"
            )
        elif _shows_memory_twice(target):
            problems.append(f"{name} is an expanded tensor in the model: make it .contiguous()")
        else:
            other = sources.setdefault(_view_key(target) or (name,), name)
            if not _same_bits(weights[other], weight):
                problems.append(f"{other} and {name} are tied in the model and differ here")
    return problems


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
