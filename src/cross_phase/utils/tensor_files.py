"""Named tensors in safetensors files, with a checksum beside each file.

safetensors itself notices truncation and broken headers, but not a flipped bit in the data.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

SAFETENSORS_AVAILABLE: bool = find_spec("safetensors") is not None
"""Whether the safetensors package, which checkpoints need, is installed."""

if SAFETENSORS_AVAILABLE:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save, save_file

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class DataFile:
    """A file that belongs to a checkpoint: its name, its length and the SHA-256 of its bytes."""

    name: str
    bytes: int
    sha256: str


def require_safetensors() -> None:
    """Say how to get safetensors where it is missing.

    Raises:
        ImportError: safetensors is not installed.
    """
    if not SAFETENSORS_AVAILABLE:
        raise ImportError("checkpoints need safetensors: pip install safetensors")


def storable_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Make tensors ready for a safetensors file: on the CPU, contiguous, memory of their own.

    Copies only what must be copied: tensors of other devices, views that are not contiguous,
    and those that share their storage with one before them.

    Args:
        tensors: The tensors by name.
        where: What they are called in error messages.

    Returns:
        The tensors in the same order, bit for bit the same values.

    Raises:
        TypeError: A name or a tensor that safetensors cannot store, by name.
    """
    stored: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        _check_storable(name, tensor, where)
        ready = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if ready.untyped_storage().data_ptr() in storages:
            ready = ready.clone()
        storages.add(ready.untyped_storage().data_ptr())
        stored[name] = ready
    return stored


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor]) -> DataFile:
    """Write tensors to a new file and make it durable.

    Args:
        path: The file. It can be read by those who can read its folder.
        tensors: What :func:`storable_tensors` returned.

    Returns:
        The file's name, length and checksum.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return DataFile(path.name, path.stat().st_size, file_sha256(path))


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_tensor_files(folder: Path, files: Iterable[DataFile]) -> dict[str, Tensor]:
    """Verify data files and map their tensors.

    Args:
        folder: Where the files are.
        files: What they must be.

    Returns:
        The tensors by name, on the CPU. They may be views of the mapped files: copy them
        before handing them out.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not the one that was written, by name.
    """
    tensors: dict[str, Tensor] = {}
    for expected in files:
        path = folder / expected.name
        size = path.stat().st_size
        if size != expected.bytes:
            raise ValueError(f"{expected.name} has {size} bytes instead of {expected.bytes}")
        if file_sha256(path) != expected.sha256:
            raise ValueError(f"{expected.name} is damaged: its checksum is not the one stored")
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118 - the file is not iterable itself
                    tensors[name] = file.get_tensor(name)
        except (SafetensorError, RuntimeError) as error:
            path.stat()  # FileNotFoundError, where a writer removed the file just now
            raise ValueError(f"{expected.name} is no safetensors file: {error}") from error
    return tensors


def _check_storable(name: object, tensor: object, where: str) -> None:
    here = f"{where}[{name}]"
    if not isinstance(name, str) or name == "__metadata__":
        raise TypeError(f"{here}: a tensor's name must be a string other than '__metadata__'")
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{here} is a {type(tensor).__name__}, not a tensor")
    if is_lazy(tensor):
        raise TypeError(f"{here} is not initialized: run one forward pass first")
    if tensor.is_meta:
        raise TypeError(f"{here} is on the meta device and has no data")
    if type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        raise TypeError(f"{here} is a {type(tensor).__name__}: store a plain tensor instead")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"{here} is sparse or quantized: store its dense parts instead")
    if not _is_storable_dtype(tensor.dtype):
        raise TypeError(f"{here} is {tensor.dtype}, which safetensors cannot store")


@cache
def _is_storable_dtype(dtype: torch.dtype) -> bool:
    # The dtypes differ between versions of safetensors, so the installed one is asked.
    try:
        save({"probe": torch.empty(0, dtype=dtype)})
    except KeyError:
        return False
    return True
