"""Writes ``weights_only=True`` into a call, and leaves everything else as it is formatted."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable

_ARGUMENT = "weights_only=True"
_SKIPPED = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
)
_LINES = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")


def mend(source: bytes, places: Iterable[tuple[int, int]]) -> tuple[bytes, list[tuple[int, int]]]:
    """Add the argument to the calls that begin at the given places.

    Args:
        source: a file that parses, in UTF-8.
        places: line from 1 and column in characters from 1, each the start of a call.

    Returns:
        The new source, and the places that were mended: those where the result parses to the same
        code with nothing but the argument added.
    """
    done = []
    for place in sorted(places, reverse=True):  # from the end, so that places stay where they are
        mended = _mend_one(source, place)
        if mended is not None:
            source = mended
            done.append(place)
    return source, sorted(done)


def _mend_one(source: bytes, place: tuple[int, int]) -> bytes | None:
    text = source.decode("utf-8")
    lines = _LINES.split(text)
    call = _call_at(source, lines, place)
    if call is None or call.end_lineno is None or call.end_col_offset is None:
        return None
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    begin = starts[call.lineno - 1] + _characters(lines[call.lineno - 1], call.col_offset)
    last = lines[call.end_lineno - 1]
    end = starts[call.end_lineno - 1] + _characters(last, call.end_col_offset) - 1
    if text[end] != ")":
        return None
    at, insertion = _insertion(text, begin, end)
    mended = (text[:at] + insertion + text[at:]).encode("utf-8")
    return mended if _only_added(source, mended, call) else None


def _call_at(source: bytes, lines: list[str], place: tuple[int, int]) -> ast.Call | None:
    """Return the innermost call at a place: the one whose function is a plain name."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and node.lineno == place[0]
        and _characters(lines[node.lineno - 1], node.col_offset) == place[1] - 1
        and isinstance(node.func, (ast.Name, ast.Attribute))
        and not any(isinstance(part, ast.Call) for part in ast.walk(node.func))
    ]
    return calls[0] if len(calls) == 1 else None


def _characters(line: str, column: int) -> int:
    """Return a column in characters for one in bytes."""
    return len(line.encode("utf-8")[:column].decode("utf-8"))


def _insertion(text: str, begin: int, end: int) -> tuple[int, str]:
    """Return where to insert what, before the bracket at ``end`` that closes the call."""
    inside = text[begin:end]
    position, last = _last_token(inside)
    at = begin + position
    if last == "(":
        return at, _ARGUMENT
    if last != ",":
        separator = ", "
        newline = text.rfind("\n", begin, at)
        behind = text[at:end]
        if "\n" in behind and newline >= 0:
            # One argument on each line, and no comma behind the last.
            separator = "," + _ending(text) + _indent(text, newline + 1)
        return at, separator + _ARGUMENT
    behind = text[at:end]
    if "\n" not in behind:
        return at, f" {_ARGUMENT},"
    start_of_line = text.rfind("\n", 0, at) + 1
    end_of_line = at + re.search(r"\r?\n", behind).start()  # type: ignore[union-attr]
    indent = _indent(text, start_of_line) if start_of_line > begin else _deeper(text, begin)
    return end_of_line, f"{_ending(text)}{indent}{_ARGUMENT},"


def _last_token(inside: str) -> tuple[int, str]:
    """Return where the last token that is no comment ends, and the token."""
    lines = _LINES.split(inside)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = (0, "")
    try:
        for token in tokenize.generate_tokens(io.StringIO(inside, newline="").readline):
            if token.type not in _SKIPPED and token.string:
                found = (starts[token.end[0] - 1] + token.end[1], token.string)
    except (tokenize.TokenError, IndentationError):
        pass  # the bracket that closes the call was left out: it ends there
    return found


def _indent(text: str, start: int) -> str:
    return re.match(r"[ \t]*", text[start:]).group()  # type: ignore[union-attr]


def _deeper(text: str, begin: int) -> str:
    return _indent(text, text.rfind("\n", 0, begin) + 1) + "    "


def _ending(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _only_added(source: bytes, mended: bytes, call: ast.Call) -> bool:
    """Tell whether the new source is the old one with the argument added to this call."""
    try:
        tree = ast.parse(mended)
    except (SyntaxError, ValueError):
        return False
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and (node.lineno, node.col_offset) == (call.lineno, call.col_offset)
            and node.keywords
            and node.keywords[-1].arg == "weights_only"
        ):
            del node.keywords[-1]
            return ast.dump(tree) == ast.dump(ast.parse(source))
    return False
