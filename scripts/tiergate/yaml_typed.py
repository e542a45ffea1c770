"""YAML nodes → msgspec structs, with every problem at its line and column.

A scalar is read by the type that is wanted there, in YAML 1.2's core schema: ``on`` is text,
``true`` is a boolean, and a number where text is wanted is a problem rather than a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from msgspec import inspect

from tiergate.suggest import did_you_mean
from tiergate.yaml_document import Kind, Mark, Node, Problem

Path = tuple[str | int, ...]
Check = Callable[[str], str | None]

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]{1,40}(\.[0-9]*)?)([eE][-+]?[0-9]{1,2})?")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


MAX_PROBLEMS = 100
_SHOWN = 80


class _Invalid:
    """What the reader returns for a node that has a problem."""


INVALID = _Invalid()


class TooManyProblemsError(Exception):
    """Reading stopped at ``MAX_PROBLEMS``: the file is not what it is taken for."""


class Reader:
    """Reads nodes into types; collects problems and remembers where each value came from.

    A value with a problem does not hide the others: an optional field keeps its default, and a
    list of structs keeps ``INVALID`` in its place. ``invalid`` holds the paths of such values.

    Args:
        checks: by name, the checks that a type may ask for with ``Meta(extra={"check": name})``;
            each takes the text and returns what is wrong with it, or None.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self.problems: list[Problem] = []
        self.nodes: dict[Path, Node] = {}
        self.keys: dict[Path, Node] = {}
        self.invalid: set[Path] = set()
        self._found = 0
        self._checks = checks
        self._types: dict[Any, inspect.Type] = {}

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Record a problem at ``path``, or at its nearest ancestor that stands in the file.

        Args:
            path: where the value is.
            message: what is wrong.
            at_key: whether the key is wrong rather than its value.
        """
        while path and path not in self.nodes:
            path = path[:-1]
        node = self.keys.get(path) if at_key else self.nodes.get(path)
        self._add(Problem(node.mark if node else Mark(1, 1), message))

    def _add(self, problem: Problem) -> None:
        # Parameters are read twice, without and with their type; aliases lead to the same node.
        if problem not in self.problems:
            self.problems.append(problem)
        self._found += 1
        if self._found >= MAX_PROBLEMS:
            stopped = f"too many problems: reading stopped after {MAX_PROBLEMS}"
            self.problems.append(Problem(max(p.mark for p in self.problems), stopped))
            raise TooManyProblemsError

    def read(self, node: Node, wanted: Any, path: Path = ()) -> Any:
        """Return ``node`` as an instance of ``wanted``, or ``INVALID``."""
        kind = self._types.get(wanted)
        if kind is None:
            kind = self._types[wanted] = inspect.type_info(wanted)
        return self._read(node, kind, path, label=_label(path))

    def _read(self, node: Node, kind: inspect.Type, path: Path, label: str) -> Any:
        self.nodes.setdefault(path, node)
        if isinstance(kind, inspect.Metadata):
            value = self._read(node, kind.type, path, label)
            name = (kind.extra or {}).get("check")
            wrong = self._checks[name](value) if name and isinstance(value, str) else None
            return self._wrong(node, f"{label}: {wrong}") if wrong else value
        if isinstance(kind, inspect.UnionType):
            return self._union(node, kind, path, label)
        if isinstance(kind, inspect.AnyType):
            return self._untyped(node, path, label)
        if isinstance(kind, inspect.StructType):
            return self._struct(node, kind, path, label)
        if isinstance(kind, inspect.ListType):
            return self._list(node, kind, path, label)
        if isinstance(kind, inspect.DictType):
            return self._dict(node, kind, path, label)
        if node.kind is not Kind.SCALAR:
            return self._expected(node, _describe(kind), label)
        return self._scalar(node, kind, label)

    def _wrong(self, node: Node, message: str) -> _Invalid:
        self._add(Problem(node.mark, message))
        return INVALID

    def _expected(self, node: Node, what: str, label: str) -> _Invalid:
        return self._wrong(node, f"{label}: expected {what}, found {_found(node)}")

    def _union(self, node: Node, kind: inspect.UnionType, path: Path, label: str) -> Any:
        members = kind.types
        if _is_null(node):
            if any(isinstance(member, inspect.NoneType) for member in members):
                return None
        else:
            for member in members:
                if _fits(node, member):
                    return self._read(node, member, path, label)
        shown = [_describe(m) for m in members if not isinstance(m, inspect.NoneType)]
        return self._expected(node, " or ".join(shown), label)

    def _untyped(self, node: Node, path: Path, label: str) -> Any:
        if node.kind is Kind.SCALAR:
            return _core_scalar(node)
        if node.kind is Kind.SEQUENCE:
            return [
                self._untyped(item, (*path, index), label) for index, item in enumerate(node.items)
            ]
        return {
            key: self._untyped(value, (*path, key), label)
            for key, _, value in self._entries(node, label)
        }

    def _struct(self, node: Node, kind: inspect.StructType, path: Path, label: str) -> Any:
        if node.kind is not Kind.MAPPING:
            return self._expected(node, "a mapping", label)
        fields = {field.encode_name: field for field in kind.fields}
        values: dict[str, Any] = {}
        for key, key_node, value_node in self._entries(node, label):
            field = fields.get(key)
            if field is None:
                self._wrong(key_node, f"unknown key {key[:_SHOWN]!r}{did_you_mean(key, fields)}")
                continue
            at = (*path, key)
            value = self._read(value_node, field.type, at, _label(at))
            values[field.name] = self._kept(value, at)
        required = [f for f in kind.fields if f.required]
        missing = [f.encode_name for f in required if f.name not in values]
        if missing:
            return self._wrong(node, f"{label}: missing {', '.join(missing)}")
        if any(values[f.name] is INVALID for f in required):
            return INVALID
        return kind.cls(**{name: v for name, v in values.items() if v is not INVALID})

    def _list(self, node: Node, kind: inspect.ListType, path: Path, label: str) -> Any:
        if node.kind is not Kind.SEQUENCE:
            return self._expected(node, "a list", label)
        if kind.min_length and len(node.items) < kind.min_length:
            return self._wrong(node, f"{label}: must not be empty")
        values = []
        for index, item in enumerate(node.items):
            at = (*path, index)
            values.append(self._kept(self._read(item, kind.item_type, at, _label(at)), at))
        if isinstance(kind.item_type, inspect.StructType):
            return values
        return INVALID if INVALID in values else values

    def _dict(self, node: Node, kind: inspect.DictType, path: Path, label: str) -> Any:
        if node.kind is not Kind.MAPPING:
            return self._expected(node, "a mapping", label)
        values = {}
        for key, key_node, value_node in self._entries(node, label):
            at = (*path, key)
            self.keys.setdefault(at, key_node)
            values[key] = self._read(value_node, kind.value_type, at, _label(at))
            if isinstance(kind.key_type, inspect.StrType) and not _matches(kind.key_type, key):
                shown = f"{key[:_SHOWN]!r} does not match {kind.key_type.pattern}"
                values[key] = self._wrong(key_node, f"{label}: {shown}")
        return INVALID if INVALID in values.values() else values

    def _kept(self, value: Any, path: Path) -> Any:
        if value is INVALID:
            self.invalid.add(path)
        return value

    def _entries(self, node: Node, label: str) -> list[tuple[str, Node, Node]]:
        seen: dict[str, Mark] = {}
        entries = []
        for key, value in node.entries:
            if key.kind is not Kind.SCALAR:
                self._wrong(key, f"{label}: a key must be text, not {key.kind.value}")
            elif key.text in seen:
                shown = f"duplicate key {key.text[:_SHOWN]!r}"
                self._wrong(key, f"{shown}, first at line {seen[key.text].line}")
            else:
                seen[key.text] = key.mark
                entries.append((key.text, key, value))
        return entries

    def _scalar(self, node: Node, kind: inspect.Type, label: str) -> Any:
        value = _core_scalar(node)
        if isinstance(kind, inspect.LiteralType):
            if value in kind.values:
                return value
            hint = did_you_mean(str(value), [str(v) for v in kind.values])
            return self._wrong(node, f"{label}: unknown value {str(value)[:_SHOWN]!r}{hint}")
        if isinstance(kind, inspect.StrType):
            if not isinstance(value, str):
                return self._expected(node, "text", label)
            if len(value) < (kind.min_length or 0):
                return self._wrong(node, f"{label}: must not be empty")
            if not _matches(kind, value):
                shown = f"{value[:_SHOWN]!r} does not match {kind.pattern}"
                return self._wrong(node, f"{label}: {shown}")
            return value
        if isinstance(kind, inspect.BoolType) and isinstance(value, bool):
            return value
        if isinstance(kind, inspect.IntType) and type(value) is int:
            return self._bounded(node, value, kind, label)
        if isinstance(kind, inspect.FloatType) and _is_number(value):
            return self._bounded(node, float(value), kind, label)
        return self._expected(node, _describe(kind), label)

    def _bounded(
        self, node: Node, value: float, kind: inspect.IntType | inspect.FloatType, label: str
    ) -> Any:
        if kind.ge is not None and value < kind.ge:
            return self._wrong(node, f"{label}: must be at least {kind.ge}, not {value}")
        if kind.gt is not None and value <= kind.gt:
            return self._wrong(node, f"{label}: must be more than {kind.gt}, not {value}")
        if kind.le is not None and value > kind.le:
            return self._wrong(node, f"{label}: must be at most {kind.le}, not {value}")
        return value


def _core_scalar(node: Node) -> str | int | float | bool | None:
    text = node.text
    if not node.plain:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _matches(kind: inspect.StrType, text: str) -> bool:
    if kind.pattern is None:
        return True
    # As in JSON schema: Python's $ would let a line's end pass.
    return re.search(re.sub(r"\$$", r"\\Z", kind.pattern), text) is not None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_null(node: Node) -> bool:
    return node.kind is Kind.SCALAR and _core_scalar(node) is None


def _fits(node: Node, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _fits(node, kind.type)
    if isinstance(kind, inspect.ListType):
        return node.kind is Kind.SEQUENCE
    if isinstance(kind, inspect.StructType | inspect.DictType):
        return node.kind is Kind.MAPPING
    if node.kind is not Kind.SCALAR:
        return False
    value = _core_scalar(node)
    if isinstance(kind, inspect.StrType):
        return isinstance(value, str)
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.IntType):
        return type(value) is int
    if isinstance(kind, inspect.FloatType):
        return _is_number(value)
    return isinstance(kind, inspect.LiteralType)


def _describe(kind: inspect.Type) -> str:
    names = {
        inspect.StrType: "text",
        inspect.IntType: "a whole number",
        inspect.FloatType: "a number",
        inspect.BoolType: "true or false",
        inspect.ListType: "a list",
        inspect.DictType: "a mapping",
        inspect.StructType: "a mapping",
    }
    if isinstance(kind, inspect.Metadata):
        return _describe(kind.type)
    if isinstance(kind, inspect.LiteralType):
        choices: list[str] = [str(value) for value in kind.values]
        return "one of " + ", ".join(choices)
    return str(names.get(type(kind), "a value"))


def _found(node: Node) -> str:
    if node.kind is not Kind.SCALAR:
        return str(node.kind.value)
    value = _core_scalar(node)
    text = node.text[:_SHOWN]
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {text} (quote it to make it text)"
    if isinstance(value, int | float):
        return f"the number {text} (quote it to make it text)"
    return f"the text {text!r}"


def _label(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part[:_SHOWN]}"
    return text or "the file"
