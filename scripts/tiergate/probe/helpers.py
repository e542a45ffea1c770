"""What tests assert with: is it still what it was before the repository's code ran?"""

from __future__ import annotations

import sys
from operator import is_
from typing import TYPE_CHECKING, Any

from .ownership import code_of
from .versions import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .ownership import Ownership

_LATE = (
    "unittest.case:TestCase",
    "unittest.mock:NonCallableMock",
    "math",
    "numpy.testing",
    "torch.testing",
)
"""Where tests have their assertions from, and what is not loaded yet when a session starts."""
_PLACES = tuple(
    (attribute or module, module, attribute)
    for module, _, attribute in (name.partition(":") for name in ("builtins", "pytest", *_LATE))
)


class Helpers:
    """Remembers what tests assert with.

    Args:
        owned: tells the repository's own code.
    """

    def __init__(self, owned: Ownership) -> None:
        self._owned = owned
        self._seen = {label: _Seen(holder) for label, holder in _holders()}

    def are_same(self) -> bool:
        """Tell whether all of it is what it was at the last look: done before each test."""
        modules, known = sys.modules, self._seen
        for label, module, attribute in _PLACES:
            holder = modules.get(module)
            if holder is not None:
                if attribute:
                    holder = getattr(holder, attribute)
                seen = known.get(label)
                if seen is None or not seen.is_same(holder):
                    return False
        return True

    def replaced(self) -> Iterator[tuple[str, Any]]:
        """Yield what was replaced since the last look: its name, and what stands there now."""
        for label, holder in _holders():
            seen = self._seen.get(label)
            if seen is None:
                # It may have been replaced before: it is known by where it was written.
                seen = self._seen[label] = _Seen(holder)
                suspects = [(n, v) for n, v in seen.items() if self._owned.function(v)]
            else:
                suspects = [
                    (name, value)
                    for name, value in seen.update(holder)
                    if self._owned.function(value) or code_of(value) is None
                ]
            for name, value in suspects:
                if callable(value) and not name.startswith("_"):
                    yield f"{label}.{name}", value


class _Seen:
    """What the names of a module or class are bound to."""

    def __init__(self, holder: Any) -> None:
        # Also of names that were deleted: they may come back bound to something else.
        self._known: dict[str, Any] = {}
        self._names: list[str] = []
        self._values: list[Any] = []
        self._holder: Any = None
        self._version: Callable[[], object] = object
        self._at: object = None
        self.update(holder)

    def is_same(self, holder: Any) -> bool:
        """Tell whether the same names, in the same order, are bound to the very same objects."""
        version = self._version()
        if version == self._at and holder is self._holder:
            return True  # nobody wrote to it
        values = vars(holder)
        same = list(values) == self._names and all(map(is_, values.values(), self._values))
        if same and holder is self._holder:
            self._at = version
        return same

    def items(self) -> list[tuple[str, Any]]:
        """Return the names, and what they are bound to."""
        return list(self._known.items())

    def update(self, holder: Any) -> list[tuple[str, Any]]:
        """Take over what there is now; return which of the known names are bound anew."""
        self._holder = holder
        self._version = version_of(holder)
        self._at = self._version()  # first: what is written meanwhile makes it another one
        now, known = dict(vars(holder)), self._known
        anew = [(n, v) for n, v in now.items() if n in known and known[n] is not v]
        known.update(now)
        self._names, self._values = list(now), list(now.values())
        return anew


def _holders() -> Iterator[tuple[str, Any]]:
    """Yield what has those functions, as far as it is loaded."""
    modules = sys.modules
    for label, module, attribute in _PLACES:
        holder = modules.get(module)
        if holder is not None:
            yield label, getattr(holder, attribute) if attribute else holder
