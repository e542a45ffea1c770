"""The formats that hold tensors and no code: safetensors, gguf, and numpy's header."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import struct
from collections.abc import Callable
from typing import IO, Any

NUMPY = b"\x93NUMPY"
GGUF = b"GGUF"

_MOST_HEADER = 100_000_000
_MOST_NUMPY_HEADER = 1 << 16
_MOST_ENTRIES = 1_000_000
_MOST_NESTED = 4
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_STRING, _GGUF_ARRAY = 8, 9
_ITEM = re.compile(r"[<>|=]?([biufcSVUmM])(\d+)(?:\[\w+\])?")
_LONG = re.compile(r"(?<=\d)L(?=[,)\s])")
_OBJECT = re.compile(r"O|object")


class WrongError(ValueError):
    """A file is not what its format asks for."""


def size_of(stream: IO[bytes]) -> int:
    """Return a file's length; its position is its beginning afterwards."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    return size


def problem(check: Callable[[IO[bytes]], None], stream: IO[bytes]) -> str:
    """Return why a file is not of a format, or an empty string."""
    try:
        check(stream)
    except WrongError as error:
        return str(error)
    return ""


def check_safetensors(stream: IO[bytes]) -> None:
    """Check a safetensors file's header: all of the file, without gaps, is tensors.

    Raises:
        WrongError: why it is none.
    """
    size = size_of(stream)
    start = stream.read(8)
    if len(start) < 8:
        raise WrongError("shorter than a safetensors header")
    length = struct.unpack("<Q", start)[0]
    if length > min(size - 8, _MOST_HEADER):
        raise WrongError("its safetensors header is longer than the file")
    try:
        header = json.loads(stream.read(length), object_pairs_hook=_unique)
        parts = sorted(_part(name, entry) for name, entry in header.items() if name != _METADATA)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        known = f": {error}" if isinstance(error, WrongError) else ""
        raise WrongError(f"its safetensors header cannot be read{known}") from None
    at = 0
    for begin, end in parts:
        if begin != at:
            raise WrongError("its tensors overlap, or leave gaps")
        at = end
    if 8 + length + at != size:
        raise WrongError("truncated, or with bytes behind its tensors")


_METADATA = "__metadata__"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WrongError("a name stands in it twice")
    return found


def _part(name: str, entry: Any) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise WrongError(f"tensor {name[:80]!r} has no shape")
    if (end - begin) * 8 != math.prod(shape) * _BITS[entry["dtype"]]:
        raise WrongError(f"tensor {name[:80]!r} is not as long as its shape")
    return begin, end


def check_gguf(stream: IO[bytes]) -> None:
    """Check a gguf file's header, and that its tensors begin inside of the file.

    Raises:
        WrongError: why it is none.
    """
    reader = _Gguf(stream)
    reader.check()


class _Gguf:
    def __init__(self, stream: IO[bytes]) -> None:
        self.size = size_of(stream)
        self.stream = stream

    def check(self) -> None:
        magic, version = self.exactly(4), self.number(4)
        if magic != GGUF or version not in {2, 3}:
            raise WrongError("gguf of a version that is not known")
        tensors, pairs = self.number(8), self.number(8)
        if max(tensors, pairs) > _MOST_ENTRIES:
            raise WrongError("its gguf header has more entries than are read")
        alignment = 32
        for _ in range(pairs):
            key, kind = self.text(), self.number(4)
            if key == b"general.alignment" and kind == 4:
                alignment = self.number(4)
            else:
                self.value(kind, 0)
        offsets = [self.tensor() for _ in range(tensors)]
        if alignment < 1 or any(offset % alignment for offset in offsets):
            raise WrongError("a tensor of its gguf header is not aligned")
        begin = math.ceil(self.stream.tell() / max(alignment, 1)) * alignment
        if offsets and begin + max(offsets) >= self.size:
            raise WrongError("truncated: a tensor begins behind its end")

    def exactly(self, count: int) -> bytes:
        if count > self.size - self.stream.tell():
            raise WrongError("its gguf header is longer than the file")
        return self.stream.read(count)

    def number(self, size: int) -> int:
        return int.from_bytes(self.exactly(size), "little")

    def text(self) -> bytes:
        return self.exactly(self.number(8))

    def value(self, kind: int, depth: int) -> None:
        if kind in _GGUF_SIZES:
            self.exactly(_GGUF_SIZES[kind])
        elif kind == _GGUF_STRING:
            self.text()
        elif kind == _GGUF_ARRAY and depth < _MOST_NESTED:
            inner, count = self.number(4), self.number(8)
            if inner in _GGUF_SIZES:
                self.exactly(count * _GGUF_SIZES[inner])
                return
            if count > self.size:
                raise WrongError("its gguf header is longer than the file")
            for _ in range(count):
                self.value(inner, depth + 1)
        else:
            raise WrongError("its gguf header has a type that is not known")

    def tensor(self) -> int:
        self.text()
        dimensions = self.number(4)
        if dimensions > 8:
            raise WrongError("its gguf header has a tensor of too many dimensions")
        self.exactly(8 * dimensions + 4)
        return self.number(8)


def read_numpy_header(stream: IO[bytes], size: int) -> int | None:
    """Read a numpy array's header; the stream, of that size, is left behind it.

    Returns:
        How long header and array are together; None where it holds objects, that is, a pickle.

    Raises:
        WrongError: it cannot be read, or the stream is shorter than its array.
    """
    start = stream.read(len(NUMPY) + 2)
    major = start[-2] if len(start) == len(NUMPY) + 2 else 0
    if not start.startswith(NUMPY) or major not in {1, 2, 3}:
        raise WrongError("a numpy file of a version that is not known")
    width = 2 if major == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MOST_NUMPY_HEADER:
        raise WrongError("a numpy header that is too long")
    text = stream.read(length)
    try:
        # Python 2 wrote long numbers with an L behind them.
        plain = _LONG.sub("", text.decode("utf-8" if major == 3 else "latin-1")).strip()
        header = ast.literal_eval(plain)
        description, shape = header["descr"], header["shape"]
        items = math.prod(shape)
        if _has_objects(description):
            return None
        whole: int = len(start) + width + length + items * _item_size(description)
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        raise WrongError("a numpy header that cannot be read") from None
    if items < 0 or whole > size:
        raise WrongError("truncated: its array is longer")
    return whole


def _item_size(description: Any) -> int:
    """Return how many bytes an item takes whose dtype numpy writes like this."""
    if isinstance(description, list):
        # A field is a name, a dtype and, of an array, its shape.
        return sum(_item_size(field[1]) * math.prod(*field[2:] or [()]) for field in description)
    if isinstance(description, tuple):
        base, shape = description
        return _item_size(base) * math.prod(shape)
    match = _ITEM.fullmatch(description)
    if match is None:
        raise ValueError("no dtype that numpy writes")
    return int(match[2]) * (4 if match[1] == "U" else 1)


def _has_objects(description: Any) -> bool:
    """Tell whether a dtype, as numpy writes it, has objects in it, in a field or in all of it."""
    if isinstance(description, str):
        return _OBJECT.search(description) is not None
    if isinstance(description, list):
        return any(_has_objects(field[1]) for field in description)
    if isinstance(description, tuple):
        return _has_objects(description[0])
    raise TypeError("no dtype")
