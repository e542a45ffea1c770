"""The header of a safetensors file: which tensors it holds, and where.

A file is the header's length (8 bytes, little-endian), the header (JSON, filled up with spaces)
and the tensors' bytes without gaps; see https://huggingface.co/docs/safetensors. The package of
that name reads and writes whole files; what is here says where each tensor lies, so that
checkpoints can be hashed while they are written and read straight into a model's memory.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MAX_HEADER_BYTES = 100_000_000
ALIGNMENT = 8
METADATA_KEY = "__metadata__"

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies in its file.

    Attributes:
        dtype: Its dtype.
        shape: Its shape.
        begin: The position of its first byte in the file.
        end: The position after its last byte.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def header_of(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, TensorEntry]]:
    """Lay out a file.

    Args:
        tensors: The tensors by name, of dtypes in ``DTYPE_NAMES``.

    Returns:
        The file's bytes up to the first tensor, and the entries in the order of the file.
    """
    # Wide dtypes first: so every tensor is aligned to its own item size.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    fields: dict[str, Any] = {METADATA_KEY: {"format": "pt"}}
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.itemsize
        spans[name] = (begin, end)
        fields[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(fields, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % ALIGNMENT)
    start = 8 + len(text)
    entries = {
        name: TensorEntry(
            tensors[name].dtype, tuple(tensors[name].shape), start + begin, start + end
        )
        for name, (begin, end) in spans.items()
    }
    return len(text).to_bytes(8, "little") + text, entries


def parse_header(header: bytes, file_bytes: int) -> dict[str, TensorEntry]:
    """Read a header.

    Args:
        header: The file's bytes up to the first tensor.
        file_bytes: The file's length.

    Returns:
        The entries in the order of the file; together they cover the rest of it exactly.

    Raises:
        ValueError: It is not the header of a file of this length.
    """
    try:
        fields = json.loads(header[8:], object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("its header is not a JSON object")  # noqa: TRY004 - bad data, not a bad call
    fields.pop(METADATA_KEY, None)
    start = len(header)
    entries = {name: _parse_entry(name, field, start) for name, field in fields.items()}
    ordered = sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end))
    position = start
    for name, entry in ordered:
        if entry.begin != position:
            raise ValueError(f"its header leaves a gap, or overlaps, before tensor {name!r}")
        position = entry.end
    if position != file_bytes:
        raise ValueError(f"it has {file_bytes} bytes, and its header says {position}")
    return dict(ordered)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is there twice")
    return fields


def _parse_entry(name: str, field: Any, start: int) -> TensorEntry:
    if not isinstance(field, dict) or set(field) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header has no dtype, shape and data_offsets for tensor {name!r}")
    dtype = DTYPES.get(field["dtype"]) if isinstance(field["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"tensor {name!r} has dtype {field['dtype']!r}, which torch cannot read")
    shape, offsets = field["shape"], field["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"the shape or the data_offsets of tensor {name!r} are malformed")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the data_offsets of tensor {name!r} do not fit its dtype and shape")
    return TensorEntry(dtype, tuple(shape), start + begin, start + end)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)
