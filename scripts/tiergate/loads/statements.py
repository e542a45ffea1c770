"""Follows values through statements, one after the other."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from tiergate.loads.calls import Policy
from tiergate.loads.containers import loose, unpacked
from tiergate.loads.functions import Functions
from tiergate.loads.members import is_namespace
from tiergate.loads.scopes import Scope
from tiergate.loads.values import (
    UNKNOWN,
    Constant,
    Symbol,
    Table,
    Values,
    constant,
    holds_torch,
    is_torch,
    symbol,
)

_STATEMENTS = 300_000
"""What is followed of one file, loops counted as often as they are run: seconds, not hours."""


class Statements(Functions):
    """Executes statements.

    Args:
        module: the outermost scope.
        lookup: what a dotted name of the repository's own modules is, or None.
        exports: what ``from module import *`` gives, of the repository's own modules.
        absolute: the dotted name of a relative import's module, from its level and name.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self,
        module: Scope,
        lookup: Callable[[str], Values | None],
        exports: Callable[[str], dict[str, Values]],
        absolute: Callable[[int, str], str],
        policy: Policy,
    ) -> None:
        super().__init__(module, lookup, policy)
        self._statements = _STATEMENTS
        self._exports = exports
        self._absolute = absolute

    def _execute(self, body: Sequence[ast.stmt]) -> None:
        self._statements -= len(body)
        if self._statements < 0:
            raise ValueError("too involved to follow")
        for statement in body:
            kind = type(statement)
            if kind not in self._methods:
                self._methods[kind] = getattr(type(self), f"_do_{kind.__name__.lower()}", None)
            method = self._methods[kind]
            if method is not None:
                method(self, statement)
            else:
                self._children(statement)

    def _do_expr(self, node: ast.Expr) -> None:
        bare = isinstance(node.value, (ast.Name, ast.Attribute))
        values = self._evaluate(node.value, held=bare)
        if bare:
            self._looked_at([values])

    def _do_assert(self, node: ast.Assert) -> None:
        self._test(node.test)
        if node.msg is not None:
            self._evaluate(node.msg)

    def _do_assign(self, node: ast.Assign) -> None:
        if len(node.targets) == 1 and self._pairwise(node.targets[0], node.value):
            return
        held = all(isinstance(target, (ast.Name, ast.Attribute)) for target in node.targets)
        values = self._evaluate(node.value, held=held)
        if len(node.targets) > 1:
            values = loose(values)
        for target in node.targets:
            self._assign(target, values, node)

    def _pairwise(self, target: ast.expr, value: ast.expr) -> bool:
        """``a, b = x, y``: each by itself, evaluated before any is bound."""
        shapes = (ast.Tuple, ast.List)
        if not isinstance(target, shapes) or not isinstance(value, shapes):
            return False
        if len(target.elts) != len(value.elts) or any(
            isinstance(element, ast.Starred) for element in (*target.elts, *value.elts)
        ):
            return False
        simple = [isinstance(element, (ast.Name, ast.Attribute)) for element in target.elts]
        found = [
            self._evaluate(element, held=held)
            for element, held in zip(value.elts, simple, strict=True)
        ]
        for element, values in zip(target.elts, found, strict=True):
            self._assign(element, values, target)
        return True

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            simple = isinstance(node.target, (ast.Name, ast.Attribute))
            self._assign(node.target, self._evaluate(node.value, held=simple), node)

    def _do_augassign(self, node: ast.AugAssign) -> None:
        values = self._evaluate(node.value)
        if isinstance(node.target, ast.Name):
            self._bind(node.target.id, values | UNKNOWN)
        else:
            self._assign(node.target, values | UNKNOWN, node)

    def _assign(self, target: ast.expr, values: Values, node: ast.stmt | ast.expr) -> None:
        if isinstance(target, (ast.Name, ast.Attribute)) and self._reads_like_load(target):
            self._other.add((target.lineno, target.col_offset))
        if isinstance(target, ast.Name):
            self._bind(target.id, values)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element, part in zip(target.elts, unpacked(values, target.elts), strict=True):
                inner = element.value if isinstance(element, ast.Starred) else element
                self._assign(inner, UNKNOWN if inner is not element else part, node)
        elif isinstance(target, ast.Attribute):
            base = self._evaluate(target.value, held=True)
            if any(is_torch(value) for value in base):
                self._replaced(target, base, target.attr, values)
            else:
                self._store_attribute(target.attr, values)
        elif isinstance(target, ast.Subscript):
            self._assign_item(target, values)

    def _assign_item(self, target: ast.Subscript, values: Values) -> None:
        base = self._evaluate(target.value, held=True)
        keys = self._evaluate(target.slice)
        key = None
        if len(keys) == 1:
            (only,) = keys
            key = only.value if isinstance(only, Constant) else None
        if isinstance(target.value, ast.Name) and any(isinstance(v, Table) for v in base):
            changed = frozenset(
                value
                if not isinstance(value, Table)
                else value.updated(key, values)
                if isinstance(key, str)
                else Table(tuple((k, v | values) for k, v in value.items), complete=False)
                for value in base
            )
            self._bind(target.value.id, changed)
        if isinstance(key, str) and holds_torch(values):
            self._store_attribute(key, values)  # self.__dict__["backend"] = torch
            if any(isinstance(v, Symbol) and is_namespace(v.dotted) for v in base):
                self._bind(key, values)
        if key == "load" and any(
            v == next(iter(symbol(name))) for v in base for name in ("torch.__dict__",)
        ):
            self._replaced(target, symbol("torch"), "load", values)

    def _do_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Name):
                self._children(target)
            elif self._reads_like_load(target):
                self._other.add((target.lineno, target.col_offset))
            if isinstance(target, ast.Name):
                self._scope.env.pop(target.id, None)
            elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                base = self._evaluate(target.value)
                if any(isinstance(value, Table) for value in base):
                    self._bind(target.value.id, UNKNOWN)

    def _do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self._evaluate(decorator)
        self._bind(node.name, self._define(node))

    _do_asyncfunctiondef = _do_functiondef

    def _do_classdef(self, node: ast.ClassDef) -> None:
        self._class(node)

    def _do_return(self, node: ast.Return) -> None:
        values = self._evaluate(node.value) if node.value is not None else constant(None)
        if self._scope.kind == "function":
            self._return(self._scope, values)
        self._live = False

    def _do_raise(self, node: ast.Raise) -> None:
        self._children(node)
        self._live = False

    def _do_break(self, node: ast.Break | ast.Continue) -> None:
        del node
        self._live = False

    _do_continue = _do_break

    def _do_import(self, node: ast.Import) -> None:
        for alias in node.names:
            dotted = alias.name if alias.asname else alias.name.split(".")[0]
            self._bind(alias.asname or dotted, self._dotted(dotted))

    def _do_importfrom(self, node: ast.ImportFrom) -> None:
        module = self._absolute(node.level, node.module or "") if node.level else node.module or ""
        for alias in node.names:
            if alias.name == "*":
                self._module.stars.append(module)
                if module not in {"torch", "torch.serialization"}:
                    self._overwritten()
                for name, values in self._exports(module).items():
                    self._bind(name, values)
            else:
                self._bind(alias.asname or alias.name, self._dotted(f"{module}.{alias.name}"))

    def _overwritten(self) -> None:
        """What a name was bound to before ``from module import *`` may be lost."""
        for name, values in list(self._scope.env.items()):
            if any(isinstance(value, (Constant, Table)) for value in values):
                self._bind(name, loose(values) | UNKNOWN)
