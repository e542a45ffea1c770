"""What a test file says, whatever of it pytest came to see: read from its syntax tree."""

from __future__ import annotations

import ast
import encodings
import fnmatch
import functools
import importlib.util
import io
import tokenize
from dataclasses import dataclass, field
from encodings import aliases
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
# The most frequent statements; what is in functions and classes is in a scope of its own.
_WITHOUT_BLOCKS = frozenset(
    {
        ast.AnnAssign,
        ast.Assert,
        ast.Assign,
        ast.AsyncFunctionDef,
        ast.AugAssign,
        ast.ClassDef,
        ast.Expr,
        ast.FunctionDef,
        ast.Import,
        ast.ImportFrom,
        ast.Pass,
        ast.Raise,
        ast.Return,
    }
)


@dataclass
class Found:
    """What a file's collection came to: names as in node ids, and first lines of test bodies."""

    names: set[tuple[str, ...]] = field(default_factory=set)
    lines: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Doubt:
    """Something that was written as a test and does not test."""

    outcome: str
    name: str
    line: int
    message: str


@dataclass(frozen=True)
class Names:
    """Which names pytest takes for tests: its own, and those that the configuration adds."""

    functions: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, functions: Iterable[str], classes: Iterable[str]) -> Names:
        """Put pytest's own names in front: a configuration cannot take them away."""
        return cls(("test", *functions), ("Test", *classes))

    def function(self, node: ast.stmt) -> bool:
        """Tell whether a statement defines a test function."""
        return isinstance(node, _Function) and _matches(node.name, self.functions)

    def holder(self, node: ast.stmt) -> bool:
        """Tell whether a statement defines a class of tests."""
        return isinstance(node, ast.ClassDef) and (
            _matches(node.name, self.classes)
            or any(ast.unparse(base).endswith("TestCase") for base in node.bases)
        )


def lines(tree: ast.Module, names: Names) -> dict[tuple[str, ...], set[int]]:
    """Return of each test, by its path, the first lines of the functions that are called so."""
    found: dict[tuple[str, ...], set[int]] = {}
    for path, node in _tests(tree.body, (), names):
        found.setdefault(path, set()).add(_first_line(node))
    return found


def doubts(source: bytes, tree: ast.Module, names: Names, found: Found) -> list[Doubt]:
    """Return what the file writes as a test and pytest did not take for one, or cannot fail.

    Raises:
        SyntaxError, ValueError: the source does not parse.
    """
    own = {path for path, node in _tests(tree.body, (), names) if _is_own(node, found)}
    return [
        *_encoded(source),
        *_uncollected(tree.body, (), names, found, own),
        *_vacuous(tree, names),
    ]


_TRANSPARENT = bytes(range(128)) + rb"\x41\u0041\n+AAo-~{!!~}"


def _encoded(source: bytes) -> Iterator[Doubt]:
    """Doubt a source in an encoding in which it does not say what a reader sees."""
    encoding, lines = tokenize.detect_encoding(io.BytesIO(source).readline)
    name = encodings.normalize_encoding(encoding).lower()
    name = aliases.aliases.get(name, name)
    try:
        standard = importlib.util.find_spec(f"encodings.{name}") is not None
        plain = standard and _TRANSPARENT.decode(name) == _TRANSPARENT.decode("ascii")
    except (ImportError, LookupError, ValueError):
        plain = False
    if not plain:
        message = f"declares the encoding {encoding}, in which ASCII is not what it seems"
        yield Doubt("suspect", "", len(lines), message)


def _tests(
    body: Sequence[ast.stmt], scope: tuple[str, ...], names: Names
) -> Iterator[tuple[tuple[str, ...], ast.stmt]]:
    """Yield the test functions of a file and its classes, each with its path."""
    for node in body:
        if names.function(node):
            yield (*scope, node.name), node  # type: ignore[attr-defined]
        elif isinstance(node, ast.ClassDef) and names.holder(node):
            yield from _tests(node.body, (*scope, node.name), names)
        for block in _blocks(node):
            yield from _tests(block, scope, names)


def _is_own(node: ast.stmt, found: Found) -> bool:
    """Tell whether a test's own code was collected, or perhaps what a decorator made of it."""
    return _first_line(node) in found.lines or bool(getattr(node, "decorator_list", ()))


def _uncollected(
    body: Sequence[ast.stmt],
    scope: tuple[str, ...],
    names: Names,
    found: Found,
    own: Collection[tuple[str, ...]],
) -> Iterator[Doubt]:
    tests = [node for node in body if names.function(node) or names.holder(node)]
    last = {node.name: node for node in tests}  # type: ignore[attr-defined]
    for node in tests:
        name = node.name  # type: ignore[attr-defined]
        path = (*scope, name)
        label = "::".join(path)
        if last[name] is not node:
            line = last[name].lineno
            message = f"{label} is defined again at line {line}: this one never runs"
            yield Doubt("shadowed", label, node.lineno, message)
        elif isinstance(node, ast.ClassDef):
            inside = {path, *own} if node.decorator_list or node.keywords else own
            inner = list(_uncollected(node.body, path, names, found, inside))
            never = [doubt for doubt in inner if doubt.outcome == "suspect"]
            if never and not any(name[: len(path)] == path for name in found.names):
                yield Doubt("suspect", label, node.lineno, f"{label} was never collected")
            else:
                yield from inner
        elif _first_line(node) not in found.lines and path not in found.names:
            yield Doubt("suspect", label, node.lineno, f"{label} was never collected")
        elif path not in own and not any(path[:length] in own for length in range(1, len(path))):
            message = f"{label} was collected with another body than the one that stands here"
            yield Doubt("suspect", label, node.lineno, message)
    for node in body:
        for block in _blocks(node):
            yield from _uncollected(block, scope, names, found, own)


def _blocks(node: ast.stmt) -> Sequence[list[ast.stmt]]:
    """The statement lists of a compound statement in the same scope."""
    if type(node) in _WITHOUT_BLOCKS:
        return ()
    own = (getattr(node, name, None) for name in ("body", "orelse", "finalbody"))
    parts = (*getattr(node, "handlers", ()), *getattr(node, "cases", ()))
    return [*filter(None, own), *(part.body for part in parts)]


def _first_line(node: ast.stmt) -> int:
    """The line that a code object gives: the first decorator's."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min(node.lineno, *(d.lineno for d in decorators)) if decorators else node.lineno


def _vacuous(tree: ast.Module, names: Names) -> Iterator[Doubt]:
    for node in _statements(tree.body, inside=True):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
            message = "assert (condition, message) is always true: remove the parentheses"
            yield Doubt("suspect", "", node.lineno, message)
        elif isinstance(node, _Function) and names.function(node):
            for statement in _statements(node.body, inside=False):
                if isinstance(statement, ast.Return) and _is_condition(statement.value):
                    message = f"{node.name} returns a condition: assert it"
                    yield Doubt("suspect", node.name, statement.lineno, message)


def _statements(body: Sequence[ast.stmt], *, inside: bool) -> Iterator[ast.stmt]:
    """The statements of a block and those in it; also those of functions and classes, or not."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if inside and isinstance(node, (*_Function, ast.ClassDef)):
            waiting.extend(node.body)
        for block in _blocks(node):
            waiting.extend(block)


def _is_condition(value: ast.expr | None) -> bool:
    return isinstance(value, (ast.Compare, ast.BoolOp)) or (
        isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    )


@functools.lru_cache(maxsize=4096)
def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name.startswith(p) or fnmatch.fnmatchcase(name, p) for p in patterns)
