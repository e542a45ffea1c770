"""Holds the garbage collector back where much is made, none of it by the repository's code."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def held_back() -> Iterator[None]:
    """Collect nothing meanwhile: a syntax tree is many objects, and none of them is dead yet.

    The repository's code must not run in it: it would see another collector than it has elsewhere.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
