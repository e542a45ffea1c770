"""The pickles that stand one after another in a stream, and what is known of what they import.

The allow-list comes first: what ``weights_only=True`` would load is harmless. Of the rest
picklescan says which imports are known to be dangerous.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import IO

from tiergate.models import allowed, machine
from tiergate.models.machine import Pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file that torch wrote before 1.6."""

_LEGACY_PICKLES = 5
_MOST_PICKLES = 100_000


@dataclass
class Stream:
    """The pickles that stand one after another."""

    pickles: list[Pickle] = field(default_factory=list)
    problem: str = ""
    """Why it could not be read to its end."""

    @property
    def imports(self) -> set[str]:
        """What all of them import."""
        return set[str]().union(*(pickle.imports for pickle in self.pickles))

    @property
    def loads_weights_only(self) -> bool:
        """Whether ``weights_only=True`` would take all of them."""
        return all(
            pickle.opcodes <= allowed.OPCODES and pickle.imports <= allowed.GLOBALS
            for pickle in self.pickles
        )

    @property
    def whole(self) -> bool:
        """Whether the first of them has an end."""
        return bool(self.pickles) and self.pickles[0].complete

    @property
    def evident(self) -> bool:
        """Whether these can only be pickles, whatever the file is called."""
        return any(
            (pickle.calls and pickle.imports)
            or (pickle.complete and (pickle.imports or "PROTO" in pickle.opcodes))
            for pickle in self.pickles
        )


def read(stream: IO[bytes]) -> Stream:
    """Read all pickles of a stream; in torch's old format, raw tensors follow the fifth."""
    found = Stream()
    while len(found.pickles) < _MOST_PICKLES:
        try:
            pickle, problem = machine.run(stream)
        except EOFError:
            return found
        legacy = len(found.pickles) >= _LEGACY_PICKLES and found.pickles[0].number == LEGACY_MAGIC
        if not problem:
            found.pickles.append(pickle)
        elif legacy and not pickle.imports:
            return found
        elif found.pickles and not pickle.imports:
            found.problem = f"bytes behind the end of a pickle: {problem}"
            return found
        else:
            found.pickles.append(pickle)
            found.problem = problem
            return found
    found.problem = f"more than {_MOST_PICKLES} pickles"
    return found


def dangerous(imports: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return those imports that are known to be dangerous, and those known to be harmless."""
    harmless = {name for name in imports if name in allowed.GLOBALS | allowed.HARMLESS}
    bad = {name for name in set(imports) - harmless if _is_dangerous(name)}
    return bad, harmless


@cache
def _is_dangerous(name: str) -> bool:
    """Ask picklescan, by a pickle that does nothing but import this."""
    # Imported only where a pickle is not plain weights; it has no types.
    from picklescan import scanner  # type: ignore[import-untyped]  # noqa: PLC0415

    if name == machine.UNKNOWN or "\n" in name or not name.isprintable():
        return False
    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    parts = name.split(".")
    for at in range(1, len(parts)):
        # Where the module ends and a dotted name begins is not known: any of both may be meant.
        module, attribute = ".".join(parts[:at]), ".".join(parts[at:])
        pickle = io.BytesIO(f"c{module}\n{attribute}\n.".encode())
        result = scanner.scan_pickle_bytes(pickle, "")
        if any(found.safety is scanner.SafetyLevel.Dangerous for found in result.globals):
            return True
    return False


def shown(names: Iterable[str]) -> str:
    """Return names for a message, shortened."""
    known = sorted(names)
    more = f", and {len(known) - 8} more" if len(known) > 8 else ""
    return ", ".join(name[:80] for name in known[:8]) + more
