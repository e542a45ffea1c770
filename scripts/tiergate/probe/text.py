"""Bounds for what candidate code can make the probe send."""

from __future__ import annotations

import re
import textwrap


def clip(text: object, limit: int) -> str:
    """Return ``text``, its middle left out where it is longer than ``limit`` characters."""
    text = str(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - limit} characters left out ...]\n{text[-half:]}"


# Of an exception, `tests/test_a.py:3: in <module>`; of a syntax error, `E     File "a.py", line 3`.
_PLACE = re.compile(
    r'^(?:E\s+File "(?P<quoted>[^"\n]+)", line (?P<row>\d+)'
    r"|(?P<path>[^\s:][^:\n]*):(?P<line>\d+):)",
    re.MULTILINE,
)
_RAISED = re.compile(r"(?:^E(?:[ ].*)?$\n?)+", re.MULTILINE)
_DOCTEST = re.compile(r"^(?:Expected|UNEXPECTED EXCEPTION|Differences)\b.*(?:\n.+)*", re.MULTILINE)


def cause(trace: str) -> tuple[str, list[tuple[str, int]]]:
    """Return what was raised, and the places on the way there, from a traceback in pytest's words.

    The outermost exception of a chain, which is the last. Where pytest wrote no traceback, as for a
    doctest, what was expected and came instead.
    """
    raised = _RAISED.findall(trace)
    if raised:
        message = "\n".join(line[1:] for line in raised[-1].splitlines())
    else:
        differing = _DOCTEST.search(trace)
        message = differing[0] if differing else ""
    places = [
        (match["quoted"] or match["path"], int(match["row"] or match["line"]))
        for match in _PLACE.finditer(trace)
    ]
    return textwrap.dedent(message).strip(), places
