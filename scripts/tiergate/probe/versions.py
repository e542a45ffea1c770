"""Whether a module or class was written to, without a look at what it has."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any


def version_of(holder: Any) -> Callable[[], object]:
    """Return what tells the version of a module's or class's names: another after each change.

    CPython until 3.11 counts the changes of all dictionaries together and notes the count in the
    one that changed (PEP 509): the same version means the same content. Anywhere else, and for
    what is neither module nor class, each answer is a new one, which equals no other.

    Args:
        holder: the module or class; it has to live as long as its version is asked for.
    """
    read, values = _reader(), None
    if type(holder) is ModuleType:
        values = vars(holder)
    elif isinstance(holder, type):
        (values,) = gc.get_referents(vars(holder))  # which is only a view
    return read(values) if read is not None and type(values) is dict else object


@cache
def _reader() -> Callable[[dict[str, Any]], Callable[[], object]] | None:
    """Return what reads versions, where this interpreter proves to have them."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 12):
        return None
    try:
        import ctypes  # noqa: PLC0415 - not every interpreter was built with it
    except ImportError:
        return None
    # Of a dictionary: the object's head, the number of its items, the version.
    offset = object.__basicsize__ + ctypes.sizeof(ctypes.c_ssize_t)

    def read(values: dict[str, Any]) -> Callable[[], object]:
        number = ctypes.c_uint64.from_address(id(values) + offset)
        # A view of plain memory: no attribute of a class is asked, which could be replaced.
        return memoryview(number).cast("B").cast("Q").tolist

    return read if _counts(read) else None


def _counts(read: Callable[[dict[str, Any]], Callable[[], object]]) -> bool:
    """Tell whether each kind of change makes another version, and a look does not."""
    values: dict[str, Any] = {"bound anew": 1, "deleted": 2}
    version = read(values)
    seen = [version()]
    values["bound anew"] = 3
    seen.append(version())
    del values["deleted"]
    seen.append(version())
    values["added"] = 4
    seen.append(version())
    looked = list(values.items())
    return all(seen.count(one) == 1 for one in seen) and version() == seen[-1] and len(looked) == 2
