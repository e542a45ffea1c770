"""Functions and classes of a file: their scopes, what they are given and what they return."""

from __future__ import annotations

import ast
from collections.abc import Callable

from tiergate.loads.calls import Policy
from tiergate.loads.expressions import Expressions
from tiergate.loads.findings import Place
from tiergate.loads.lines import stands_within
from tiergate.loads.scopes import FunctionNode, Scope, names_of, returns_plainly
from tiergate.loads.values import (
    HOLDER,
    NOTHING,
    UNKNOWN,
    Function,
    Holder,
    Loader,
    Local,
    Partial,
    Table,
    Value,
    Values,
    bounded,
    constant,
    holds_torch,
    is_torch,
    loaders,
    symbol,
)


class Functions(Expressions):
    """Defines functions and classes, and runs their bodies.

    Args:
        module: the outermost scope.
        lookup: what a dotted name of the repository's own modules is, or None.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self, module: Scope, lookup: Callable[[str], Values | None], policy: Policy
    ) -> None:
        super().__init__(module, lookup, policy)
        self._live = True
        self._yields: list[int] = []
        """Lines on which ``yield`` stands."""
        self._functions: dict[int, Function] = {}
        self._scopes: dict[int, Scope] = {}
        self._queue: list[tuple[FunctionNode, Scope]] = []
        self._stored: dict[Place, str] = {}
        self._within_text: dict[int, Place] = {}
        """Functions defined in what eval or exec is given, and where that is."""

    def _define(self, node: FunctionNode) -> Values:
        """Evaluate the defaults now; the body later."""
        function = self._functions.setdefault(id(node), Function(len(self._functions)))
        scope = self._new_scope(node, "function")
        scope.defaults = {}
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        pairs = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)]
        pairs += [
            (parameter, default)
            for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is not None
        ]
        for parameter, default in pairs:
            scope.defaults[parameter.arg] = self._evaluate(default)
        self._queue.append((node, scope))
        if self._at is not None:
            self._within_text[id(node)] = self._at
        return frozenset({function})

    def _new_scope(self, node: FunctionNode | ast.ClassDef, kind: str) -> Scope:
        if id(node) in self._scopes:
            return self._scopes[id(node)]
        scope = self._scopes[id(node)] = Scope(node, kind, self._scope)
        return scope

    def _enter(self, scope: Scope) -> None:
        """Find out, before a scope is run for the first time, which names are its own."""
        if scope.locals is not None:
            return
        # A class sees, like a module, only what it has bound already.
        names, declarations = names_of(scope.node, walrus=self._walrus)
        scope.locals = names if scope.kind == "function" else frozenset()
        for declaration in declarations:
            for name in declaration.names:
                owner = self._owner(scope, name, declaration)
                scope.elsewhere[name] = owner
                self._changed |= name not in owner.shared
                owner.shared.add(name)

    def _owner(self, scope: Scope, name: str, declaration: ast.Global | ast.Nonlocal) -> Scope:
        if isinstance(declaration, ast.Nonlocal):
            outer = scope.parent
            while outer is not None and outer.parent is not None:
                if outer.kind == "function" and name in (outer.locals or ()):
                    return outer
                outer = outer.parent
        return self._module

    def _run_function(self, node: FunctionNode, scope: Scope) -> None:
        self._enter(scope)
        self._at = self._within_text.get(id(node))
        self._scope, self._live = scope, True
        scope.env, scope.running = {}, True
        arguments = node.args
        for parameter in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            values = UNKNOWN | scope.defaults.get(parameter.arg, NOTHING)
            given = getattr(node, "name", "") in self._given_torch
            if given and parameter.arg not in {"self", "cls"}:
                values |= symbol("torch")
            self._bind(parameter.arg, values)
        if arguments.vararg is not None:
            self._bind(arguments.vararg.arg, UNKNOWN)
        if arguments.kwarg is not None:
            self._bind(arguments.kwarg.arg, frozenset({Table((), complete=False)}))
        if isinstance(node, ast.Lambda):
            self._return(scope, self._evaluate(node.body))
        else:
            self._execute(node.body)
            if self._live:
                self._return(scope, constant(None))
        scope.running, self._at = False, None

    def _return(self, scope: Scope, values: Values) -> None:
        node = scope.node
        if scope.plain is None:
            scope.plain = returns_plainly(node, generators=self._may_yield(node))
        if not scope.plain:
            values = frozenset(v for v in values if _may_load(v)) | UNKNOWN
        name = getattr(node, "name", "")
        method = scope.parent is not None and scope.parent.kind == "class"
        if name and method and holds_torch(values):
            self._store_attribute(name, HOLDER)
        if name == "__getattr__" and loaders(values):
            self._store_attribute("load", values)
        number = self._functions[id(node)].number
        known = self._returns.get(number, NOTHING)
        if not values <= known:
            self._returns[number] = bounded(known | values)
            self._changed |= self._returns[number] != known and number in self._asked_returns

    def _may_yield(self, node: ast.AST) -> bool:
        return id(node) in self._within_text or stands_within(self._yields, node)

    def _class(self, node: ast.ClassDef) -> None:
        for expression in (*node.bases, *(k.value for k in node.keywords), *node.decorator_list):
            self._evaluate(expression)
        outer = self._scope
        scope = self._new_scope(node, "class")
        self._enter(scope)
        scope.env, scope.running = {}, True
        self._scope = scope
        self._execute(node.body)
        scope.running = False
        self._scope = outer
        for name, values in scope.all.items():
            self._store_attribute(name, values)
        self._bind(node.name, frozenset({Local()}))

    def _store_attribute(self, name: str, values: Values) -> None:
        """Remember torch.load under an attribute's name, whosever attribute it is."""
        found = frozenset(v for v in values if _may_load(v))
        if not found or (name == "torch" and not loaders(values)):
            return  # an attribute of that name is torch already
        for value in loaders(values):
            function = value.function if isinstance(value, Partial) else value
            self._stored[function.line, function.column] = name
        known = self._attributes.get(name, NOTHING)
        if not found <= known:
            self._attributes[name] = bounded(known | found)
            self._changed = True


def _may_load(value: Value) -> bool:
    """Tell whether a value is torch.load, or something that may have it."""
    return isinstance(value, (Loader, Partial, Holder)) or is_torch(value)
