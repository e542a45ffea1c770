"""Checksums by name: a fast one by default, and a cryptographic one by choice."""

import hashlib
from collections.abc import Callable
from typing import Protocol

import xxhash


class Hasher(Protocol):
    """What ``hashlib`` and ``xxhash`` have in common."""

    def update(self, data: memoryview, /) -> object:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Return the checksum of all bytes so far, in hexadecimal digits."""


DEFAULT_CHECKSUM = "xxh3_128"

HASHERS: dict[str, Callable[[], Hasher]] = {
    # Finds damage at the speed of memory; whoever can change a file can also change this.
    "xxh3_128": xxhash.xxh3_128,
    # For those who keep or sign the manifest elsewhere.
    "sha256": hashlib.sha256,
}


def new_hasher(algorithm: str) -> Hasher:
    """Start a checksum.

    Args:
        algorithm: ``"xxh3_128"`` or ``"sha256"``.

    Raises:
        ValueError: It is neither.
    """
    if algorithm not in HASHERS:
        raise ValueError(f"unknown checksum {algorithm!r}: use one of {', '.join(HASHERS)}")
    return HASHERS[algorithm]()


def checksum(algorithm: str, data: bytes) -> str:
    """Compute the checksum of bytes; see :func:`new_hasher`."""
    hasher = new_hasher(algorithm)
    hasher.update(memoryview(data))
    return hasher.hexdigest()
