"""Weights that other programs wrote: a safetensors file, or a Hugging Face model folder."""

from collections.abc import Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

from torch import nn

from .checkpoint_errors import CheckpointError
from .checkpoints import load_weights
from .huggingface_files import INDEX_NAME, SINGLE_NAME, read_weight_map
from .model_state import NameDifferences, check_module, check_weights, tied_names
from .tensor_files import StoredTensor, TensorFile, require_safetensors


def load_safetensors(
    model: nn.Module,
    path: str | PathLike[str],
    strict: bool = True,
    *,
    mmap: bool = False,
) -> NameDifferences:
    """Load weights from safetensors files, all of them or none.

    Names, shapes and dtypes are checked before a parameter is touched; such files carry no
    checksums. Weights that are tied in the model need to be there once, as Transformers stores
    them.

    Args:
        model: The model to load into, on any device; it stays there.
        path: A ``.safetensors`` file, or a folder with ``model.safetensors``, or with
            ``model.safetensors.index.json`` and the files that it names.
        strict: Whether the names must be the same ones; see ``load_checkpoint``.
        mmap: Let the model's tensors show the file; see ``load_checkpoint``.

    Returns:
        The names on one side only.

    Raises:
        TypeError: ``model`` is not an ``nn.Module``.
        FileNotFoundError: There is no such file, or nothing of the kind in the folder.
        CheckpointError: A file is missing or damaged, or is not this model's. The model is
            unchanged.
        ImportError: safetensors is not installed.
    """
    require_safetensors()
    check_module(model)
    source = Path(path)
    with ExitStack() as stack:
        try:
            stored = _open_weights(source, stack)
            ties = tied_names(model, stored)
            weights = {**stored, **{name: stored[kept] for name, kept in ties.items()}}
            differences = check_weights(model, weights, strict=strict, mapped=mmap)
            load_weights(model, weights, strict=strict, mmap=mmap)
        except ValueError as error:
            raise CheckpointError(source, str(error)) from error
    return differences


def _open_weights(source: Path, stack: ExitStack) -> Mapping[str, StoredTensor]:
    if not source.is_dir():
        file = stack.enter_context(TensorFile(source))
        return {name: StoredTensor(name, file, entry) for name, entry in file.entries.items()}
    if (source / SINGLE_NAME).is_file():
        return _open_weights(source / SINGLE_NAME, stack)
    if not (source / INDEX_NAME).is_file():
        raise FileNotFoundError(f"{source} has neither {SINGLE_NAME} nor {INDEX_NAME}")
    weight_map = read_weight_map(source)
    try:
        files = {
            name: stack.enter_context(TensorFile(source / name))
            for name in sorted(set(weight_map.values()))
        }
    except FileNotFoundError as error:
        raise ValueError(f"{INDEX_NAME} names a file that is missing: {error}") from error
    stored: dict[str, StoredTensor] = {}
    for name, file_name in weight_map.items():
        file = files[file_name]
        if name not in file.entries:
            raise ValueError(f"{INDEX_NAME} has tensor {name!r} in {file_name}, which lacks it")
        stored[name] = StoredTensor(name, file, file.entries[name])
    return stored
