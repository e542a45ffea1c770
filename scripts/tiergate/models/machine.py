"""Runs a pickle's opcodes on a stack of placeholders: what it imports and calls, and nothing else.

Nothing is imported, built or called. Where Python's unpickler would stop with an error this one may
go on, never the other way round: what it did not see cannot have been run before.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from tiergate.models.streams import DamagedError

MOST_OPCODES = 10_000_000
UNKNOWN = "?"
"""An import whose name is not known before the pickle runs."""

_NEWEST_PROTOCOL = 5
_KEPT = 1024
_CHUNK = 1 << 16
_OTHER = object()
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


class Import(NamedTuple):
    """Something that a pickle imports, where it lies on the stack."""

    name: str


class MalformedError(ValueError):
    """These bytes are no pickle from here on."""


@dataclass
class Pickle:
    """What one pickle does."""

    imports: set[str] = field(default_factory=set)
    """``module.name``; ``?`` for what is computed while it runs."""
    opcodes: set[str] = field(default_factory=set)
    calls: int = 0
    """How often it calls something, or sets an object's state."""
    number: int | None = None
    """What it holds, where that is a number."""
    complete: bool = False
    """Whether it was read to its end."""


def run(stream: IO[bytes]) -> tuple[Pickle, str]:
    """Read one pickle; the stream is left behind it.

    Returns:
        What it does, and why it could not be read to its end, or an empty string.

    Raises:
        EOFError: the stream has ended before it.
    """
    machine = _Machine(stream)
    problem = ""
    try:
        machine.run()
    except (ValueError, OverflowError, DamagedError) as error:
        problem = str(error)[:120]
    machine.pickle.opcodes = {_NAMES[code] for code in range(256) if machine.seen[code]}
    return machine.pickle, problem


def named(module: str, name: str) -> str:
    """Return one name for an import, whichever Python wrote it."""
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


class _Machine:
    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.pickle = Pickle()
        self.seen = bytearray(256)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """The stacks under each mark."""
        self.memo: dict[int, Any] = {}
        self.filled = 0
        """The memo's entries 0 to this are set; those of no interest are not kept."""
        self.further: set[int] = set()

    def run(self) -> None:
        read, seen, work = self.stream.read, self.seen, _WORK
        for count in range(MOST_OPCODES):
            code = read(1)
            if not code:
                if not count:
                    raise EOFError
                raise MalformedError("ends before its end")
            number = code[0]
            act = work[number]
            if act is None:
                raise MalformedError(f"byte {number:#04x} is no opcode")
            seen[number] = 1
            if number == _STOP:
                value = self.pop()
                self.pickle.number = value if isinstance(value, int) else None
                self.pickle.complete = True
                return
            act(self)
        raise MalformedError(f"more than {MOST_OPCODES} opcodes")

    def pop(self) -> Any:
        if not self.stack:
            raise MalformedError("takes something from an empty stack")
        return self.stack.pop()

    def push(self, value: Any = _OTHER) -> None:
        self.stack.append(value)

    def exactly(self, count: int) -> bytes:
        data = self.stream.read(count)
        if len(data) != count:
            raise MalformedError("ends before its end")
        return data

    def integer(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.exactly(count), "little", signed=signed)

    def skip(self, count: int) -> None:
        if count > _CHUNK and self.stream.seekable():
            try:
                self.stream.seek(count - 1, 1)
            except OSError:
                raise MalformedError("ends far before its end") from None
            self.exactly(1)
            return
        while count:
            count -= len(self.exactly(min(count, _CHUNK)))

    def line(self) -> bytes | None:
        """Return a line without its end; None for one that is too long to be a name."""
        kept = self.stream.readline(_CHUNK)
        data, whole = kept, True
        while data and not data.endswith(b"\n"):
            data, whole = self.stream.readline(_CHUNK), False
        if not data:
            raise MalformedError("ends within a line")
        return kept[:-1] if whole else None

    def text(self, count: int) -> None:
        """Push a string of so many bytes."""
        if count > _KEPT:
            self.skip(count)
            self.push()
        else:
            self.push(self.exactly(count).decode("utf-8", "surrogatepass"))

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise MalformedError("needs a mark, and there is none")
        items, self.stack = self.stack, self.below.pop()
        return items

    def imported(self, module: Any, name: Any) -> None:
        known = isinstance(module, str) and isinstance(name, str)
        found = named(module, name) if known else UNKNOWN
        self.pickle.imports.add(found)
        self.push(Import(found))

    def called(self) -> None:
        self.pickle.calls += 1
        self.push()

    def put(self, at: int | None) -> None:
        if not self.stack:
            raise MalformedError("keeps something from an empty stack")
        value = self.stack[-1]
        if at is None:
            at = self.filled + len(self.further)
        if at == self.filled:
            self.filled += 1
            while self.filled in self.further:
                self.further.remove(self.filled)
                self.filled += 1
        elif at > self.filled:
            self.further.add(at)
        if value is _OTHER:
            self.memo.pop(at, None)
        else:
            self.memo[at] = value

    def get(self, at: int) -> None:
        self.push(self.memo.get(at, _OTHER))


_Act = Callable[[_Machine], object]


def _mark(machine: _Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _duplicate(machine: _Machine) -> None:
    machine.push(machine.pop())
    machine.push(machine.stack[-1])


def _replace(taken: int, *, call: bool = False) -> _Act:
    """Take values from the stack and put one there."""

    def act(machine: _Machine) -> None:
        for _ in range(taken):
            machine.pop()
        machine.called() if call else machine.push()

    return act


def _drop(taken: int, *, call: bool = False) -> _Act:
    """Take values from the stack, and change the one below them."""

    def act(machine: _Machine) -> None:
        for _ in range(taken):
            machine.pop()
        machine.push(machine.pop())
        machine.pickle.calls += call or isinstance(machine.stack[-1], Import)

    return act


def _drop_to_mark(machine: _Machine) -> None:
    machine.pop_mark()
    # To put items into what was imported, as into os.environ, is as good as a call.
    machine.pickle.calls += bool(machine.stack) and isinstance(machine.stack[-1], Import)


def _pop_mark(machine: _Machine) -> None:
    machine.pop_mark()


def _from_mark(machine: _Machine) -> None:
    machine.pop_mark()
    machine.push()


def _object(machine: _Machine) -> None:
    if not machine.pop_mark():
        raise MalformedError("makes an object of nothing")
    machine.called()


def _global(machine: _Machine) -> None:
    machine.imported(_decoded(machine.line()), _decoded(machine.line()))


def _instance(machine: _Machine) -> None:
    _global(machine)
    machine.stack.pop()
    machine.pop_mark()
    machine.called()


def _stack_global(machine: _Machine) -> None:
    name = machine.pop()
    machine.imported(machine.pop(), name)


def _extension(size: int) -> _Act:
    def act(machine: _Machine) -> None:
        name = f"copyreg extension {machine.integer(size)}"
        machine.pickle.imports.add(name)
        machine.push(Import(name))

    return act


def _decoded(line: bytes | None) -> str | None:
    if line is None:
        return None
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("imports a name that is no text") from None


def _text_line(encoding: str) -> _Act:
    def act(machine: _Machine) -> None:
        line = machine.line()
        if line is None or len(line) > _KEPT:
            machine.push()
            return
        try:
            machine.push(line.decode(encoding))
        except UnicodeDecodeError:
            raise MalformedError("has a line that is no text") from None

    return act


def _bytes_line(machine: _Machine) -> None:
    line = machine.line()
    if line is None:
        machine.push()
        return
    line = line.strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in {b"'", b'"'}:
        raise MalformedError("has a string without quotes")
    # Escapes are not resolved: a name needs none, and one that has them is not known.
    plain = len(line) <= _KEPT and b"\\" not in line and line.isascii()
    machine.push(line[1:-1].decode("ascii") if plain else _OTHER)


def _short_bytes(size: int) -> _Act:
    """Python 2's strings: with an encoding they are text, so they may be names."""

    def act(machine: _Machine) -> None:
        count = machine.integer(size)
        if count > _KEPT:
            machine.skip(count)
            machine.push()
        else:
            data = machine.exactly(count)
            machine.push(data.decode("ascii") if data.isascii() else _OTHER)

    return act


def _skipped(size: int) -> _Act:
    def act(machine: _Machine) -> None:
        machine.skip(machine.integer(size))
        machine.push()

    return act


def _text(size: int) -> _Act:
    def act(machine: _Machine) -> None:
        try:
            machine.text(machine.integer(size))
        except UnicodeDecodeError:
            raise MalformedError("has a string that is no text") from None

    return act


def _integer(size: int, *, signed: bool = False) -> _Act:
    return lambda machine: machine.push(machine.integer(size, signed=signed))


def _long(size: int) -> _Act:
    def act(machine: _Machine) -> None:
        count = machine.integer(size)
        if count > _KEPT:
            machine.skip(count)
            machine.push()
        else:
            machine.push(machine.integer(count, signed=True))

    return act


def _number_line(machine: _Machine) -> None:
    """A number in any notation that some Python takes; only plain ones are kept."""
    line = machine.line()
    digits = b"" if line is None else line.strip().removesuffix(b"L")
    machine.push(int(digits) if digits.isdigit() and len(digits) < 40 else _OTHER)


def _any_line(machine: _Machine) -> None:
    machine.line()
    machine.push()


def _float(machine: _Machine) -> None:
    machine.exactly(8)
    machine.push()


def _memo_line(act: Callable[[_Machine, int], object]) -> _Act:
    def do(machine: _Machine) -> None:
        line = machine.line()
        try:
            at = int(line or b"")
        except ValueError:
            raise MalformedError("has a place in the memo that is no number") from None
        act(machine, at)

    return do


def _protocol(machine: _Machine) -> None:
    version = machine.integer(1)
    if version > _NEWEST_PROTOCOL:
        raise MalformedError(f"is of protocol {version}, which no Python has")


_push: _Act = _Machine.push
_BY_NAME: dict[str, _Act] = {
    "INT": _number_line,
    "LONG": _number_line,
    "BININT": _integer(4, signed=True),
    "BININT1": _integer(1),
    "BININT2": _integer(2),
    "LONG1": _long(1),
    "LONG4": _long(4),
    "STRING": _bytes_line,
    "BINSTRING": _short_bytes(4),
    "SHORT_BINSTRING": _short_bytes(1),
    "BINBYTES": _skipped(4),
    "SHORT_BINBYTES": _skipped(1),
    "BINBYTES8": _skipped(8),
    "BYTEARRAY8": _skipped(8),
    "NEXT_BUFFER": _push,
    "READONLY_BUFFER": _drop(0),
    "NONE": _push,
    "NEWTRUE": _push,
    "NEWFALSE": _push,
    "UNICODE": _text_line("raw-unicode-escape"),
    "SHORT_BINUNICODE": _text(1),
    "BINUNICODE": _text(4),
    "BINUNICODE8": _text(8),
    "FLOAT": _any_line,
    "BINFLOAT": _float,
    "EMPTY_LIST": _push,
    "EMPTY_TUPLE": _push,
    "EMPTY_DICT": _push,
    "EMPTY_SET": _push,
    "APPEND": _drop(1),
    "APPENDS": _drop_to_mark,
    "SETITEM": _drop(2),
    "SETITEMS": _drop_to_mark,
    "ADDITEMS": _drop_to_mark,
    "LIST": _from_mark,
    "TUPLE": _from_mark,
    "DICT": _from_mark,
    "FROZENSET": _from_mark,
    "TUPLE1": _replace(1),
    "TUPLE2": _replace(2),
    "TUPLE3": _replace(3),
    "POP": _pop,
    "DUP": _duplicate,
    "MARK": _mark,
    "POP_MARK": _pop_mark,
    "GET": _memo_line(_Machine.get),
    "BINGET": lambda machine: machine.get(machine.integer(1)),
    "LONG_BINGET": lambda machine: machine.get(machine.integer(4)),
    "PUT": _memo_line(_Machine.put),
    "BINPUT": lambda machine: machine.put(machine.integer(1)),
    "LONG_BINPUT": lambda machine: machine.put(machine.integer(4)),
    "MEMOIZE": lambda machine: machine.put(None),
    "EXT1": _extension(1),
    "EXT2": _extension(2),
    "EXT4": _extension(4),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _replace(2, call=True),
    "BUILD": _drop(1, call=True),
    "INST": _instance,
    "OBJ": _object,
    "NEWOBJ": _replace(2, call=True),
    "NEWOBJ_EX": _replace(3, call=True),
    "PROTO": _protocol,
    "STOP": lambda machine: machine.pop(),
    "FRAME": lambda machine: machine.exactly(8),
    "PERSID": _any_line,
    "BINPERSID": _replace(1),
}
_WORK: list[_Act | None] = [
    _BY_NAME[_NAMES[code]] if code in _NAMES else None for code in range(256)
]
_STOP = ord(".")
