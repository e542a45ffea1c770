"""What attributes and items of values may be."""

from __future__ import annotations

import ast
from collections.abc import Callable

from tiergate.loads import folding
from tiergate.loads.calls import Policy
from tiergate.loads.findings import Finding
from tiergate.loads.judging import Judging
from tiergate.loads.scopes import Scope
from tiergate.loads.values import (
    HOLDER,
    NOTHING,
    UNKNOWN,
    Constant,
    Display,
    Holder,
    Loader,
    Partial,
    Symbol,
    Table,
    Unknown,
    Values,
    bounded,
    either,
    has_load,
    symbol,
)

_NAMESPACES = frozenset({"builtins.globals()", "builtins.locals()", "builtins.vars()"})
# What a function, or a partial of one, is made of: to reach for it is not only to look.
_INSIDE = frozenset(
    {
        "__call__", "__code__", "__defaults__", "__dict__", "__get__", "__globals__",
        "__kwdefaults__", "__reduce__", "__setstate__", "__wrapped__", "args", "func", "keywords",
    }
)  # fmt: skip


class Members(Judging):
    """Looks up members of values, of modules also in other files.

    Args:
        module: the outermost scope.
        lookup: what a dotted name of the repository's own modules is, or None.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self, module: Scope, lookup: Callable[[str], Values | None], policy: Policy
    ) -> None:
        super().__init__(module, policy)
        self._lookup = lookup
        self._attributes: dict[str, Values] = {}

    def _member(self, base: Values, name: str) -> Values:
        if base is UNKNOWN and name != "torch":
            return either(UNKNOWN, self._attributes.get(name, NOTHING))
        found = NOTHING
        for value in base:
            if isinstance(value, Symbol):
                found = either(found, self._dotted(f"{value.dotted}.{name}"))
                if value.dotted.endswith("()"):
                    found |= self._attributes.get(name, NOTHING)
            elif isinstance(value, (Loader, Partial)):
                found |= self._inside(value, name)
            elif isinstance(value, Constant):
                found |= UNKNOWN
            elif isinstance(value, Holder):
                inside = symbol(f"torch.{name}")
                found |= inside if has_load(inside) else HOLDER
            else:
                found |= self._attributes.get(name, NOTHING) | UNKNOWN
                if name == "torch" and isinstance(value, Unknown):
                    found |= symbol("torch")
        return found or UNKNOWN

    def _inside(self, value: Loader | Partial, name: str) -> Values:
        """Return an attribute of torch.load, or of a partial of it."""
        if name == "__call__":
            return frozenset({value})
        if name == "func" and isinstance(value, Partial):
            return frozenset({value.function})
        if name not in _INSIDE:
            self._looked_at([frozenset({value})])
        elif isinstance(value, Partial):
            place = (value.function.line, value.function.column)
            self._bad.add(place)
            self._findings.setdefault(
                place,
                Finding(
                    place,
                    "unproven",
                    f"what this partial has fixed may be changed through its {name!r}; write "
                    "weights_only=True at the call",
                ),
            )
        return UNKNOWN

    def _dotted(self, dotted: str) -> Values:
        if dotted.startswith("torch."):
            return symbol(dotted)
        own = self._lookup(dotted)
        return own if own is not None else symbol(dotted)

    def _item(self, base: Values, key: object) -> Values:
        found = NOTHING
        for value in base:
            if isinstance(value, Display) and isinstance(key, int):
                within = -len(value.items) <= key < len(value.items)
                found |= value.items[key] if within else UNKNOWN
            elif isinstance(value, Display):
                found |= self._elements(frozenset({value})) | UNKNOWN
            elif isinstance(value, Table) and isinstance(key, str):
                found |= dict(value.items).get(key, UNKNOWN)
            elif isinstance(value, Symbol) and isinstance(key, str):
                if value.dotted in _NAMESPACES:
                    found |= self._read(key)
                elif value.dotted == "sys.modules" or value.dotted.endswith(".__globals__"):
                    found |= symbol(key)
                elif value.dotted.endswith(".__dict__"):
                    found |= self._dotted(f"{value.dotted.removesuffix('.__dict__')}.{key}")
                else:
                    found |= UNKNOWN
            elif isinstance(value, Constant) and key is not None:
                found |= folding.subscript(frozenset({value}), key) or UNKNOWN
            elif isinstance(value, Holder):
                found |= HOLDER
            else:
                found |= UNKNOWN
        return found or UNKNOWN

    def _any_of_torch(self, node: ast.expr) -> Values:
        """Return what may be any of torch's functions, torch.load among them."""
        return frozenset({Loader(node.lineno, node.col_offset, sure=False)})

    def _elements(self, values: Values) -> Values:
        """Return what iterating gives."""
        found = NOTHING
        for value in values:
            if isinstance(value, Display):
                for item in value.items:
                    found |= item
            elif isinstance(value, Holder):
                found |= HOLDER
            else:
                found |= UNKNOWN
        return bounded(found or UNKNOWN)


def is_namespace(dotted: str) -> bool:
    """Tell whether a name stands for a dictionary of names."""
    return dotted in _NAMESPACES or dotted == "sys.modules" or dotted.endswith(".__dict__")
