"""Named tensors in safetensors files, with a checksum of each tensor beside each file.

safetensors itself notices truncation and broken headers, but not a flipped bit in the data.
"""

import mmap
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .checksums import checksum, new_hasher
from .tensor_headers import (
    DTYPE_NAMES,
    MAX_HEADER_BYTES,
    METADATA_KEY,
    TensorEntry,
    header_of,
    parse_header,
)

SAFETENSORS_AVAILABLE: bool = find_spec("safetensors") is not None
"""Whether the safetensors package, the reference for what checkpoints hold, is installed."""

# A chunk is hashed and copied while it is in the processor's cache.
CHUNK_BYTES = 2**20

# As above; of longer writes, the system makes longer runs of pages, which cost less.
WRITE_BYTES = 2**23

# The disk is kept busy while the next bytes are hashed and copied, instead of at the end alone.
SYNC_BYTES = 2**26

# How many of a file's tensors an error names.
SHOWN_NAMES = 1


@dataclass(frozen=True)
class DataFile:
    """A file that belongs to a checkpoint.

    Attributes:
        name: Its name.
        bytes: Its length.
        header_bytes: The position of the first tensor.
        header: The checksum of its bytes up to there.
        tensors: The checksum of each tensor's bytes, by the tensor's name.
    """

    name: str
    bytes: int
    header_bytes: int
    header: str
    tensors: Mapping[str, str]

    def described(self) -> str:
        """Say which tensors it holds, for an error about the file as a whole."""
        names = [repr(name) for name in self.tensors]
        more = len(names) - SHOWN_NAMES
        rest = f" and {more} more" if more > 0 else ""
        return f"it holds {', '.join(names[:SHOWN_NAMES]) or 'no tensors'}{rest}"


def require_safetensors() -> None:
    """Say what is missing where checkpoints cannot be written or read.

    Raises:
        ImportError: safetensors is not installed.
        RuntimeError: The machine is big-endian, and safetensors files are little-endian.
    """
    if not SAFETENSORS_AVAILABLE:
        raise ImportError("checkpoints need safetensors: pip install safetensors")
    if sys.byteorder != "little":
        raise RuntimeError("checkpoints need a little-endian machine, which this one is not")


def check_storable(tensors: Mapping[str, Tensor], where: str) -> None:
    """Check that a safetensors file can hold these tensors.

    Args:
        tensors: The tensors by name, on any device, of any strides.
        where: What they are called in error messages.

    Raises:
        TypeError: A name or a tensor that safetensors cannot store, by name.
    """
    for name, tensor in tensors.items():
        here = f"{where}[{name}]"
        if not isinstance(name, str) or name == METADATA_KEY:
            raise TypeError(f"{here}: a tensor's name must be a string other than {METADATA_KEY!r}")
        check_storable_tensor(tensor, here)


def check_storable_tensor(tensor: object, here: str) -> None:
    """Check that a safetensors file can hold this tensor.

    Args:
        tensor: The tensor.
        here: What it is called in error messages.

    Raises:
        TypeError: It cannot.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{here} is a {type(tensor).__name__}, not a tensor")
    if is_lazy(tensor):
        raise TypeError(f"{here} is not initialized: run one forward pass first")
    if tensor.is_meta:
        raise TypeError(f"{here} is on the meta device and has no data")
    if is_distributed(tensor):
        raise TypeError(f"{here} is distributed: use save_distributed_checkpoint")
    if type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        raise TypeError(f"{here} is a {type(tensor).__name__}: store a plain tensor instead")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"{here} is sparse or quantized: store its dense parts instead")
    if tensor.dtype not in DTYPE_NAMES:
        raise TypeError(f"{here} is {tensor.dtype}, which safetensors cannot store")


def is_distributed(tensor: object) -> bool:
    """Tell a DTensor, which spreads over processes, without importing torch.distributed."""
    return any(kind.__name__ == "DTensor" for kind in type(tensor).__mro__)


def split_into_shards(
    tensors: Mapping[str, Tensor], max_shard_bytes: int
) -> list[dict[str, Tensor]]:
    """Spread tensors over files, in order.

    Args:
        tensors: The tensors by name.
        max_shard_bytes: How many bytes of tensors a file holds at most; a larger tensor gets a
            file of its own.

    Returns:
        The tensors of each file; one empty file where there are none.
    """
    shards: list[dict[str, Tensor]] = [{}]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.itemsize
        if shards[-1] and size > room:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = tensor
        room -= size
    return shards


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], algorithm: str) -> DataFile:
    """Write tensors to a new file and make it durable, hashing them on the way.

    Of tensors on other devices, or not contiguous, one at a time is copied.

    Args:
        path: The file, which must not exist.
        tensors: What :func:`check_storable` accepted.
        algorithm: The name of the checksum.

    Returns:
        The file's name, length and checksums.

    Raises:
        OSError: The file cannot be written.
    """
    header, entries = header_of(tensors)
    digests: dict[str, str] = {}
    with path.open("xb", buffering=0) as file, _Syncing(file.fileno()) as syncing:
        write_all(file, memoryview(header))
        for name in entries:
            hasher = new_hasher(algorithm)
            data = byte_view(_plain(tensors[name]))
            for start in range(0, len(data), WRITE_BYTES):
                chunk = data[start : start + WRITE_BYTES]
                hasher.update(chunk)
                write_all(file, chunk)
                syncing.wrote(len(chunk))
            digests[name] = hasher.hexdigest()
        size = file.tell()
    ordered = {name: digests[name] for name in tensors}
    return DataFile(path.name, size, len(header), checksum(algorithm, header), ordered)


class _Syncing:
    """Writes a file's pages to the disk in the background; all of them are there at its end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pending = 0
        self.running: Future[None] | None = None
        self.stack = ExitStack()

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        return self.stack.enter_context(ThreadPoolExecutor(max_workers=1))

    def wrote(self, count: int) -> None:
        self.pending += count
        if self.pending < SYNC_BYTES or not hasattr(os, "fdatasync"):
            return
        if self.running is not None:
            if not self.running.done():
                return
            # An error is reported once, to whoever asks first: it must not get lost here.
            self.running.result()
        self.running = self.pool.submit(os.fdatasync, self.descriptor)
        self.pending = 0

    def __enter__(self) -> "_Syncing":
        return self

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        with self.stack:
            if exc_type is None:
                if self.running is not None:
                    self.running.result()
                os.fsync(self.descriptor)


def write_all(file: FileIO, data: memoryview) -> None:
    """Write all bytes: one call may take only some of them."""
    while data:
        data = data[file.write(data) :]


def byte_view(tensor: Tensor) -> memoryview:
    """Show a contiguous CPU tensor's memory, to read from or to write to."""
    # Not reshape: dimensions of size 1 may have any stride, which view(dtype) would mind.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    array: Any = flat.view(torch.uint8).numpy()
    return memoryview(array)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()


class TensorFile:
    """An open safetensors file: its tensors are read by name, whatever becomes of its path.

    Args:
        path: The file.

    Attributes:
        path: As given.
        size: Its length in bytes.
        header: Its bytes up to the first tensor.
        entries: The tensors that it holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.header = self._read_header()
            self.entries = self._parse_header()
        except BaseException:
            self._file.close()
            raise
        self._mapping: Tensor | None = None

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        self._file.close()

    def read_into(self, entry: TensorEntry, target: Tensor) -> None:
        """Read a tensor into another one's memory, on any device, of any strides."""
        if (
            target.device.type == "cpu"
            and target.is_contiguous()
            and not (target.is_conj() or target.is_neg())
        ):
            self._read(entry.begin, byte_view(target))
        else:
            with torch.no_grad():
                target.copy_(self.read(entry))

    def read(self, entry: TensorEntry) -> Tensor:
        """Read a tensor into memory of its own."""
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        self._read(entry.begin, byte_view(tensor))
        return tensor

    def map(self, entry: TensorEntry) -> Tensor:
        """Map a tensor: a page is read when it is used, and copied when it is written to."""
        if entry.begin == entry.end:
            return torch.empty(entry.shape, dtype=entry.dtype)
        if self._mapping is None:
            # Private: what is written to the tensors never reaches the file.
            pages = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._mapping = torch.frombuffer(pages, dtype=torch.uint8)
        data = self._mapping[entry.begin : entry.end]
        if entry.begin % entry.dtype.itemsize:
            data = data.clone()  # other programs do not always align
        return data.view(entry.dtype).reshape(entry.shape)

    def feed(self, entry: TensorEntry, consume: Callable[[memoryview], object]) -> None:
        """Read a tensor's bytes in chunks, each of which is gone after the call."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, entry.end - entry.begin)))
        for start in range(entry.begin, entry.end, CHUNK_BYTES):
            chunk = buffer[: min(CHUNK_BYTES, entry.end - start)]
            self._read(start, chunk)
            consume(chunk)

    def _read(self, position: int, target: memoryview) -> None:
        self._file.seek(position)
        while target:
            count = self._file.readinto(target)
            if not count:
                raise ValueError(f"{self.path.name} ends early: was it truncated just now?")
            target = target[count:]

    def _read_header(self) -> bytes:
        if self.size < 8:
            raise ValueError(f"{self.path.name} is no safetensors file: it has {self.size} bytes")
        length = bytearray(8)
        self._read(0, memoryview(length))
        header_bytes = int.from_bytes(length, "little")
        if header_bytes > min(self.size - 8, MAX_HEADER_BYTES):
            raise ValueError(
                f"{self.path.name} is no safetensors file, or cut off: its header should have "
                f"{header_bytes} bytes, and the file has {self.size}"
            )
        header = bytearray(8 + header_bytes)
        self._read(0, memoryview(header))
        return bytes(header)

    def _parse_header(self) -> dict[str, TensorEntry]:
        try:
            return parse_header(self.header, self.size)
        except ValueError as error:
            raise ValueError(f"{self.path.name} is no safetensors file: {error}") from error


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in an open file.

    Attributes:
        name: Its name in the file.
        file: The file.
        entry: Where it is.
        digest: Its checksum, where one was kept.
    """

    name: str
    file: TensorFile
    entry: TensorEntry
    digest: str | None = None

    def read(self) -> Tensor:
        """Read it into memory of its own."""
        return self.file.read(self.entry)

    def read_checked(self, algorithm: str) -> Tensor:
        """Read it into memory of its own, and compare the checksum.

        Raises:
            ValueError: It is damaged, naming file and tensor.
        """
        tensor = self.read()
        hasher = new_hasher(algorithm)
        hasher.update(byte_view(tensor))
        self._compare(hasher.hexdigest())
        return tensor

    def verify(self, algorithm: str) -> None:
        """Compare the checksum.

        Raises:
            ValueError: It is damaged, naming file and tensor.
        """
        hasher = new_hasher(algorithm)
        self.file.feed(self.entry, hasher.update)
        self._compare(hasher.hexdigest())

    def same_bytes(self, other: "StoredTensor") -> bool:
        """Tell whether two tensors of one dtype and shape are the same bit for bit."""
        if (self.file, self.entry) == (other.file, other.entry):
            return True
        if self.digest is not None and other.digest is not None:
            return self.digest == other.digest
        return torch.equal(
            self.read().reshape(-1).view(torch.uint8), other.read().reshape(-1).view(torch.uint8)
        )

    def _compare(self, digest: str) -> None:
        if digest != self.digest:
            raise ValueError(
                f"{self.file.path.name} is damaged: the checksum of tensor {self.name!r} is not "
                "the one stored"
            )


def check_tensor_file(file: TensorFile, expected: DataFile, algorithm: str) -> None:
    """Check everything of a file but the tensors' data.

    Raises:
        ValueError: It is not the file that was written, by name.
    """
    if checksum(algorithm, file.header) != expected.header:
        raise ValueError(
            f"{expected.name} is damaged or another file: its header's checksum is not the one "
            f"stored; {expected.described()}"
        )
    if set(file.entries) != set(expected.tensors):
        raise ValueError(f"{expected.name} does not hold the tensors that the manifest names")
