"""Nested Python state as JSON, exactly and inertly: decoding builds values and runs nothing.

JSON has no tuples, no keys but strings, no NaN and no tensors, so those become objects with one
key that starts with ``$``. A tensor becomes the name under which it is stored elsewhere.
Only exact types are taken, never subclasses: what comes back is what was given. Dataclasses and
enums are named, and come back as themselves only where the reader hands in the class.
"""

import dataclasses
import enum
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_DEPTH = 100

# Larger integers are beyond what other JSON readers hold exactly.
MAX_JSON_INT = 2**53


def encode_tree(value: Any, where: str, tensors: dict[str, Tensor] | None = None) -> Any:
    """Turn nested state into what ``json.dumps`` writes and :func:`decode_tree` restores.

    Args:
        value: None, bool, int, float, str, list, tuple, dict (with keys of these types),
            ``OrderedDict``, ``Counter``, dataclass instances, enum members, ``pathlib.Path``,
            ``torch.Tensor``, ``torch.Size``, ``torch.dtype``, ``torch.device``, NumPy arrays and
            scalars of dtypes that torch has, nested.
        where: What ``value`` is called in error messages.
        tensors: Receives each tensor and array under the name that the result refers to.
            Without it, they are refused.

    Returns:
        The JSON form.

    Raises:
        TypeError: An object of another type, naming where it is.
        ValueError: Nested more than 100 deep, which a cycle is too.
    """
    return _encode(value, where, "", tensors, 0)


def decode_tree(
    encoded: Any,
    tensors: Mapping[str, Tensor] | None = None,
    types: Collection[type] = (),
) -> Any:
    """Restore what :func:`encode_tree` made.

    Args:
        encoded: The JSON form.
        tensors: The tensors that it refers to, by name.
        types: The dataclasses and enums to restore. An instance of another dataclass becomes
            the dict of its fields, and a member of another enum its value. Fields are set as
            they were; ``__init__`` and ``__post_init__`` are not run.

    Returns:
        The state, equal to the one that was encoded, types included.

    Raises:
        TypeError: One of ``types`` is neither a dataclass nor an enum.
        ValueError: ``encoded`` is not such a form, refers to a tensor that is not there, or
            does not fit the class of the same name in ``types``.
    """
    for kind in types:
        if not (isinstance(kind, type) and (dataclasses.is_dataclass(kind) or _is_enum(kind))):
            raise TypeError(f"{kind!r} is neither a dataclass nor an enum")
    return _Decoder(tensors or {}, {_type_name(kind): kind for kind in types}).decode(encoded, 0)


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
    if kind is np.ndarray:
        return _encode_array(value, here, name, tensors)
    if isinstance(value, (np.number, np.bool_)):
        # Exactly: its bytes.
        return {"$scalar": [value.dtype.str, value.tobytes().hex()]}
    if isinstance(value, enum.Enum):
        return {"$enum": [_type_name(kind), _encode(value.value, where, name, None, depth + 1)]}

    def child(key: object, item: Any) -> Any:
        return _encode(item, where, f"{name}/{key}" if name else str(key), tensors, depth + 1)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return {
            "$dataclass": [
                _type_name(kind),
                [[field, child(field, getattr(value, field))] for field in fields],
            ]
        }
    if kind in SEQUENCES:
        items = [child(index, item) for index, item in enumerate(value)]
        return items if kind is list else {SEQUENCES[kind]: items}
    if kind not in MAPPINGS:
        raise TypeError(
            f"{here} is a {kind.__module__}.{kind.__qualname__}, which cannot be stored: turn it "
            "into numbers, strings, lists, tuples, dicts or a dataclass"
        )
    if kind is dict and all(type(key) is str and not key.startswith("$") for key in value):
        return {key: child(key, item) for key, item in value.items()}
    key_place = f"a key of {here}"
    return {
        MAPPINGS[kind]: [
            [_encode(key, key_place, "", None, depth + 1), child(key, item)]
            for key, item in value.items()
        ]
    }


def _encode_array(
    value: np.ndarray[Any, Any], here: str, name: str, tensors: dict[str, Tensor] | None
) -> Any:
    if tensors is None:
        raise TypeError(f"{here} is a NumPy array: give it in training_state or extra_tensors")
    try:
        tensor = torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{here} is an array of {value.dtype}, which torch does not have"
        ) from error
    return {"$ndarray": _set_aside(tensor, name, tensors)}


def _set_aside(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    # The path is not always unique: {0: a, "0": b} has "0" twice.
    while name in tensors:
        name += "+"
    tensors[name] = tensor
    return name


@dataclasses.dataclass(frozen=True)
class _Decoder:
    tensors: Mapping[str, Tensor]
    types: Mapping[str, type]

    def decode(self, encoded: Any, depth: int) -> Any:
        if depth > 3 * MAX_DEPTH:
            raise ValueError("nested too deep")
        if isinstance(encoded, list):
            return [self.decode(item, depth + 1) for item in encoded]
        if not isinstance(encoded, dict):
            return encoded
        if len(encoded) == 1:
            ((tag, content),) = encoded.items()
            if tag.startswith("$"):
                return self.decode_tagged(tag, content, depth + 1)
        return {key: self.decode(item, depth + 1) for key, item in encoded.items()}

    def decode_tagged(self, tag: str, content: Any, depth: int) -> Any:
        try:
            if tag in TAGGED_LEAVES and isinstance(content, str):
                return TAGGED_LEAVES[tag](content)
            if tag in TAGGED_TENSORS and isinstance(content, str):
                if content not in self.tensors:
                    raise ValueError(f"refers to tensor {content!r}, which is not stored")
                return TAGGED_TENSORS[tag](self.tensors[content])
            if isinstance(content, list):
                if tag in TAGGED_SEQUENCES:
                    return TAGGED_SEQUENCES[tag](self.decode(item, depth) for item in content)
                if tag in TAGGED_MAPPINGS:
                    return TAGGED_MAPPINGS[tag](self.decode_pairs(content, depth))
                if tag in ("$enum", "$dataclass", "$scalar"):
                    return self.decode_named(tag, content, depth)
        except TypeError as error:
            raise ValueError(f"malformed {tag}: {error}") from error
        raise ValueError(f"unknown or malformed {tag}")

    def decode_pairs(self, pairs: list[Any], depth: int) -> dict[Any, Any]:
        return {self.decode(key, depth): self.decode(item, depth) for key, item in pairs}

    def decode_named(self, tag: str, pair: list[Any], depth: int) -> Any:
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"malformed {tag}")
        name, content = pair
        if tag == "$scalar":
            return _scalar(name, content)
        kind = self.types.get(name)
        if tag == "$enum":
            value = self.decode(content, depth)
            if kind is None:
                return value
            if not _is_enum(kind):
                raise ValueError(f"{name} is not an enum here")
            return kind(value)
        fields = self.decode_pairs(content, depth)
        return fields if kind is None else _restore_dataclass(kind, fields)


def _restore_dataclass(kind: type, fields: Mapping[str, Any]) -> Any:
    known = (
        {field.name for field in dataclasses.fields(kind)}
        if dataclasses.is_dataclass(kind)
        else set[str]()
    )
    if known != set(fields):
        raise ValueError(
            f"the fields of {kind.__qualname__} are {', '.join(sorted(known))} here, and "
            f"{', '.join(sorted(fields))} in the checkpoint: without this type it loads as a dict"
        )
    instance: Any = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(instance, name, value)
    return instance


def _scalar(dtype: str, data: str) -> np.generic:
    values = np.frombuffer(bytes.fromhex(data), dtype=np.dtype(dtype))
    if values.dtype.hasobject or values.shape != (1,):
        raise ValueError(f"malformed scalar of {dtype}")
    scalar: np.generic = values[0]
    return scalar


def _type_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_enum(kind: type) -> bool:
    return issubclass(kind, enum.Enum)


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

SEQUENCES: dict[type, str] = {list: "", tuple: "$tuple", torch.Size: "$size"}

MAPPINGS: dict[type, str] = {dict: "$dict", OrderedDict: "$ordered", Counter: "$counter"}

TAGGED_SEQUENCES: dict[str, Callable[[Any], Any]] = {"$tuple": tuple, "$size": torch.Size}

TAGGED_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "$dict": dict,
    "$ordered": OrderedDict,
    "$counter": Counter,
}

TAGGED_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "$tensor": _same,
    "$ndarray": lambda tensor: tensor.cpu().numpy(),
}
