"""Finds the lines of a file on which something stands, without parsing it."""

from __future__ import annotations

import ast
import bisect
import re
from collections.abc import Sequence
from functools import cached_property

_LINE_END = re.compile(rb"\r\n|\r|\n")


class Lines:
    """The lines of a file.

    Args:
        source: its text.
    """

    def __init__(self, source: bytes) -> None:
        self.source = source
        self._matching: dict[bytes, frozenset[int]] = {}

    def matching(self, pattern: bytes) -> frozenset[int]:
        """Return the numbers of the lines on which a regular expression matches."""
        if pattern not in self._matching:
            starts = (match.start() for match in re.finditer(pattern, self.source))
            self._matching[pattern] = frozenset(
                bisect.bisect_left(self._ends, start) + 1 for start in starts
            )
        return self._matching[pattern]

    @cached_property
    def _ends(self) -> list[int]:
        return [match.start() for match in _LINE_END.finditer(self.source)]


def stands_within(lines: Sequence[int], node: ast.AST) -> bool:
    """Tell whether one of the lines, which are sorted, is a node's."""
    first: int = node.lineno  # type: ignore[attr-defined]
    at = bisect.bisect_left(lines, first)
    return at < len(lines) and lines[at] <= (getattr(node, "end_lineno", None) or first)
