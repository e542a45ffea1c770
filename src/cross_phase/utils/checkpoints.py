"""Save and load a model with its training state: safetensors and JSON, no pickle.

A checkpoint is a folder of safetensors files and a manifest; see ``checkpoint_folders``.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint_errors import CheckpointError
from .checkpoint_folders import (
    MANIFEST_NAME,
    Manifest,
    read_manifest,
    replace_checkpoint,
)
from .checksums import DEFAULT_CHECKSUM, new_hasher
from .huggingface_files import INDEX_NAME, SINGLE_NAME, check_index
from .model_state import (
    NameDifferences,
    check_module,
    check_weights,
    copy_weights,
    map_weights,
    restore_ties,
    split_ties,
)
from .state_trees import decode_tree, encode_tree
from .tensor_files import (
    DataFile,
    StoredTensor,
    TensorFile,
    check_storable,
    check_tensor_file,
    require_safetensors,
    split_into_shards,
)

SIZE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class CheckpointSummary:
    """What :func:`verify_checkpoint` found whole.

    Attributes:
        path: The checkpoint.
        files: How many data files it has.
        tensors: How many tensors they hold.
        bytes: Their length together.
        checksum: The name of the checksums that were compared.
    """

    path: Path
    files: int
    tensors: int
    bytes: int
    checksum: str


def save_checkpoint(
    model: nn.Module,
    output_path: str | PathLike[str],
    config: Any = None,
    metadata: Any = None,
    optimizer_state: Mapping[str, Any] | None = None,
    extra_tensors: Mapping[str, Tensor] | None = None,
    *,
    training_state: Mapping[str, Any] | None = None,
    max_shard_size: int | str = "5GB",
    checksum: str = DEFAULT_CHECKSUM,
) -> Path:
    """Save a model, and what belongs to it, as one folder that changes all at once.

    Whatever happens meanwhile (a crash, a kill, a full disk), the folder holds the checkpoint
    that was there before, or the new one, never a mixture. Everything is stored bit for bit;
    tensors that share memory in whole (tied weights) are stored once.

    The weights lie in safetensors files that ``model.safetensors.index.json`` names, so the
    programs of Hugging Face read them too.

    Args:
        model: The model; its ``state_dict`` is stored, which must hold only tensors.
        output_path: The folder, under exactly this name. A checkpoint in it is replaced.
        config: A dict or a dataclass instance; nested, of dicts, lists, tuples, strings,
            numbers, None, dataclass instances, enum members, ``pathlib.Path``,
            ``torch.dtype``, ``torch.device`` and NumPy scalars.
        metadata: Of the same types.
        optimizer_state: ``optimizer.state_dict()``: of the same types, and tensors.
        extra_tensors: More tensors by name; their names do not meet the model's.
        training_state: Whatever else training needs to go on, such as
            ``{"scheduler": scheduler.state_dict(), "random": get_random_states()}``: of the
            same types, tensors and NumPy arrays.
        max_shard_size: How much a file holds at most, in bytes or as ``"500MB"`` (decimal
            units, as Hugging Face has them); a larger tensor gets a file of its own.
        checksum: ``"xxh3_128"``, or ``"sha256"``, which is slower and against forgery too.

    Returns:
        The folder.

    Raises:
        TypeError: ``model`` is not an ``nn.Module``.
        ValueError: ``max_shard_size`` or ``checksum`` is none.
        CheckpointError: Something cannot be stored, by name, before anything is written; or
            writing failed, and the checkpoint that was there is still there.
        ImportError: safetensors is not installed.
    """
    check_module(model)
    return write_checkpoint(
        Path(output_path),
        model.state_dict(),
        config={} if config is None else config,
        metadata={} if metadata is None else metadata,
        optimizer_state=optimizer_state,
        extra_tensors=extra_tensors,
        training_state=training_state,
        max_shard_size=max_shard_size,
        checksum=checksum,
    )


def write_checkpoint(
    folder: Path,
    model_state: Mapping[str, Any],
    *,
    config: Any,
    metadata: Any,
    optimizer_state: Mapping[str, Any] | None,
    extra_tensors: Mapping[str, Tensor] | None,
    training_state: Mapping[str, Any] | None,
    max_shard_size: int | str,
    checksum: str,
) -> Path:
    """Save a model's ``state_dict``; see :func:`save_checkpoint`."""
    require_safetensors()
    shard_bytes = parse_size(max_shard_size)
    new_hasher(checksum)
    tensors: dict[str, Mapping[str, Tensor]] = {}
    try:
        tensors["model"], tied = split_ties(model_state)
        check_storable(tensors["model"], "model")
        trees: dict[str, Any] = {}
        for role, name, state in (
            ("optimizer", "optimizer_state", optimizer_state),
            ("training", "training_state", training_state),
        ):
            if state is None:
                continue
            found: dict[str, Tensor] = {}
            trees[role] = encode_tree(_plain_dict(state), name, found)
            check_storable(found, name)
            tensors[role] = found
        if extra_tensors:
            check_storable(extra_tensors, "extra_tensors")
            tensors["extra"] = extra_tensors
        contents = Manifest(
            checksum,
            tied=tied,
            config=encode_tree(_plain_dict(config), "config"),
            metadata=encode_tree(_plain_dict(metadata), "metadata"),
            **trees,
        )
        shards = {role: split_into_shards(group, shard_bytes) for role, group in tensors.items()}
        replace_checkpoint(folder, shards, contents)
    except (TypeError, ValueError) as error:
        raise CheckpointError(folder, f"not saved: {error}") from error
    except OSError as error:
        raise CheckpointError(folder, f"could not be written: {error}") from error
    return folder


def load_checkpoint(
    model: nn.Module,
    checkpoint_path: str | PathLike[str],
    device: str | torch.device = "cpu",
    load_optimizer: bool = False,
    strict: bool = True,
    *,
    mmap: bool = False,
    verify: bool | None = None,
    config_types: Collection[type] = (),
) -> dict[str, Any]:
    """Load a model's weights, all of them or none, and return what was saved beside them.

    Everything is checked before a parameter is touched: the manifest, each file's length and
    checksums, and every tensor's name, shape and dtype. The optimizer's files are read and
    checked only where they are asked for. The weights are read straight into the model's own
    memory, so a load needs next to none besides.

    Args:
        model: The model to load into, on any device; it stays there.
        checkpoint_path: The folder that :func:`save_checkpoint` returned.
        device: Where the returned tensors are put.
        load_optimizer: Whether to return the optimizer's state.
        strict: Whether the names in the model and in the checkpoint must be the same ones.
            Otherwise those in both are loaded, and there must be some. Shapes and dtypes must
            match in any case.
        mmap: Let the model's tensors on the CPU, and those on the meta device, show the file
            itself instead of a copy. A page is then read from the disk when it is first used;
            what is written to the tensors does not reach the file. The file may be deleted,
            but must not be changed in place.
        verify: Whether to compare the checksums of the weights. By default they are, but not
            for ``mmap``, which would have to read all of the file: there only its header is
            checked, and :func:`verify_checkpoint` does the rest.
        config_types: Dataclasses and enums of the configuration and the metadata. Of other
            classes the fields come back as a dict, and enum members as their values: a
            checkpoint never decides what is imported or run.

    Returns:
        ``config``, ``metadata`` and ``extra_tensors`` (dicts, empty where none was saved),
        ``optimizer_state_dict`` (None where it was not asked for), ``training_state`` (None
        where none was saved), and the names that were only on one side: ``missing_keys`` (of
        the model) and ``unexpected_keys`` (of the checkpoint).

    Raises:
        TypeError: ``model`` is not an ``nn.Module``, or one of ``config_types`` is neither a
            dataclass nor an enum.
        FileNotFoundError: There is no checkpoint.
        CheckpointError: It is damaged, is not this model's, or has no optimizer state though
            that was asked for. The model is unchanged.
        ImportError: safetensors is not installed.
    """
    check_module(model)
    with open_checkpoint(checkpoint_path) as checkpoint:
        contents = checkpoint.read_contents(
            device=device, load_optimizer=load_optimizer, config_types=config_types
        )
        differences = checkpoint.check_model(
            model, strict=strict, mmap=mmap, verify=not mmap if verify is None else verify
        )
        checkpoint.load_model(model, strict=strict, mmap=mmap)
    return {
        **contents,
        "missing_keys": differences.missing,
        "unexpected_keys": differences.unexpected,
    }


def verify_checkpoint(path: str | PathLike[str]) -> CheckpointSummary:
    """Read a whole checkpoint and compare every checksum.

    The index, which other programs read and a load here does not, must lead them to whole files
    too, where it is there.

    Args:
        path: The folder that :func:`save_checkpoint` returned.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: There is no checkpoint.
        CheckpointError: Something of it is missing or damaged; names the file and the tensor.
    """
    with open_checkpoint(path) as checkpoint:
        return checkpoint.verify()


class OpenCheckpoint:
    """A checkpoint whose files are open: it can be read even if it is replaced meanwhile.

    Args:
        folder: Where it is.
        manifest: What it holds.
        tensors: The tensors of each role, by name.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, tensors: Mapping[str, Mapping[str, StoredTensor]]
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.tensors = tensors
        try:
            self.weights = restore_ties(tensors["model"], manifest.tied)
        except ValueError as error:
            raise self._unreadable(error) from error

    def read_contents(
        self,
        *,
        device: str | torch.device = "cpu",
        load_optimizer: bool = False,
        config_types: Collection[type] = (),
    ) -> dict[str, Any]:
        """Read and check everything but the weights; see :func:`load_checkpoint`."""
        manifest = self.manifest
        if load_optimizer and manifest.optimizer is None:
            raise CheckpointError(self.folder, "has no optimizer state: pass load_optimizer=False")
        extra = self._read("extra", device)
        training = self._read("training", device)
        optimizer = self._read("optimizer", device) if load_optimizer else {}
        try:
            return {
                "config": decode_tree(manifest.config, types=config_types),
                "metadata": decode_tree(manifest.metadata, types=config_types),
                "extra_tensors": extra,
                "optimizer_state_dict": (
                    decode_tree(manifest.optimizer, optimizer) if load_optimizer else None
                ),
                "training_state": decode_tree(manifest.training, training, config_types),
            }
        except ValueError as error:
            raise self._unreadable(error) from error

    def check_model(
        self, model: nn.Module, *, strict: bool, mmap: bool, verify: bool
    ) -> NameDifferences:
        """Check all that could keep the weights from the model."""
        try:
            differences = check_weights(model, self.weights, strict=strict, mapped=mmap)
            if verify:
                for weight in self.tensors["model"].values():
                    weight.verify(self.manifest.checksum)
        except (ValueError, OSError) as error:
            raise CheckpointError(self.folder, str(error)) from error
        return differences

    def load_model(self, model: nn.Module, *, strict: bool, mmap: bool) -> None:
        """Load the weights into a model that was checked."""
        try:
            load_weights(model, self.weights, strict=strict, mmap=mmap)
        except (ValueError, OSError) as error:
            raise CheckpointError(
                self.folder,
                f"was checked, and then failed to be read, so the model is partly loaded: {error}",
            ) from error

    def verify(self) -> CheckpointSummary:
        """Compare every checksum."""
        manifest = self.manifest
        names = {role: dict.fromkeys(group, torch.empty(0)) for role, group in self.tensors.items()}
        try:
            for group in self.tensors.values():
                for tensor in group.values():
                    tensor.verify(manifest.checksum)
            check_index(self.folder, manifest.files["model"])
        except (ValueError, OSError) as error:
            raise CheckpointError(self.folder, str(error)) from error
        try:
            decode_tree(manifest.config)
            decode_tree(manifest.metadata)
            decode_tree(manifest.optimizer, names["optimizer"])
            decode_tree(manifest.training, names["training"])
        except ValueError as error:
            raise self._unreadable(error) from error
        files = [file for group in manifest.files.values() for file in group]
        return CheckpointSummary(
            self.folder,
            files=len(files),
            tensors=sum(len(file.tensors) for file in files),
            bytes=sum(file.bytes for file in files),
            checksum=manifest.checksum,
        )

    def _read(self, role: str, device: str | torch.device) -> dict[str, Tensor]:
        try:
            return {
                name: tensor.read_checked(self.manifest.checksum).to(device)
                for name, tensor in self.tensors[role].items()
            }
        except (ValueError, OSError) as error:
            raise CheckpointError(self.folder, str(error)) from error

    def _unreadable(self, error: ValueError) -> CheckpointError:
        return CheckpointError(self.folder, f"the manifest cannot be read: {error}")


@contextmanager
def open_checkpoint(path: str | PathLike[str]) -> Iterator[OpenCheckpoint]:
    """Open a checkpoint, and check all of it but the tensors' data.

    Raises:
        FileNotFoundError: There is no checkpoint.
        CheckpointError: It is damaged.
    """
    require_safetensors()
    folder = Path(path)
    with ExitStack() as stack:
        manifest, files = _open_files(folder, stack)
        yield OpenCheckpoint(folder, manifest, _stored_tensors(folder, manifest, files))


def load_weights(
    model: nn.Module, weights: Mapping[str, StoredTensor], *, strict: bool, mmap: bool
) -> None:
    """Load weights that were checked."""
    if mmap:
        map_weights(model, weights)
    else:
        copy_weights(model, weights, strict=strict)


def parse_size(size: int | str) -> int:
    """Turn ``"5GB"`` (decimal units) or a number into bytes.

    Raises:
        ValueError: It is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", str(size).upper())
    count = size if isinstance(size, int) else 0
    if match is not None:
        count = int(float(match[1]) * SIZE_UNITS[match[2]])
    if isinstance(size, bool) or count < 1:
        raise ValueError(f"a size is a number of bytes, or like '5GB' or '500MB', not {size!r}")
    return count


def _plain_dict(value: Any) -> Any:
    """Let any Mapping be given where a dict comes back."""
    return dict(value) if isinstance(value, Mapping) else value


def _open_files(folder: Path, stack: ExitStack) -> tuple[Manifest, dict[str, TensorFile]]:
    while True:
        text = _read_manifest(folder)
        try:
            manifest = Manifest.from_json(text)
            files = {
                file.name: stack.enter_context(_open_file(folder, file))
                for group in manifest.files.values()
                for file in group
            }
        except FileNotFoundError as error:
            # A writer may have replaced the checkpoint since: then there is a newer manifest.
            stack.close()
            if _read_manifest(folder) != text:
                continue
            raise CheckpointError(folder, f"a data file is missing: {error}") from error
        except (ValueError, OSError) as error:
            raise CheckpointError(folder, str(error)) from error
        return manifest, files


def _open_file(folder: Path, expected: DataFile) -> TensorFile:
    try:
        return TensorFile(folder / expected.name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{expected.name}; {expected.described()}") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{error}; {expected.described()}") from error


def _read_manifest(folder: Path) -> bytes:
    try:
        return read_manifest(folder)
    except FileNotFoundError as error:
        if folder.suffix == ".safetensors" or any(
            (folder / name).is_file() for name in (INDEX_NAME, SINGLE_NAME)
        ):
            hint = "use load_safetensors, which reads weights without a manifest"
            raise FileNotFoundError(f"{error}; {hint}") from error
        raise


def _stored_tensors(
    folder: Path, manifest: Manifest, files: Mapping[str, TensorFile]
) -> dict[str, dict[str, StoredTensor]]:
    roles: dict[str, dict[str, StoredTensor]] = {}
    for role in ("model", "optimizer", "extra", "training"):
        group = roles.setdefault(role, {})
        for expected in manifest.files.get(role, ()):
            file = files[expected.name]
            try:
                check_tensor_file(file, expected, manifest.checksum)
            except ValueError as error:
                raise CheckpointError(folder, str(error)) from error
            _add_tensors(folder, group, file, expected.tensors)
    return roles


def _add_tensors(
    folder: Path,
    group: dict[str, StoredTensor],
    file: TensorFile,
    digests: Mapping[str, str],
) -> None:
    # In the order in which they were given, which the manifest keeps and the file does not.
    for name, digest in digests.items():
        if name in group:
            raise CheckpointError(folder, f"{MANIFEST_NAME} has tensor {name!r} in two files")
        group[name] = StoredTensor(name, file, file.entries[name], digest)
