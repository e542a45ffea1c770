"""Nested Python state as JSON, exactly and inertly: decoding builds values and runs nothing.

JSON has no tuples, no keys but strings, no NaN and no tensors, so those become objects with one
key that starts with ``$``. A tensor becomes the name under which it is stored elsewhere.
Only exact types are taken, never subclasses: what comes back is what was given.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_DEPTH = 100

# Larger integers are beyond what other JSON readers hold exactly.
MAX_JSON_INT = 2**53


def encode_tree(value: Any, where: str, tensors: dict[str, Tensor] | None = None) -> Any:
    """Turn nested state into what ``json.dumps`` writes and :func:`decode_tree` restores.

    Args:
        value: None, bool, int, float, str, list, tuple, dict (with keys of these types),
            ``torch.Tensor``, ``torch.dtype``, ``torch.device`` and ``pathlib.Path``, nested.
        where: What ``value`` is called in error messages.
        tensors: Receives each tensor under the name that the result refers to. Without it,
            tensors are refused.

    Returns:
        The JSON form.

    Raises:
        TypeError: An object of another type, naming where it is.
        ValueError: Nested more than 100 deep, which a cycle is too.
    """
    return _encode(value, where, "", tensors, 0)


def decode_tree(encoded: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """Restore what :func:`encode_tree` made.

    Args:
        encoded: The JSON form.
        tensors: The tensors that it refers to, by name.

    Returns:
        The state, equal to the one that was encoded, types included.

    Raises:
        ValueError: ``encoded`` is not such a form, or refers to a tensor that is not there.
    """
    return _decode(encoded, tensors or {}, 0)


def _encode(
    value: Any, where: str, name: str, tensors: dict[str, Tensor] | None, depth: int
) -> Any:
    here = f"{where}[{name}]" if name else where
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} is nested more than {MAX_DEPTH} deep: is there a cycle in it?")
    kind = type(value)
    if kind in ENCODED_LEAVES:
        return ENCODED_LEAVES[kind](value)
    if isinstance(value, Tensor):
        if tensors is None:
            raise TypeError(f"{here} is a tensor: give it in extra_tensors instead")
        return {"$tensor": _set_aside(value, name, tensors)}
    if kind not in (list, tuple, dict):
        raise TypeError(
            f"{here} is a {kind.__module__}.{kind.__qualname__}, which cannot be stored: turn it "
            "into numbers, strings, lists, tuples and dicts (dataclasses.asdict, .item(), .value)"
        )

    def child(key: object, item: Any) -> Any:
        return _encode(item, where, f"{name}/{key}" if name else str(key), tensors, depth + 1)

    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: child(key, item) for key, item in value.items()}
        key_place = f"a key of {here}"
        return {
            "$dict": [
                [_encode(key, key_place, "", None, depth + 1), child(key, item)]
                for key, item in value.items()
            ]
        }
    items = [child(index, item) for index, item in enumerate(value)]
    return {"$tuple": items} if kind is tuple else items


def _set_aside(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    # The path is not always unique: {0: a, "0": b} has "0" twice.
    while name in tensors:
        name += "+"
    tensors[name] = tensor
    return name


def _decode(encoded: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if depth > 2 * MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(encoded, list):
        return [_decode(item, tensors, depth + 1) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if len(encoded) == 1:
        ((tag, content),) = encoded.items()
        if tag.startswith("$"):
            return _decode_tagged(tag, content, tensors, depth + 1)
    return {key: _decode(item, tensors, depth + 1) for key, item in encoded.items()}


def _decode_tagged(tag: str, content: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if tag in TAGGED_LEAVES and isinstance(content, str):
        return TAGGED_LEAVES[tag](content)
    if tag == "$tensor" and isinstance(content, str):
        if content not in tensors:
            raise ValueError(f"refers to tensor {content!r}, which is not stored")
        return tensors[content]
    if tag == "$tuple" and isinstance(content, list):
        return tuple(_decode(item, tensors, depth) for item in content)
    if tag == "$dict" and isinstance(content, list):
        try:
            return {
                _decode(key, tensors, depth): _decode(item, tensors, depth) for key, item in content
            }
        except TypeError as error:
            raise ValueError(f"malformed $dict: {error}") from error
    raise ValueError(f"unknown or malformed {tag}")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"this torch has no dtype {name!r}")  # noqa: TRY004 - bad data, not a bad call
    return dtype


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"this torch has no device {name!r}") from error


def _same(value: Any) -> Any:
    return value


ENCODED_LEAVES: dict[type, Callable[[Any], Any]] = {
    type(None): _same,
    bool: _same,
    str: _same,
    int: lambda value: value if abs(value) <= MAX_JSON_INT else {"$int": hex(value)},
    float: lambda value: value if math.isfinite(value) else {"$float": str(value)},
    torch.dtype: lambda value: {"$dtype": str(value).removeprefix("torch.")},
    torch.device: lambda value: {"$device": str(value)},
    type(Path()): lambda value: {"$path": str(value)},
}

TAGGED_LEAVES: dict[str, Callable[[str], Any]] = {
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$dtype": _dtype,
    "$device": _device,
    "$path": Path,
}
