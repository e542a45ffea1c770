"""What a call may give, and what is to be said of it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from tiergate.loads import folding
from tiergate.loads.arguments import Given
from tiergate.loads.calls import Policy
from tiergate.loads.containers import merged, only, only_table
from tiergate.loads.library import FOLLOWING_FIRST, Library
from tiergate.loads.scopes import Scope
from tiergate.loads.values import (
    HOLDER,
    NOTHING,
    UNKNOWN,
    Constant,
    Display,
    Function,
    Getter,
    Holder,
    Loader,
    Local,
    Partial,
    Symbol,
    Table,
    Unknown,
    Value,
    Values,
    bounded,
    constant,
    constants,
    either,
    has_torch,
    holds_torch,
)


class Calling(Library):
    """Evaluates calls.

    Args:
        module: the outermost scope.
        lookup: what a dotted name of the repository's own modules is, or None.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self, module: Scope, lookup: Callable[[str], Values | None], policy: Policy
    ) -> None:
        super().__init__(module, lookup, policy)
        self._returns: dict[int, Values] = {}
        self._asked_returns: set[int] = set()
        self._given_torch: set[str] = set()
        """Names of functions that are called with torch itself."""

    def _of_call(self, node: ast.Call) -> Values:
        functions, base = self._called(node.func)
        first_held = any(
            value.dotted in FOLLOWING_FIRST if type(value) is Symbol else type(value) is Getter
            for value in functions
        )
        outer, self._relied = self._relied, set()
        arguments = [
            self._evaluate(a, held=first_held and index == 0) for index, a in enumerate(node.args)
        ]
        keywords = [(k.arg, self._evaluate(k.value)) for k in node.keywords]
        for name, values in keywords:
            if name is not None and has_torch(values):
                self._store_attribute(name, values)
        relied = self._relied
        outer |= relied
        self._relied = outer
        given = Given(node, arguments, keywords)
        self._pass_modules(node.func, (*arguments, *(values for _, values in keywords)))
        found = NOTHING
        for value in functions:
            if isinstance(value, (Loader, Partial)):
                self._judge(value, node, given.arguments(), relied)
                found |= UNKNOWN
            elif isinstance(value, Symbol):
                found = either(found, self._call_symbol(value.dotted, given, relied))
            elif isinstance(value, Function):
                self._asked_returns.add(value.number)
                found |= self._returns.get(value.number, UNKNOWN)
            elif isinstance(value, Getter) and arguments:
                found |= self._call_getter(value, given, relied)
            elif isinstance(value, Local):
                found |= frozenset({Local()})
            elif isinstance(value, Holder):
                found = either(HOLDER, found)
            else:
                found = either(UNKNOWN, found)
        if base is not None and functions == UNKNOWN:
            found = self._call_method(node.func, base, given) or found
        if self._may_give_back(found) and (
            any(map(holds_torch, (*arguments, *(values for _, values in keywords))))
            or (base is not None and not has_torch(base) and holds_torch(base))
        ):
            found |= HOLDER
        return self._placed(found or UNKNOWN, node)

    def _called(self, function: ast.expr) -> tuple[Values, Values | None]:
        """Return what is called and, where it is an attribute, whose."""
        if not isinstance(function, ast.Attribute):
            return self._evaluate(function, held=True), None
        base = self._evaluate(function.value, held=True)
        return bounded(self._placed(self._member(base, function.attr), function)), base

    @staticmethod
    def _may_give_back(values: Values) -> bool:
        """Tell whether what a call gives is not known: it may be what it was given."""
        return not values or any(
            type(value) is Unknown or (type(value) is Symbol and value.dotted.endswith("()"))
            for value in values
        )

    def _pass_modules(self, function: ast.expr, given: Sequence[Values]) -> None:
        """Remember that functions of this name are given torch itself."""
        if any(map(has_torch, given)):
            name = getattr(function, "attr", getattr(function, "id", ""))
            self._changed |= name not in self._given_torch
            self._given_torch.add(name)

    def _call_method(self, function: ast.expr, base: Values, given: Given) -> Values | None:
        assert isinstance(function, ast.Attribute)
        if isinstance(function.value, ast.Name):
            base = self._evaluate(function.value, held=True)  # the arguments may have changed it
        if function.attr in {"setdefault", "update", "pop"} and isinstance(
            function.value, ast.Name
        ):
            self._change_table(function.value.id, function.attr, base, given)
            return None
        arguments: list[object] = []
        for values in given.values:
            (value,) = values if len(values) == 1 else (None,)
            if isinstance(value, Display):
                items = [only(item) for item in value.items]
                arguments.append(items)
            elif isinstance(value, Constant):
                arguments.append(value.value)
            else:
                return None
        if function.attr == "get" and arguments and isinstance(arguments[0], str):
            table = only_table(base)
            if table is not None and arguments[0] in dict(table.items):
                return dict(table.items)[arguments[0]]
            return None
        if function.attr == "split" and constants(base, str):
            text, separator = str(only(base)), arguments[0] if arguments else None
            if separator is None or (isinstance(separator, str) and separator):
                parts = text.split(separator)
                return frozenset({Display(tuple(constant(part) for part in parts))})
        return folding.method(function.attr, base, arguments)

    def _change_table(self, name: str, method: str, base: Values, given: Given) -> None:
        tables = [value for value in base if isinstance(value, Table)]
        if not tables:
            return
        changed: set[Value] = {value for value in base if not isinstance(value, Table)}
        for table in tables:
            key = only(given.first)
            new: Value = Unknown()
            if method == "update":
                more = given.table(given.values)
                new = next((merged(table, m) for m in more if isinstance(m, Table)), Unknown())
            elif isinstance(key, str) and method == "pop":
                new = table.without(key)
            elif isinstance(key, str) and len(given.values) == 2:
                held = dict(table.items).get(key)
                value = given.values[1]
                if held is None:
                    held = value if table.complete else value | UNKNOWN
                new = table.updated(key, held)
            changed.add(new)
        self._bind(name, frozenset(changed))
