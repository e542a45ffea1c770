"""The nearest valid word, for messages about unknown ones."""

from __future__ import annotations

from collections.abc import Iterable

_COMPARED = 2000
"""Characters of the word, times valid words: what one message may cost."""


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` or the list of valid words, ready to append to a message."""
    import difflib  # noqa: PLC0415 - only a mistake pays for it

    known = sorted(valid)
    near = difflib.get_close_matches(word[:100], _candidates(word, known), n=1, cutoff=0.5)
    if near:
        return f" (did you mean {near[0]!r}?)"
    if not known:
        return ""
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f" (valid: {shown})"


def _candidates(word: str, known: list[str]) -> list[str]:
    """Return ``known``, or where it is long, those that share most with the start of ``word``."""
    most = _COMPARED // (len(word[:100]) + 1)
    if len(known) <= most:
        return known
    import bisect  # noqa: PLC0415 - as above

    at = bisect.bisect(known, word)
    return known[max(0, at - most // 2) : at + most // 2]
