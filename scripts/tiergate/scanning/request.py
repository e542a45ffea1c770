"""What a scan is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Request:
    """What is to be scanned, and how."""

    rules: Sequence[str]
    paths: Sequence[str]
    engine: Literal["fast", "default"]
    policy: Literal["explicit", "floor-2.6"]
