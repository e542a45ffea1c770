"""Checkpoints of models that are spread over processes: FSDP, tensor parallelism, DDP.

Each process writes and reads its own parts through ``torch.distributed.checkpoint``; what lies
on the disk is an ordinary checkpoint, which any number of processes, or one, can load.
"""

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from .checkpoint_errors import CheckpointError
from .checkpoint_folders import (
    Manifest,
    commit_files,
    folder_lock,
    make_durable_folder,
    new_save_id,
    staging_name,
)
from .checkpoints import OpenCheckpoint, open_checkpoint, parse_size
from .checksums import DEFAULT_CHECKSUM, new_hasher
from .model_state import SHOWN_PROBLEMS, check_module
from .state_trees import decode_tree, encode_tree
from .tensor_files import DataFile, StoredTensor, split_into_shards, write_tensor_file
from .tensor_headers import DTYPE_NAMES

Result = TypeVar("Result")

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def save_distributed_checkpoint(
    model: nn.Module,
    output_path: str | PathLike[str],
    optimizer: torch.optim.Optimizer | None = None,
    config: Any = None,
    metadata: Any = None,
    *,
    training_state: Mapping[str, Any] | None = None,
    max_shard_size: int | str = "5GB",
    checksum: str = DEFAULT_CHECKSUM,
    process_group: dist.ProcessGroup | None = None,
) -> Path:
    """Save a distributed model as one checkpoint; every process calls this.

    Each process writes the parts that it holds, into a folder that all of them share; the first
    one joins them to whole tensors, and commits them at once, as ``save_checkpoint`` does.

    Args:
        model: The model, with ``DTensor`` parameters (``fully_shard``, tensor parallelism) or
            with the same plain ones in each process (DDP).
        output_path: The folder. A checkpoint in it is replaced.
        optimizer: Its state is stored by parameter names, so that another number of processes
            can take it over.
        config: See ``save_checkpoint``, like the next ones. The first process's count.
        metadata: See there.
        training_state: See there; its tensors must be plain ones.
        max_shard_size: See there.
        checksum: See there.
        process_group: The processes; all by default. Without ``init_process_group``, this one.

    Returns:
        The folder.

    Raises:
        TypeError: ``model`` is not an ``nn.Module``.
        ValueError: ``max_shard_size`` or ``checksum`` is none.
        CheckpointError: Something cannot be stored or written, in every process; the checkpoint
            that was there is still there.
    """
    check_module(model)
    shard_bytes = parse_size(max_shard_size)
    new_hasher(checksum)
    folder = Path(output_path)
    group = _Group(folder, process_group)
    state, tied = _split_shared(model, group)
    tensors: dict[str, dict[str, Tensor]] = {"model": state}
    trees: dict[str, Any] = {}

    def encode() -> None:
        for role, value in (
            ("optimizer", None if optimizer is None else _flat_state(model, optimizer)),
            ("training", training_state),
        ):
            if value is not None:
                tensors[role] = {}
                trees[role] = encode_tree(dict(value), role, tensors[role])
        for role, found in tensors.items():
            for name, tensor in found.items():
                if tensor.dtype not in DTYPE_NAMES:
                    raise TypeError(f"{role}[{name}] is {tensor.dtype}: it cannot be stored")
        trees["config"] = encode_tree({} if config is None else config, "config")
        trees["metadata"] = encode_tree({} if metadata is None else metadata, "metadata")

    group.together("not saved", encode)
    group.first("could not be written", lambda: make_durable_folder(folder))
    save_id = group.share(new_save_id())
    staging = folder / staging_name(save_id)
    with ExitStack() as stack:
        locked = group.first(
            "could not be written", lambda: stack.enter_context(folder_lock(folder))
        )
        group.first("could not be written", staging.mkdir)

        def write() -> dict[str, list[DataFile]]:
            files: dict[str, list[DataFile]] = {}
            for role, found in tensors.items():
                parts = staging / f"parts-{role}"
                _write_parts(parts, found, process_group)
                shards = split_into_shards(found, shard_bytes)
                files[role] = [
                    write_tensor_file(
                        staging / f"{role}-{save_id}-{number:05}.safetensors",
                        _join_parts(parts, shard),
                        checksum,
                    )
                    for number, shard in enumerate(shards, start=1)
                    if number % group.size == group.rank
                ]
            return files

        def commit() -> None:
            files = {
                role: tuple(sorted((f for part in parts for f in part[role]), key=_by_name))
                for role in tensors
            }
            manifest = Manifest(checksum, files, tied, **trees)
            commit_files(folder, lambda _, __: manifest, locked=bool(locked), save_id=save_id)

        try:
            parts = group.gather(group.together("could not be written", write))
            group.first("could not be written", commit)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder


def load_distributed_checkpoint(
    model: nn.Module,
    checkpoint_path: str | PathLike[str],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    config_types: Collection[type] = (),
    process_group: dist.ProcessGroup | None = None,
) -> dict[str, Any]:
    """Load a checkpoint into a distributed model; every process calls this.

    The processes share the work of comparing the checksums; each then reads its own parts.
    Everything is checked before a parameter is touched in any of them.

    Args:
        model: The model, spread in any way.
        checkpoint_path: The folder, by whatever number of processes it was written.
        optimizer: Its state is restored too; saved by :func:`save_distributed_checkpoint`.
        config_types: See ``load_checkpoint``.
        process_group: The processes; all by default. Without ``init_process_group``, this one.

    Returns:
        ``config``, ``metadata``, ``extra_tensors`` and ``training_state``, as
        ``load_checkpoint`` does.

    Raises:
        TypeError: ``model`` is not an ``nn.Module``.
        CheckpointError: There is none, it is damaged or not this model's, or has no such
            optimizer state; in every process. The model is unchanged.
    """
    check_module(model)
    folder = Path(checkpoint_path)
    group = _Group(folder, process_group)
    state, tied = _split_shared(model, group)

    def check() -> dict[str, Any]:
        with open_checkpoint(folder) as checkpoint:
            contents = checkpoint.read_contents(config_types=config_types)
            _check_weights(state, tied, checkpoint.weights)
            if optimizer is not None:
                _check_is_flat(checkpoint.manifest.optimizer)
            roles = ("model",) if optimizer is None else ("model", "optimizer")
            stored = [tensor for role in roles for tensor in checkpoint.tensors[role].values()]
            for tensor in stored[group.rank :: group.size]:
                tensor.verify(checkpoint.manifest.checksum)
            return contents

    contents = group.together("not loaded", check)
    flat: dict[str, Any] = {}
    if optimizer is not None:
        holder = optimizer

        def prepare() -> dict[str, Any]:
            prepared = _flat_state(model, holder)
            with open_checkpoint(folder) as checkpoint:
                _check_optimizer(prepared, checkpoint)
            return prepared

        flat = group.together("not loaded", prepare)

    def load() -> None:
        with open_checkpoint(folder) as checkpoint:
            stored = {checkpoint.weights[name].name: tensor for name, tensor in state.items()}
            _read_parts(checkpoint.tensors["model"], stored, process_group)
            if optimizer is not None:
                moments = {name: item for name, item in flat.items() if isinstance(item, Tensor)}
                _read_parts(checkpoint.tensors["optimizer"], moments, process_group)
                values = decode_tree(checkpoint.manifest.optimizer, moments)
                set_optimizer_state_dict(model, optimizer, values, options=FLAT)
        whole = {**state, **{name: state[kept] for name, kept in tied.items()}}
        set_model_state_dict(model, whole)

    group.together("was checked, and then failed to be read", load)
    del contents["optimizer_state_dict"]
    return contents


class _Group:
    """The processes that take part: what fails in one of them fails in all."""

    def __init__(self, folder: Path, process_group: dist.ProcessGroup | None) -> None:
        self.folder = folder
        self.process_group = process_group
        self.alone = not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if self.alone else dist.get_rank(process_group)
        self.size = 1 if self.alone else dist.get_world_size(process_group)

    def gather(self, value: Result) -> list[Result]:
        """Give every process what each of them has."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.process_group)
        return values

    def share(self, value: Result) -> Result:
        """Give every process what the first one has."""
        return self.gather(value)[0]

    def together(self, what: str, call: Callable[[], Result]) -> Result:
        """Call in each process, and go on only if it succeeded in all of them."""
        value: Any = None
        failure = None
        try:
            value = call()
        except CheckpointError as error:
            failure = error.reason
        except (OSError, TypeError, ValueError, RuntimeError, CheckpointException) as error:
            failure = f"{type(error).__name__}: {error}"
        for rank, reason in enumerate(self.gather(failure)):
            if reason is not None:
                raise CheckpointError(self.folder, f"{what}, by process {rank}: {reason}")
        result: Result = value
        return result

    def first(self, what: str, call: Callable[[], Result]) -> Result | None:
        """Call in the first process alone, and go on only if it succeeded."""
        return self.together(what, lambda: call() if self.rank == 0 else None)


def _split_shared(model: nn.Module, group: _Group) -> tuple[dict[str, Any], dict[str, str]]:
    """Keep one name of each tensor, in every process the same; map the others to it."""
    state = get_model_state_dict(model)
    owners: dict[tuple[object, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(group.folder, f"model[{name}] is not a tensor")
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if local.numel():
            kept = owners.setdefault((local.data_ptr(), tensor.shape, tensor.dtype), name)
            if kept != name:
                tied[name] = kept
    # A process whose part of a tensor is empty cannot see a tie.
    tied = group.share(tied)
    return {name: tensor for name, tensor in state.items() if name not in tied}, tied


def _flat_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state by the names of the parameters."""
    return dict(get_optimizer_state_dict(model, optimizer, options=FLAT))


def _write_parts(
    folder: Path, tensors: dict[str, Tensor], process_group: dist.ProcessGroup | None
) -> None:
    if tensors:
        state_dict_saver.save(
            dict(tensors),
            storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
            process_group=process_group,
        )


def _join_parts(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read whole tensors from the parts of all processes."""
    whole = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors.items()
    }
    if whole:
        state_dict_loader.load(
            whole, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True
        )
    return whole


def _read_parts(
    stored: Mapping[str, StoredTensor],
    tensors: dict[str, Tensor],
    process_group: dist.ProcessGroup | None,
) -> None:
    """Read this process's part of each tensor into it."""
    if not tensors:
        return
    with tempfile.TemporaryDirectory() as name:
        # The reader takes all files of a folder, and a checkpoint's holds other tensors too.
        for path in {tensor.file.path for tensor in stored.values()}:
            (Path(name) / path.name).symlink_to(path.absolute())
        state_dict_loader.load(
            tensors, storage_reader=HuggingFaceStorageReader(name), process_group=process_group
        )


def _check_weights(
    state: Mapping[str, Tensor], tied: Mapping[str, str], weights: Mapping[str, StoredTensor]
) -> None:
    names = {*state, *tied}
    problems = [
        f"{name} is in the checkpoint but not in the model" for name in weights.keys() - names
    ]
    problems += [
        f"{name} is in the model but not in the checkpoint" for name in names - weights.keys()
    ]
    for name, tensor in state.items():
        if name in weights:
            problems += _difference(name, tensor, weights[name])
    for name, kept in tied.items():
        if name in weights and kept in weights and not weights[name].same_bytes(weights[kept]):
            problems.append(f"{name} and {kept} are tied in the model and differ here")
    if problems:
        raise ValueError(f"does not fit the model: {'; '.join(sorted(problems)[:SHOWN_PROBLEMS])}")


def _difference(name: str, tensor: Tensor, stored: StoredTensor) -> list[str]:
    here = (tuple(tensor.shape), tensor.dtype)
    there = (stored.entry.shape, stored.entry.dtype)
    return [] if here == there else [f"{name} is {here} in the model and {there} here"]


def _check_is_flat(encoded: Any) -> None:
    if not isinstance(encoded, dict) or "state" in encoded or "param_groups" in encoded:
        raise ValueError(
            "has no optimizer state by parameter names, as save_distributed_checkpoint stores it"
        )


def _check_optimizer(flat: Mapping[str, Any], checkpoint: OpenCheckpoint) -> None:
    different = sorted(set(flat) ^ set(checkpoint.manifest.optimizer))
    if different:
        raise ValueError(f"is of another optimizer: only one of them has {different[0]}")
    for name, tensor in flat.items():
        if isinstance(tensor, Tensor):
            stored = checkpoint.tensors["optimizer"].get(name)
            problems = [f"{name} is no tensor here"] if stored is None else []
            problems += [] if stored is None else _difference(name, tensor, stored)
            if problems:
                raise ValueError(f"is of another optimizer: {problems[0]}")


def _by_name(file: DataFile) -> str:
    return file.name
