"""The one door for subprocesses: argument lists, bounded output, deadlines, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from tiergate.errors import NotEvaluatedError

TERMINATE_SECONDS = 2.0
"""How long a process group may take to end after SIGTERM before SIGKILL."""

_DRAIN_SECONDS = 0.3
_POLL_SECONDS = 0.1
_CHUNK = 65_536
_LITTLE = 4096
_GATHER_SECONDS = 0.005
_PIPE_LIMIT = 1024 * 1024
MARK = "TIERGATE_PROCESS_MARK"
"""The environment variable by which the descendants of a process are known."""

_Known = tuple[int, int]
"""A process: its id, and when it started, because ids are used again."""


class Cancellation:
    """Tells running processes that the user, or the runner, wants them to end.

    Args:
        of_all: that of the whole run, where this one is of a part of it: it counts here as well.
    """

    def __init__(self, of_all: Cancellation | None = None) -> None:
        self._event = threading.Event()
        self._reason = ""
        self._of_all = of_all

    def cancel(self, reason: str) -> None:
        """Ask for the end; the first reason is kept."""
        if not self._event.is_set():
            self._reason = reason
            self._event.set()

    @property
    def requested(self) -> bool:
        """Whether the end was asked for."""
        return self._event.is_set() or (self._of_all is not None and self._of_all.requested)

    @property
    def reason(self) -> str:
        """Why the end was asked for; empty where it was not."""
        return self._reason or (self._of_all.reason if self._of_all is not None else "")


class Bounded(msgspec.Struct):
    """Bytes up to a limit; beyond it the middle is dropped."""

    limit: int
    head: bytearray = msgspec.field(default_factory=bytearray)
    tail: bytearray = msgspec.field(default_factory=bytearray)
    dropped: int = 0

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        room = self.limit // 2 - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        self.tail += data
        excess = len(self.tail) - self.limit // 2
        if excess > 0:
            del self.tail[:excess]
            self.dropped += excess

    def getvalue(self) -> bytes:
        """Return what was kept, with a line that says how much was not."""
        if not self.dropped:
            return bytes(self.head + self.tail)
        return b"%s\n[... %d bytes left out ...]\n%s" % (self.head, self.dropped, self.tail)


class Streams(msgspec.Struct, frozen=True):
    """What a process is given when it starts: descriptors, and its mark in the environment."""

    stdin: int
    stdout: int
    stderr: int
    records: int | None
    mark: str


class Process(Protocol):
    """A process that was started, as ``subprocess.Popen`` shows it."""

    pid: int

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ended.

        Raises:
            subprocess.TimeoutExpired: it did not within ``timeout`` seconds.
        """


class Completed(msgspec.Struct, frozen=True):
    """How a process ended."""

    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    timed_out: bool
    cancelled: bool
    seconds: float
    left_behind: int

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.returncode >= 0:
            return f"exit code {self.returncode}"
        try:
            name = signal.Signals(-self.returncode).name
        except ValueError:
            name = str(-self.returncode)
        return f"signal {name}"


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    cancellation: Cancellation,
    stdin: bytes = b"",
    executable: Path | None = None,
    output_limit: int = 256 * 1024,
    merge_stderr: bool = False,
    on_record: Callable[[bytes], None] | None = None,
) -> Completed:
    """Run a program to its end, its deadline or a cancellation; kill all that it started.

    Args:
        argv: program and arguments; never a shell. An argument ``{records}`` is replaced by the
            number of a pipe's file descriptor, when ``on_record`` is given.
        cwd: its working directory.
        env: its whole environment.
        timeout: seconds until its process group is ended.
        cancellation: ends it early.
        stdin: what it reads on standard input.
        executable: the file to execute, where it is not ``argv[0]``.
        output_limit: bytes of each output stream to keep.
        merge_stderr: keep both streams, in order, in ``stdout``.
        on_record: called with each line that the program writes to the records pipe.

    Raises:
        NotEvaluatedError: the program cannot be started.
    """
    if os.name != "posix":
        raise NotEvaluatedError("running candidates needs a POSIX system (Linux or macOS)")

    def start(streams: Streams) -> Process:
        records = streams.records
        command = [str(a).replace("{records}", str(records)) for a in argv]
        try:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env={**env, MARK: streams.mark},
                executable=executable,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                pass_fds=() if records is None else (records,),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # the latter for a NUL in an argument
            reason = getattr(error, "strerror", None) or error
            raise NotEvaluatedError(f"cannot start {command[0]!r}: {reason}") from None

    return supervise(
        start,
        timeout=timeout,
        cancellation=cancellation,
        stdin=stdin,
        output_limit=output_limit,
        merge_stderr=merge_stderr,
        on_record=on_record,
    )


def supervise(
    start: Callable[[Streams], Process],
    *,
    timeout: float,
    cancellation: Cancellation,
    stdin: bytes = b"",
    output_limit: int = 256 * 1024,
    merge_stderr: bool = False,
    on_record: Callable[[bytes], None] | None = None,
) -> Completed:
    """Do what ``run`` does for a process that ``start`` makes, in a session of its own.

    Raises:
        NotEvaluatedError: from ``start``, which could not make it.
    """
    mark = os.urandom(16).hex()
    started = time.monotonic()
    outputs = {"stdout": Bounded(output_limit), "stderr": Bounded(output_limit)}
    sinks: dict[int, Callable[[bytes], None]] = {}
    with contextlib.ExitStack() as stack:

        def pipe(write: Callable[[bytes], None]) -> int:
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            given.callback(os.close, writing)
            sinks[reading] = write
            return writing

        from tempfile import TemporaryFile  # noqa: PLC0415 - slow, and not all that run is asked

        asked = stack.enter_context(TemporaryFile())
        asked.write(stdin)
        asked.seek(0)
        with contextlib.ExitStack() as given:
            stdout = pipe(outputs["stdout"].write)
            stderr = stdout if merge_stderr else pipe(outputs["stderr"].write)
            records = pipe(_Lines(on_record).write) if on_record else None
            process = start(Streams(asked.fileno(), stdout, stderr, records, mark))
        try:
            ending = _read_to_the_end(process, sinks, started + timeout, cancellation)
            left_behind = _end(process, mark, gently=ending != "exited")
            for descriptor, write in sinks.items():
                _drain(descriptor, write)
        except BaseException:
            _end(process, mark, gently=False)
            raise
    return Completed(
        returncode=process.wait(),
        stdout=outputs["stdout"].getvalue(),
        stderr=outputs["stderr"].getvalue(),
        truncated=any(output.dropped for output in outputs.values()),
        timed_out=ending == "timed out",
        cancelled=ending == "cancelled",
        seconds=time.monotonic() - started,
        left_behind=left_behind,
    )


def _read_to_the_end(
    process: Process,
    sinks: Mapping[int, Callable[[bytes], None]],
    deadline: float,
    cancellation: Cancellation,
) -> Literal["exited", "timed out", "cancelled"]:
    """Hand everything that the process writes to its sink until it ends or must be ended."""
    exited: float | None = None
    with selectors.DefaultSelector() as selector:
        for descriptor in sinks:
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if selector.get_map():
                ready = [key.fd for key, _ in selector.select(_POLL_SECONDS)]
            else:
                ready = []  # every stream is closed: only its exit is awaited
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
            if _read(ready, sinks, selector):
                time.sleep(_GATHER_SECONDS)  # rather than to wake for each line of a fast writer
            now = time.monotonic()
            if exited is None and process.poll() is not None:
                exited = now
            if exited is not None:
                # Something that it started may keep a stream open: wait for that only so long.
                if not selector.get_map() or now - exited > _DRAIN_SECONDS:
                    return "exited"
            elif cancellation.requested:
                return "cancelled"
            elif now > deadline:
                return "timed out"


def _read(
    ready: Sequence[int],
    sinks: Mapping[int, Callable[[bytes], None]],
    selector: selectors.BaseSelector,
) -> bool:
    """Read once from each descriptor that is ready; tell whether there was only little to read."""
    little = bool(ready)
    for descriptor in ready:
        if data := os.read(descriptor, _CHUNK):
            sinks[descriptor](data)
            little = little and len(data) < _LITTLE
        else:
            selector.unregister(descriptor)
            little = False
    return little


class _Lines:
    """Splits a stream of bytes into lines; an endless line is cut so that memory stays bounded."""

    _LIMIT = 4 * 1024 * 1024

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = bytearray()

    def write(self, data: bytes) -> None:
        self._rest += data
        *whole, rest = self._rest.split(b"\n")
        for line in whole:
            self._on_line(bytes(line))
        self._rest = bytearray(rest[: self._LIMIT])


def _end(process: Process, mark: str, *, gently: bool) -> int:
    """End the process group and every process that came from it; count the latter."""
    # Taken while parents live: a process that clears its environment is known by its parent alone.
    family = _family(mark, process.pid) if process.poll() is None else set()
    if gently and process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATE_SECONDS)
    if process.poll() is None:
        family |= _family(mark, process.pid)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    alive = {known for known, _ in _processes()} if family else set[_Known]()
    left = (family & alive) | _family(mark)
    _signal_group(process.pid, signal.SIGKILL)
    for known in left:
        _kill(known)
    while more := _kill_marked(mark) - left:  # what was being ended may have started others
        left |= more
    return len(left)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill(known: _Known) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(known[0], signal.SIGKILL)


def _processes() -> Iterator[tuple[_Known, int]]:
    """Yield every process that is not a zombie, with its parent; Linux only, elsewhere none."""
    if not sys.platform.startswith("linux"):
        return
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:  # noqa: PTH208 - of every process
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything: the fields are counted behind it.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] not in {b"Z", b"X"}:
                yield (pid, int(fields[19])), int(fields[1])


def _is_marked(known: _Known, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{known[0]}/environ").read_bytes()
    except OSError:
        return False


def _family(mark: str, root: int | None = None) -> set[_Known]:
    """Return the processes whose environment holds ``mark`` and all that descend from them.

    ``root`` is the process that was started: its descendants belong, itself does not.
    """
    everyone: dict[_Known, int] = {}
    found: set[_Known] = set()
    for known, parent in _processes():
        everyone[known] = parent
        if _is_marked(known, mark):
            found.add(known)
    parents = {pid for pid, _ in found} | ({root} if root is not None else set())
    while more := {known for known, parent in everyone.items() if parent in parents} - found:
        found |= more
        parents = {pid for pid, _ in more}
    return {known for known in found if known[0] != root}


def _kill_marked(mark: str) -> set[_Known]:
    """Kill each process whose environment holds ``mark`` as soon as it is met."""
    found = set()
    for known, _ in _processes():
        if _is_marked(known, mark):
            _kill(known)
            found.add(known)
    return found


def _drain(descriptor: int, write: Callable[[bytes], None]) -> None:
    """Read what an ended process had written and nobody had read yet."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        # Bounded by what a pipe can hold: nobody who writes on and on is waited for.
        for _ in range(_PIPE_LIMIT // _CHUNK):
            if not (data := os.read(descriptor, _CHUNK)):
                return
            write(data)
