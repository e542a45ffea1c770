"""The nearest valid word, for messages about unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` or the list of valid words, ready to append to a message."""
    known = sorted(valid)
    near = difflib.get_close_matches(word[:100], known, n=1, cutoff=0.5)
    if near:
        return f" (did you mean {near[0]!r}?)"
    if not known:
        return ""
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f" (valid: {shown})"
