"""What the resolver says of places in a file."""

from __future__ import annotations

import msgspec

Place = tuple[int, int]
"""Line from 1, column in bytes from 0, as in ``ast``."""

SEVERITY = {"safe": 0, "unproven": 1, "unsafe": 2}


class Finding(msgspec.Struct, frozen=True):
    """A place that is not provably safe."""

    place: Place
    verdict: str
    message: str
    fixable: bool = False
    """Whether it is a call to which ``weights_only=True`` can be added."""


class Proof(msgspec.Struct, frozen=True):
    """Safe as long as no other file changes a name of this one."""

    origin: Place
    name: str
    kind: str
    """``constant``: nobody may bind it; ``reached``: nobody may name it at all; ``own``: this
    file does not bind it by way of its namespace."""
