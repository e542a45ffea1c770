"""What tests assert with: is it still what it was before the repository's code ran?"""

from __future__ import annotations

import sys
from operator import is_
from typing import TYPE_CHECKING, Any

from .ownership import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        self._seen = {label: _Seen(values) for label, values in _holders()}

    def are_same(self) -> bool:
        """Tell whether all of it is what it was at the last look: done before each test."""
        modules, known = sys.modules, self._seen
        for label, module, attribute in _PLACES:
            holder = modules.get(module)
            if holder is not None:
                values = vars(getattr(holder, attribute) if attribute else holder)
                seen = known.get(label)
                # The same names, in the same order, are bound to the very same objects.
                if (
                    seen is None
                    or list(values) != seen.names
                    or not all(map(is_, values.values(), seen.values))
                ):
                    return False
        return True

    def replaced(self) -> Iterator[tuple[str, Any]]:
        """Yield what was replaced since the last look: its name, and what stands there now."""
        for label, values in _holders():
            seen = self._seen.get(label)
            if seen is None:
                # It may have been replaced before: it is known by where it was written.
                self._seen[label] = _Seen(values)
                suspects = [(n, v) for n, v in list(values.items()) if self._owned.function(v)]
            else:
                suspects = [
                    (name, value)
                    for name, value in seen.update(values)
                    if self._owned.function(value) or code_of(value) is None
                ]
            for name, value in suspects:
                if callable(value) and not name.startswith("_"):
                    yield f"{label}.{name}", value


class _Seen:
    """What the names of a module or class are bound to."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.names = list(values)
        self.values = list(values.values())
        # Also of names that were deleted: they may come back bound to something else.
        self._known = dict(values)

    def update(self, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Take over what there is now; return which of the known names are bound anew."""
        now, known = dict(values), self._known
        anew = [(n, v) for n, v in now.items() if n in known and known[n] is not v]
        known.update(now)
        self.names, self.values = list(now), list(now.values())
        return anew


def _holders() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the holders of those functions have, as far as they are loaded."""
    modules = sys.modules
    for label, module, attribute in _PLACES:
        holder = modules.get(module)
        if holder is not None and attribute:
            holder = getattr(holder, attribute)
        if holder is not None:
            yield label, vars(holder)
