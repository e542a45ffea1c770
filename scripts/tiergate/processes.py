"""The one door for subprocesses: argument lists, bounded output, deadlines, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tiergate.errors import NotEvaluatedError

TERMINATE_SECONDS = 2.0
"""How long a process group may take to end after SIGTERM before SIGKILL."""

_DRAIN_SECONDS = 0.3
_POLL_SECONDS = 0.1
_CHUNK = 65_536
_MARK = "TIERGATE_PROCESS_MARK"


class Cancellation:
    """Tells running processes that the user, or the runner, wants the run to end."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def cancel(self, reason: str) -> None:
        """Ask for the end; the first reason is kept."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    @property
    def requested(self) -> bool:
        """Whether the end was asked for."""
        return self._event.is_set()


@dataclass
class Bounded:
    """Bytes up to a limit; beyond it the middle is dropped."""

    limit: int
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
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


@dataclass(frozen=True)
class Completed:
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
    mark = secrets.token_hex(16)
    started = time.monotonic()
    outputs = {"stdout": Bounded(output_limit), "stderr": Bounded(output_limit)}
    with contextlib.ExitStack() as stack:
        records_read, records_write = os.pipe() if on_record else (-1, -1)
        asked = stack.enter_context(tempfile.TemporaryFile())
        asked.write(stdin)
        asked.seek(0)
        command = [str(a).replace("{records}", str(records_write)) for a in argv]
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**env, _MARK: mark},
                executable=executable,
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
                pass_fds=(records_write,) if on_record else (),
                start_new_session=True,
            )
        except OSError as error:
            raise NotEvaluatedError(f"cannot start {command[0]}: {error.strerror}") from None
        finally:
            if on_record:
                stack.callback(os.close, records_read)
                os.close(records_write)
        sinks: dict[int, Callable[[bytes], None]] = {}
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                sinks[stack.enter_context(stream).fileno()] = outputs[name].write
        if on_record:
            sinks[records_read] = _Lines(on_record).write
        try:
            ending = _read_to_the_end(process, sinks, started + timeout, cancellation)
            left_behind = _end(process, mark, gently=ending != "exited")
            for descriptor, write in sinks.items():
                _drain(descriptor, write)
        except BaseException:
            _end(process, mark, gently=False)
            raise
    return Completed(
        returncode=process.returncode,
        stdout=outputs["stdout"].getvalue(),
        stderr=outputs["stderr"].getvalue(),
        truncated=any(output.dropped for output in outputs.values()),
        timed_out=ending == "timed out",
        cancelled=ending == "cancelled",
        seconds=time.monotonic() - started,
        left_behind=left_behind,
    )


def _read_to_the_end(
    process: subprocess.Popen[bytes],
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
            for descriptor in ready:
                if data := os.read(descriptor, _CHUNK):
                    sinks[descriptor](data)
                else:
                    selector.unregister(descriptor)
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


def _end(process: subprocess.Popen[bytes], mark: str, *, gently: bool) -> int:
    """End the process group and every process that inherited ``mark``; count the latter."""
    if gently and process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATE_SECONDS)
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    left = [pid for pid in _marked(mark) if pid != process.pid]
    _signal_group(process.pid, signal.SIGKILL)
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _marked(mark: str) -> list[int]:
    """Return the processes whose environment holds ``mark``; Linux only, elsewhere none."""
    if not sys.platform.startswith("linux"):
        return []
    found = []
    needle = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def _drain(descriptor: int, write: Callable[[bytes], None]) -> None:
    """Read what an ended process had written and nobody had read yet."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while data := os.read(descriptor, _CHUNK):
            write(data)
