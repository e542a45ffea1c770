"""What a pickle imports, read from its opcodes; nothing is unpickled.

The allow-list comes first: what ``weights_only=True`` would load is harmless. Of the rest
picklescan says which imports are known to be dangerous.
"""

from __future__ import annotations

import logging
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO

from tiergate.models import allowed

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file that torch wrote before 1.6."""

_LEGACY_PICKLES = 5
_MOST_OPCODES = 20_000_000
_RECENT = 8
_TEXT_IMPORT = re.compile(rb"[ci][A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n")
_TEXT_STARTS = (b"(", b"c", b"]", b"}", b"V", b"S", b"I", b"F", b"L", b")")


@dataclass
class Pickle:
    """One pickle of a stream."""

    imports: set[str] = field(default_factory=set)
    """``module.name``; ``?`` for what is computed on the stack."""
    opcodes: set[str] = field(default_factory=set)
    number: int | None = None
    """Where it is nothing but a number, as torch's magic is."""
    complete: bool = False

    @property
    def loads_weights_only(self) -> bool:
        """Whether ``weights_only=True`` would take it."""
        return self.opcodes <= allowed.OPCODES and self.imports <= allowed.GLOBALS


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


def looks_like_pickle(start: bytes) -> bool:
    """Tell whether a file begins as a pickle does: protocol 2 and later, or an import as text."""
    if len(start) > 1 and start[0] == 0x80 and start[1] <= 5:
        return True
    return start.startswith(_TEXT_STARTS) and _TEXT_IMPORT.search(start) is not None


def read(stream: IO[bytes]) -> Stream:
    """Read all pickles of a stream, or the five of torch's old format and not what follows them."""
    found = Stream()
    while True:
        at = stream.tell()
        if not stream.read(1):
            break
        stream.seek(at)
        pickle = Pickle()
        found.pickles.append(pickle)
        problem = _read_one(stream, pickle)
        if problem:
            if len(found.pickles) > 1 and not pickle.opcodes:
                found.pickles.pop()
                problem = f"{problem} (after the end of a pickle)"
            found.problem = problem
            break
        if found.pickles[0].number == LEGACY_MAGIC and len(found.pickles) == _LEGACY_PICKLES:
            break
    return found


def _read_one(stream: IO[bytes], pickle: Pickle) -> str:
    strings: list[str] = []
    numbers: list[int] = []
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > _MOST_OPCODES:
                return "more opcodes than are read"
            pickle.opcodes.add(opcode.name)
            if isinstance(argument, str) and opcode.name not in {"GLOBAL", "INST", "PERSID"}:
                strings.append(argument)
                del strings[:-_RECENT]
            elif isinstance(argument, int):
                numbers.append(argument)
                del numbers[:-2]
            if opcode.name in {"GLOBAL", "INST"}:
                module, _, name = str(argument).partition(" ")
                pickle.imports.add(_named(module, name))
            elif opcode.name == "STACK_GLOBAL":
                # What is on the stack is only known by running it: any two strings may be meant.
                pickle.imports.add(_named(strings[-2], strings[-1]) if len(strings) >= 2 else "?")
            elif opcode.name in {"EXT1", "EXT2", "EXT4"}:
                pickle.imports.add(f"copyreg extension {argument}")
    except (ValueError, UnicodeDecodeError, EOFError, OverflowError, IndexError, MemoryError) as e:
        return f"{type(e).__name__}: {str(e)[:120]}"
    except OSError as error:
        return f"cannot be read: {str(error)[:120]}"
    pickle.complete = True
    if pickle.opcodes <= {"PROTO", "LONG1", "LONG", "INT", "BININT", "BININT1", "BININT2", "STOP"}:
        pickle.number = next((n for n in reversed(numbers) if n > 5), None)
    return ""


def _named(module: str, name: str) -> str:
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def dangerous(stream: IO[bytes]) -> tuple[set[str], set[str]]:
    """Ask picklescan: return the imports that it knows to be dangerous, and the harmless ones."""
    # Imported only where a pickle is not plain weights; it has no types.
    from picklescan import scanner  # type: ignore[import-untyped]  # noqa: PLC0415

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    try:
        result = scanner.scan_pickle_bytes(stream, "", strict=False)
    except (ValueError, TypeError, IndexError, OSError, EOFError, MemoryError) as error:
        return {f"? (picklescan: {type(error).__name__}: {error})"}, set()
    by_level: dict[object, set[str]] = {}
    for found in result.globals:
        by_level.setdefault(found.safety, set()).add(_named(found.module, found.name))
    level = scanner.SafetyLevel
    return by_level.get(level.Dangerous, set()), by_level.get(level.Innocuous, set())


def shown(names: Iterable[str]) -> str:
    """Return names for a message, shortened."""
    known = sorted(names)
    more = f", and {len(known) - 8} more" if len(known) > 8 else ""
    return ", ".join(name[:80] for name in known[:8]) + more
