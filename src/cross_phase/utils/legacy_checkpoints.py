"""Turn a ``.pt`` file, a pickle, into a checkpoint, without running what is in it."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint_errors import CheckpointError
from .checkpoints import write_checkpoint
from .checksums import DEFAULT_CHECKSUM
from .state_trees import encode_tree
from .tensor_files import check_storable_tensor

# The names under which training scripts keep a model's and an optimizer's state.
MODEL_KEYS = ("model_state_dict", "state_dict", "model_state", "model", "module", "weights")
OPTIMIZER_KEYS = ("optimizer_state_dict", "optimizer_state", "optimizer")
CONFIG_KEYS = ("config", "hyper_parameters", "hparams", "args")

SHOWN_GLOBALS = 5


@dataclass(frozen=True)
class LegacyConversion:
    """What became of a ``.pt`` file.

    Attributes:
        path: The new checkpoint.
        left_out: What could not be stored, each with its place and the reason; empty where
            nothing was lost.
    """

    path: Path
    left_out: list[str]


def convert_legacy_checkpoint(
    path: str | PathLike[str],
    output_path: str | PathLike[str] | None = None,
    *,
    max_shard_size: int | str = "5GB",
    checksum: str = DEFAULT_CHECKSUM,
) -> LegacyConversion:
    """Convert what ``torch.save`` wrote into a checkpoint for ``load_checkpoint``.

    The file is read with ``weights_only=True`` alone, which builds tensors and plain containers
    and calls nothing else. It holds a model's ``state_dict``, or a dict of it and more: the
    model under ``model_state_dict``, ``state_dict``, ``model_state``, ``model``, ``module`` or
    ``weights``, the optimizer under ``optimizer_state_dict``, ``optimizer_state`` or
    ``optimizer``, the configuration under ``config``, ``hyper_parameters``, ``hparams`` or
    ``args``. Everything else becomes the training state, under the names it has.

    Args:
        path: The ``.pt`` file. It stays as it is.
        output_path: The new checkpoint's folder; by default beside the file, under its name
            with ``.checkpoint`` appended.
        max_shard_size: See ``save_checkpoint``.
        checksum: See ``save_checkpoint``.

    Returns:
        The new checkpoint, and what had to be left out of it.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file needs more than tensors and plain containers (then it names
            what, and nothing is run or written), is damaged, or holds no model.
        ImportError: safetensors is not installed.
    """
    source = Path(path)
    folder = Path(f"{source}.checkpoint") if output_path is None else Path(output_path)
    content = _read_tensors_only(source)
    left_out: list[str] = []
    model_state, rest = _split_model(source, content, left_out)
    optimizer = _take(rest, OPTIMIZER_KEYS, Mapping)
    config = _take(rest, CONFIG_KEYS, Mapping)
    write_checkpoint(
        folder,
        model_state,
        config=_storable(config or {}, "config", left_out, tensors=False),
        metadata={"converted_from": source.name},
        optimizer_state=(
            None
            if optimizer is None
            else _storable(optimizer, "optimizer_state", left_out, tensors=True)
        ),
        extra_tensors=None,
        training_state=_storable(rest, "training_state", left_out, tensors=True) or None,
        max_shard_size=max_shard_size,
        checksum=checksum,
    )
    return LegacyConversion(folder, left_out)


def _read_tensors_only(source: Path) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        found = _unsafe_globals(source)
        needs = f" ({', '.join(found)})" if found else ""
        raise CheckpointError(
            source,
            f"is not converted, and nothing in it was run: it needs more than tensors and plain "
            f"containers{needs}. Save only state_dict() and plain values where it comes from",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(source, f"is no file of torch.save, or damaged: {reason}") from error


def _unsafe_globals(source: Path) -> list[str]:
    """Name what the pickle would have imported; reads it, and runs nothing."""
    try:
        found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(source))
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        return []  # a format from before torch 1.6, or damaged: the names are a courtesy
    more = len(found) - SHOWN_GLOBALS
    return found[:SHOWN_GLOBALS] + ([f"and {more} more"] if more > 0 else [])


def _split_model(
    source: Path, content: Any, left_out: list[str]
) -> tuple[dict[str, Tensor], dict[Any, Any]]:
    if not isinstance(content, Mapping):
        raise CheckpointError(source, f"holds a {type(content).__name__}, not a model's state_dict")
    rest = dict(content)
    state = _take(rest, MODEL_KEYS, Mapping)
    if state is None:
        # The file is a state_dict itself: tensors by name.
        state = {name: rest.pop(name) for name in content if isinstance(content[name], Tensor)}
    model_state: dict[str, Tensor] = {}
    for name, tensor in state.items():
        plain = tensor.data if isinstance(tensor, nn.Parameter) else tensor
        try:
            check_storable_tensor(plain, f"model[{name}]")
        except TypeError as error:
            left_out.append(str(error))
        else:
            model_state[name] = plain
    if not model_state:
        raise CheckpointError(
            source,
            f"holds no model: no tensors, and none under {', '.join(MODEL_KEYS)}",
        )
    return model_state, rest


def _take(content: dict[Any, Any], names: tuple[str, ...], kind: type) -> Any:
    for name in names:
        if isinstance(content.get(name), kind):
            return content.pop(name)
    return None


def _storable(value: Any, where: str, left_out: list[str], *, tensors: bool) -> Any:
    """Copy nested state without what cannot be stored, and say what that is."""
    if isinstance(value, Mapping):
        kept: dict[Any, Any] = {}
        for key, item in value.items():
            here = f"{where}[{key}]"
            if _fits(key, here, left_out, tensors=False):
                stored = _storable(item, here, left_out, tensors=tensors)
                if stored is not _LEFT_OUT:
                    kept[key] = stored
        return kept
    if type(value) in (list, tuple):
        items = [
            _storable(item, f"{where}[{index}]", left_out, tensors=tensors)
            for index, item in enumerate(value)
        ]
        # A hole would move the items after it: then the whole list goes.
        whole = all(item is not _LEFT_OUT for item in items)
        return type(value)(items) if whole else _LEFT_OUT
    return value if _fits(value, where, left_out, tensors=tensors) else _LEFT_OUT


def _fits(value: Any, where: str, left_out: list[str], *, tensors: bool) -> bool:
    found: dict[str, Tensor] = {}
    try:
        encode_tree(value, where, found if tensors else None)
        for tensor in found.values():
            check_storable_tensor(tensor, where)
    except (TypeError, ValueError) as error:
        left_out.append(str(error))
        return False
    return True


_LEFT_OUT = object()
