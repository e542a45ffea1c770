"""For the sake of which lines a function is followed: others need not be."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable

from tiergate.loads import relevance
from tiergate.loads.scopes import FunctionNode

_LINE_END = re.compile(rb"\r\n|\r|\n")
_NO_PROSE = rb"(?![ \t]+(?!(?:and|as|else|for|if|in|is|not|or)\b)[A-Za-z])"
# A function is followed only for the sake of one of these; with the words that each begins with.
# What must stand before a word is asked after it: the word is then searched for as plain text.
_HOT = (
    *((name, relevance.word(name) + _NO_PROSE) for name in (b"load", b"_load", b"_legacy_load")),
    (b"weights_only", rb"weights_only"),
    (b"global", relevance.word(b"global")),
    (b"nonlocal", relevance.word(b"nonlocal")),
    (b"eval", rb"eval(?<![.\w]eval)\s*\("),
    (b"exec", rb"exec(?<![.\w]exec)\s*\("),
    (b"vars", rb"vars(?<![.\w]vars)\s*\(\s*\w"),
    (
        b"getattr",
        relevance.word(b"getattr")
        + rb"\s*\(\s*(?!self\b|cls\b)\w+[^,\n]*,\s*(?![\"']\w+[\"']\s*[,)])",
    ),
    (b"__dict__", rb"__dict__(?<=\.__dict__)(?<!\bself\.__dict__)(?<!\bcls\.__dict__)\s*\["),
    (b"methodcaller", rb"methodcaller"),
    (b"attrgetter", rb"attrgetter"),
    (b"__getattribute__", rb"__getattribute__"),
    (b"getattr_static", rb"getattr_static"),
    (b"return", rb"return(?<!\wreturn)\s*\(?\s*(?:torch|serialization)\b(?![ \t]*\.)"),
    (b"= torch", rb"=[ \t]*torch\b(?![ \t]*\.)"),
    (b"=torch", rb"=torch\b(?![ \t]*\.)"),
    (b"import_module", rb"import_module"),
    (b"__import__", rb"__import__"),
    (b"resolve_name", rb"resolve_name"),
    (b"locate", relevance.word(b"locate")),
)
_ASKED = re.compile(rb"weights_only\s*=\s*(?:not\s+)?(\w+)\s*\(")


class HotLines:
    """The lines of a file that name what loads, or may.

    Args:
        source: its text.
    """

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._ends: list[int] = []
        self._hot: list[int] = []
        self._lines: dict[bytes, frozenset[int]] = {}
        """Where a pattern matches."""

    def find(self, names: Iterable[str]) -> None:
        """Look for what always matters, and for names that lead to what loads."""
        source = self._source
        words = [name.encode() for name in sorted(names)]
        words += {match[1] for match in _ASKED.finditer(source)}
        patterns = [pattern for word, pattern in _HOT if word in source]
        patterns += [relevance.word(word) for word in words]
        if not self._ends:
            self._ends = [match.start() for match in _LINE_END.finditer(self._source)]
        hot: set[int] = set()
        for pattern in patterns:
            if pattern not in self._lines:
                starts = (match.start() for match in re.finditer(pattern, source))
                found = {bisect.bisect_left(self._ends, start) + 1 for start in starts}
                self._lines[pattern] = frozenset(found)
            hot |= self._lines[pattern]
        self._hot = sorted(hot)

    def within(self, node: FunctionNode) -> bool:
        """Tell whether one of the lines is a function's."""
        end = node.end_lineno or node.lineno
        at = bisect.bisect_left(self._hot, node.lineno)
        return at < len(self._hot) and self._hot[at] <= end
