"""What an expression may be, as far as it matters for ``torch.load``: sets of abstract values."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec

LOAD = "torch.load"

_MOST = 12
_MODULES = ("torch", "torch.serialization")
_SAME = {
    "torch.serialization.load": LOAD,
    "torch.load.__call__": LOAD,
    "torch.serialization._load": "torch.serialization._load",
}
# Modules of that name with a ``load`` of their own.
_OF_ITS_OWN = frozenset({"safetensors.torch", "smdistributed.modelparallel.torch"})
# The last two are private, and pickle all the same.
_LOADS = frozenset({LOAD, "torch.serialization._load", "torch.serialization._legacy_load"})


class Unknown(msgspec.Struct, frozen=True):
    """Anything."""


class Constant(msgspec.Struct, frozen=True):
    """A value of a built-in immutable type; the kind keeps ``True`` and ``1`` apart."""

    kind: str
    value: object


class Symbol(msgspec.Struct, frozen=True):
    """What can be imported under this name, a module or something in one; ``f()`` if called."""

    dotted: str


class Loader(msgspec.Struct, frozen=True):
    """``torch.load`` itself, with the place where it was named."""

    line: int
    column: int
    sure: bool = True
    """False where a computed attribute of ``torch`` may be anything."""
    never_safe: bool = False


class Partial(msgspec.Struct, frozen=True):
    """``functools.partial`` of a loader, and what it has fixed."""

    function: Loader
    positional: int
    keywords: tuple[tuple[str, Values], ...]
    complete: bool
    """False where a ``**mapping`` or ``*sequence`` that is not known was given."""


class Display(msgspec.Struct, frozen=True):
    """A tuple or a list as it is written."""

    items: tuple[Values, ...]
    mutable: bool = False


class Table(msgspec.Struct, frozen=True):
    """A dictionary of which every change is seen."""

    items: tuple[tuple[str, Values], ...]
    complete: bool = True
    """False where it may have more keys, as ``**kwargs`` has."""

    def updated(self, key: str, values: Values) -> Table:
        """Return the table after ``table[key] = …``."""
        return Table(
            tuple(sorted({**dict(self.items), key: values}.items(), key=_key)), self.complete
        )

    def without(self, key: str) -> Table:
        """Return the table after ``del table[key]``."""
        return Table(tuple((k, v) for k, v in self.items if k != key), self.complete)


class Getter(msgspec.Struct, frozen=True):
    """``operator.attrgetter``, ``methodcaller`` or ``itemgetter`` of a known name."""

    name: str
    call: bool = False
    item: bool = False


class Function(msgspec.Struct, frozen=True):
    """A function or lambda of the file, by its number."""

    number: int


class Local(msgspec.Struct, frozen=True):
    """A class of the file, or an instance of one: certainly not torch."""


class Holder(msgspec.Struct, frozen=True):
    """What torch was given to, and is not followed: torch itself perhaps, or something with it."""


Value = (
    Unknown
    | Constant
    | Symbol
    | Loader
    | Partial
    | Display
    | Table
    | Getter
    | Function
    | Local
    | Holder
)
Values = frozenset[Value]

UNKNOWN: Values = frozenset({Unknown()})
NOTHING: Values = frozenset()
HOLDER: Values = frozenset({Unknown(), Holder()})


def _key(item: tuple[str, Values]) -> str:
    return item[0]


# The same few names and constants come again and again: a set is made, and hashed, once.
@lru_cache(maxsize=4096, typed=True)
def constant(value: object) -> Values:
    """Return the set of one constant."""
    return frozenset({Constant(type(value).__name__, value)})


@lru_cache(maxsize=16384)
def symbol(dotted: str) -> Values:
    """Return the set of one importable thing, under its usual name."""
    if passes_torch_on(dotted):
        dotted = "torch"
    return frozenset({Symbol(_SAME.get(dotted, dotted))})


def passes_torch_on(dotted: str) -> bool:
    """Tell whether a package's ``torch`` may be torch itself, as in ``backend.torch``."""
    return dotted.endswith(".torch") and dotted not in _OF_ITS_OWN


def either(one: Values, other: Values) -> Values:
    """Return the union, and no new set where one of both has it all."""
    if one is other or not other:
        return one
    return one | other if one else other


def is_torch(value: Value) -> bool:
    """Tell whether a value is the module torch, or the one in which ``load`` is defined."""
    return type(value) is Symbol and value.dotted in _MODULES


def has_torch(values: Values) -> bool:
    """Tell whether one of the values is the module torch."""
    for value in values:  # noqa: SIM110 - asked of every argument: a generator costs twice as much
        if type(value) is Symbol and value.dotted in _MODULES:
            return True
    return False


def holds_torch(values: Values) -> bool:
    """Tell whether one of the values is the module torch, or has it in it."""
    for value in values:
        kind = type(value)
        if kind is Symbol:
            if value.dotted in _MODULES:  # type: ignore[union-attr]
                return True
        elif (
            kind is Holder
            or (isinstance(value, Display) and any(map(holds_torch, value.items)))
            or (isinstance(value, Table) and any(holds_torch(item) for _, item in value.items))
        ):
            return True
    return False


def is_load(value: Value) -> bool:
    """Tell whether a value is torch.load, or one of the functions behind it, without a place."""
    return type(value) is Symbol and value.dotted in _LOADS


def has_load(values: Values) -> bool:
    """Tell whether one of the values is torch.load without a place."""
    for value in values:  # noqa: SIM110 - asked of every name: a generator costs twice as much
        if type(value) is Symbol and value.dotted in _LOADS:
            return True
    return False


def loaders(values: Values) -> list[Loader | Partial]:
    """Return what among the values loads."""
    if values is UNKNOWN:
        return []
    return [value for value in values if type(value) is Loader or type(value) is Partial]


def exported(values: Iterable[Value]) -> Values:
    """Return what matters of a module's value to a module that imports it."""
    found: set[Value] = set()
    for value in values:
        if isinstance(value, Loader):
            found.add(Symbol("torch.serialization._load" if value.never_safe else LOAD))
        elif isinstance(value, Holder):
            found.add(Symbol("torch"))
        elif isinstance(value, Partial) or is_load(value) or is_torch(value):
            found.add(value)
    return frozenset(found)


def bounded(values: Values) -> Values:
    """Return the same or, where there are too many, what must not be lost and anything."""
    if len(values) <= _MOST:
        return values
    kept = frozenset(v for v in values if isinstance(v, (Loader, Partial, Symbol, Holder)))
    return (kept if len(kept) <= 4 * _MOST else frozenset(loaders(kept))) | UNKNOWN


def constants(values: Values, *kinds: type) -> list[object] | None:
    """Return the values as Python objects, or None where one is no constant of these types."""
    names = {kind.__name__ for kind in kinds}
    found = []
    for value in values:
        if not isinstance(value, Constant) or value.kind not in names:
            return None
        found.append(value.value)
    return found or None
