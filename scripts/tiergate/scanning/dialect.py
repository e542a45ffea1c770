"""Writes for semgrep what its parser does not know of Python's grammar, in as many characters.

One such place would lose semgrep the whole file. Only names and places matter to the rules: every
line and column stays where it is, and what is evaluated is still written there.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

_MAY_HAVE_REST = re.compile(rb"\bcase\b")
_MAY_HAVE_STAR = re.compile(rb"[\[,]\s*\*\s*[\[({+~-]")
_GAP = rb"(?:\s|\\|#[^\n]*\n)*"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def for_semgrep(source: bytes) -> bytes:
    """Return a file's source, of the same length, in what semgrep's parser takes.

    ``case {"kind": kind, **rest}`` becomes ``case {"kind": kind, 0:rest}``, and the asterisk of
    ``table[*(1, 2)]`` a space. What does not parse is left as it is.
    """
    if not (_MAY_HAVE_STAR.search(source) or (_MAY_HAVE_REST.search(source) and b"**" in source)):
        return source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source
    text = bytearray(source)
    starts = [0, *(match.end() for match in _LINE_END.finditer(source))]
    if source.startswith(_BYTE_ORDER_MARK):
        starts[0] = len(_BYTE_ORDER_MARK)
    for line, column, end_line, end_column, rest in _unknown(tree):
        start = starts[line - 1] + column
        if not rest:
            text[start : start + 1] = b" "
            continue
        name = re.escape(rest.encode())
        asterisks = re.compile(rb"\*\*(?=" + _GAP + name + _GAP + rb",?" + _GAP + rb"\})")
        for match in asterisks.finditer(source, start, starts[end_line - 1] + end_column):
            text[match.start() : match.end()] = b"0:"
    return source if text == source else bytes(text)


def _unknown(tree: ast.AST) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield where what semgrep does not know begins and ends; of a pattern, its rest's name."""
    for node in ast.walk(tree):
        found: list[tuple[ast.expr | ast.pattern, str]] = []
        if isinstance(node, ast.MatchMapping) and node.rest:
            found = [(node, node.rest)]
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            found = [(part, "") for part in node.slice.elts if isinstance(part, ast.Starred)]
        for part, rest in found:
            end = part.end_lineno or part.lineno, part.end_col_offset or part.col_offset
            yield part.lineno, part.col_offset, *end, rest
