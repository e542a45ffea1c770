"""Python source: the syntax tree says where, the text is what changes."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef

_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


@dataclass(frozen=True)
class FoundTest:
    """A test function or method, as pytest's default patterns find it.

    Attributes:
        name: as in a node id: ``test_a``, or ``TestB::test_a``.
        node: the function.
        alone: whether nothing else stands in the class that it is in.
    """

    name: str
    node: Function
    alone: bool = False

    @property
    def plain(self) -> bool:
        """Whether it has no decorators, which could make several tests of it, or none."""
        return not self.node.decorator_list


class Source:
    """A file's text with its encoding and line ends, and the tree of its syntax.

    Args:
        data: the file.

    Raises:
        SyntaxError: it is not Python.
        UnicodeDecodeError: it is not in the encoding that it declares.
    """

    def __init__(self, data: bytes) -> None:
        self.encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(self.encoding)
        self._lines: list[str] = _LINES.findall(text)
        self.tree = ast.parse(text)
        first = self._lines[0] if self._lines else "\n"
        self._newline = first[len(first.rstrip("\r\n")) :] or "\n"

    def tests(self) -> list[FoundTest]:
        """Return the tests of the file, in its order."""
        found: list[FoundTest] = []
        for node in self.tree.body:
            if isinstance(node, Function) and node.name.startswith("test"):
                found.append(FoundTest(node.name, node))
            elif isinstance(node, ast.ClassDef) and _is_suite(node):
                found.extend(
                    FoundTest(f"{node.name}::{inner.name}", inner, alone=len(node.body) == 1)
                    for inner in node.body
                    if isinstance(inner, Function) and inner.name.startswith("test")
                )
        return found

    def without(self, test: FoundTest) -> bytes:
        """Return the file with the test deleted."""
        start, end = _start(test.node) - 1, test.node.end_lineno
        kept = f"{self._indent(start)}pass{self._newline}" if test.alone else ""
        return self._encoded([*self._lines[:start], kept, *self._lines[end:]])

    def renamed(self, test: FoundTest, name: str) -> bytes:
        """Return the file with the test's function under another name."""
        at = test.node.lineno - 1
        pattern = rf"(def\s+){re.escape(test.node.name)}\b"
        line = re.sub(pattern, lambda match: match[1] + name, self._lines[at], count=1)
        return self._encoded([*self._lines[:at], line, *self._lines[at + 1 :]])

    def decorated(self, test: FoundTest, decorator: str) -> bytes:
        """Return the file with one more decorator, outermost, on the test."""
        at = _start(test.node) - 1
        line = f"{self._indent(at)}{decorator}{self._newline}"
        return self._encoded([*self._lines[:at], line, *self._lines[at:]])

    def beginning(self, test: FoundTest, statement: str) -> bytes:
        """Return the file with a simple statement at the beginning of the test's body."""
        return self._encoded(self._inserted(test.node.body[0], statement))

    def starting(self, statement: str) -> bytes:
        """Return the file with a statement before all but its docstring and future imports."""
        for index, node in enumerate(self.tree.body):
            docstring = index == 0 and isinstance(node, ast.Expr) and _is_text(node.value)
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            if not docstring and not future:
                return self._encoded(self._inserted(node, statement))
        return self.appended(statement)

    def appended(self, text: str) -> bytes:
        """Return the file with ``text``, of whole lines, at its end."""
        lines = list(self._lines)
        if lines and not lines[-1].endswith(("\r", "\n")):
            lines[-1] += self._newline
        added = text.rstrip("\n").replace("\n", self._newline) + self._newline
        return self._encoded([*lines, added])

    def _inserted(self, before: ast.stmt, statement: str) -> list[str]:
        at = _start(before) - 1
        line = self._lines[at]
        column = before.col_offset if _start(before) == before.lineno else len(self._indent(at))
        # The tree counts columns in bytes of UTF-8.
        prefix = line.encode()[:column].decode()
        if prefix.strip():
            changed = f"{prefix}{statement}; {line[len(prefix) :]}"
        else:
            changed = f"{prefix}{statement}{self._newline}{line}"
        return [*self._lines[:at], changed, *self._lines[at + 1 :]]

    def _indent(self, at: int) -> str:
        line = self._lines[at]
        return line[: len(line) - len(line.lstrip(" \t\f"))]

    def _encoded(self, lines: list[str]) -> bytes:
        return "".join(lines).encode(self.encoding)


def _start(node: ast.stmt) -> int:
    """Return the first line of a statement, its decorators included."""
    decorators = node.decorator_list if isinstance(node, Function | ast.ClassDef) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _is_suite(node: ast.ClassDef) -> bool:
    bases = [base.attr if isinstance(base, ast.Attribute) else base for base in node.bases]
    names = [base.id if isinstance(base, ast.Name) else base for base in bases]
    return node.name.startswith("Test") or any(str(name).endswith("TestCase") for name in names)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
