"""Lists of what a person should know, shortened."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 20


def listed(what: str, items: Sequence[str]) -> str:
    """Say what they are and name them, at most so many."""
    more = f", and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{what}: {'; '.join(items[:_SHOWN])}{more}"
