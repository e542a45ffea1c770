"""For the sake of which lines a function is followed: others need not be."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tiergate.loads import relevance
from tiergate.loads.lines import Lines, stands_within
from tiergate.loads.scopes import FunctionNode

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
    (b"itemgetter", rb"itemgetter"),
    (b"getmembers", rb"getmembers"),
    (b"__getattribute__", rb"__getattribute__"),
    (b"getattr_static", rb"getattr_static"),
    (b"return", rb"return(?<!\wreturn)\s*\(?\s*(?:torch|serialization)\b(?![ \t]*\.)"),
    (b"= torch", rb"=[ \t]*torch\b(?![ \t]*\.)"),
    (b"=torch", rb"=torch\b(?![ \t]*\.)"),
    (b"torch)", rb"torch\)(?<=[\s,(]torch\))"),
    (b"import_module", rb"import_module"),
    (b"__import__", rb"__import__"),
    (b"resolve_name", rb"resolve_name"),
    (b"locate", relevance.word(b"locate")),
)
_ASKED = re.compile(rb"weights_only\s*=\s*(?:not\s+)?(\w+)\s*\(")


class HotLines:
    """The lines of a file that name what loads, or may.

    Args:
        lines: the file's.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._hot: list[int] = []

    def find(self, names: Iterable[str]) -> None:
        """Look for what always matters, and for names that lead to what loads."""
        source = self._lines.source
        words = [name.encode() for name in sorted(names)]
        words += {match[1] for match in _ASKED.finditer(source)}
        patterns = [pattern for word, pattern in _HOT if word in source]
        patterns += [relevance.word(word) for word in words]
        self._hot = sorted(frozenset[int]().union(*map(self._lines.matching, patterns)))

    def within(self, node: FunctionNode) -> bool:
        """Tell whether one of the lines is a function's."""
        return stands_within(self._hot, node)
