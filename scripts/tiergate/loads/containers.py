"""What is read from tuples, lists and dictionaries as values, and put together from them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from tiergate.loads.values import (
    HOLDER,
    NOTHING,
    UNKNOWN,
    Constant,
    Display,
    Holder,
    Table,
    Value,
    Values,
    constants,
    is_torch,
)


def unpacked(values: Values, targets: Sequence[ast.expr]) -> list[Values]:
    """Return what each target of an unpacking gets."""
    parts = [NOTHING for _ in targets]
    starred = any(isinstance(target, ast.Starred) for target in targets)
    for value in values:
        fits = isinstance(value, Display) and len(value.items) == len(targets) and not starred
        for index in range(len(targets)):
            if fits:
                assert isinstance(value, Display)
                parts[index] |= value.items[index]
            elif isinstance(value, Display):
                parts[index] |= union(value.items) | UNKNOWN
            elif isinstance(value, Holder):
                parts[index] |= HOLDER
            else:
                parts[index] |= UNKNOWN
    return parts


def merged(table: Table, more: Table) -> Table:
    """Return ``{**table, **more}``."""
    if not more.complete:
        table = Table(tuple((k, v | UNKNOWN) for k, v in table.items), False)
    for key, values in more.items:
        table = table.updated(key, values)
    return Table(table.items, table.complete and more.complete)


def union(parts: Iterable[Values]) -> Values:
    """Return what is in any of the parts."""
    found: Values = NOTHING
    for part in parts:
        found |= part
    return found


def loose(values: Values) -> Values:
    """Return the same without dictionaries: under another name each could be changed unseen."""
    found = values
    for value in values:
        if isinstance(value, Table):
            modules = frozenset(v for _, item in value.items for v in item if is_torch(v))
            found = (found - {value}) | UNKNOWN
            found |= frozenset({Display((modules,))}) if modules else NOTHING
    return found


def changeable(value: Value) -> Value:
    """Return a list that has a name with flags that may become anything."""
    if isinstance(value, Display) and value.mutable:
        return Display(
            tuple(items if constants(items, str) else items | UNKNOWN for items in value.items)
        )
    return value


def only(values: Values) -> object:
    """Return the constant that it must be; None (as for None itself) where there is none."""
    if len(values) == 1:
        (value,) = values
        if isinstance(value, Constant):
            return value.value
    return None


def only_table(values: Values) -> Table | None:
    """Return the dictionary that it must be."""
    if len(values) == 1:
        (value,) = values
        if isinstance(value, Table):
            return value
    return None


def only_display(values: Values) -> tuple[Values, ...] | None:
    """Return the elements of the tuple or list that it must be."""
    if len(values) == 1:
        (value,) = values
        if isinstance(value, Display):
            return value.items
    return None
