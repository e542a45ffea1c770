"""What the names of one file are bound to, scope by scope."""

from __future__ import annotations

import ast
import builtins

from tiergate.loads.containers import changeable, loose
from tiergate.loads.record import Record
from tiergate.loads.scopes import DictionaryUses, Scope, dictionary_uses
from tiergate.loads.values import (
    NOTHING,
    UNKNOWN,
    Display,
    Symbol,
    Table,
    Unknown,
    Value,
    Values,
    bounded,
    either,
    has_load,
    symbol,
)


class Names(Record):
    """Binds and reads names.

    Args:
        module: the outermost scope.
    """

    def __init__(self, module: Scope) -> None:
        super().__init__()
        self._dictionaries_matter = True
        self._scope = module
        self._module = module
        self._changed = False
        self._logs: list[dict[str, set[Value]]] = []
        self._uses: dict[int, DictionaryUses] = {}

    def _forget(self) -> None:
        super()._forget()
        self._relied: set[str] = set()

    def _bind(self, name: str, values: Values) -> None:
        scope = self._scope.elsewhere.get(name, self._scope)
        if scope is not self._scope:
            scope.shared.add(name)
        if values is not UNKNOWN:
            values = self._under_name(values, name, scope)
        scope.env[name] = values
        for log in self._logs:
            log.setdefault(name, set()).update(values)
        known = scope.all.get(name, NOTHING)
        if values is not known and not values <= known:
            scope.all[name] = bounded(either(known, values))
            self._changed |= scope.all[name] != known and name in scope.read

    def _under_name(self, values: Values, name: str, scope: Scope) -> Values:
        """Return what values are once they have a name by which they can be changed."""
        kinds = {type(value) for value in values}
        if Table in kinds and not self._tracked(scope, name):
            values = loose(values)
        if Display in kinds:
            values = frozenset(changeable(value) for value in values)
        if has_load(values):
            self._load_names.add(name)
        return bounded(values)

    def _tracked(self, scope: Scope, name: str) -> bool:
        """Tell whether every change of a dictionary of this name would be seen."""
        if not self._dictionaries_matter:
            return False
        uses = self._uses.get(id(scope.node))
        if uses is None:
            uses = self._uses[id(scope.node)] = dictionary_uses(scope.node)
        if name in uses.escaping:
            return False
        return name not in uses.changed or (scope.kind != "class" and name not in uses.nested)

    def _of_name(self, node: ast.Name) -> Values:
        values = self._read(node.id)
        if node.id == "torch" and any(_may_be_any_module(value) for value in values):
            values |= symbol("torch")
        return self._placed(values, node)

    def _read(self, name: str) -> Values:
        scope: Scope | None = self._scope
        while scope is not None:
            scope = scope.elsewhere.get(name, scope)
            if scope.kind != "class" or scope is self._scope:
                found = self._in_scope(scope, name)
                if found is not None:
                    if scope.parent is None:
                        self._relied.add(name)
                    return found
            scope = scope.parent
        return self._unbound(name)

    def _in_scope(self, scope: Scope, name: str) -> Values | None:
        own = scope.locals or ()
        if scope.running and name not in scope.shared:
            if name in scope.env:
                return scope.env[name]
            if name not in own or scope.kind != "function":
                return None
        elif name not in own and name not in scope.all:
            return None
        scope.read.add(name)
        return scope.all.get(name, UNKNOWN)

    def _unbound(self, name: str) -> Values:
        for star in self._module.stars:
            if star in {"torch", "torch.serialization"} and name in {"load", "serialization"}:
                return symbol(f"{star}.{name}")
        if name == "torch":
            return symbol("torch")
        if hasattr(builtins, name):
            if name in {"True", "False", "None", "__debug__"}:
                return UNKNOWN
            return (
                symbol(f"builtins.{name}")
                if not self._module.stars
                else (symbol(f"builtins.{name}") | UNKNOWN)
            )
        return UNKNOWN


def _may_be_any_module(value: Value) -> bool:
    """Tell whether what is called torch may be it: unknown, or what an unknown function gave."""
    if isinstance(value, Symbol):
        return value.dotted.endswith("()") and value.dotted != "types.SimpleNamespace()"
    return isinstance(value, Unknown)
