"""The one door for subprocesses: argument lists, bounded output, deadlines, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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


def run(  # noqa: PLR0915 - one loop over one process; its parts share all of their state
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
    records_read, records_write = os.pipe() if on_record else (-1, -1)
    command = [str(a).replace("{records}", str(records_write)) for a in argv]
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**env, _MARK: mark},
            executable=executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
            pass_fds=(records_write,) if on_record else (),
            start_new_session=True,
        )
    except OSError as error:
        if on_record:
            os.close(records_read)
        raise NotEvaluatedError(f"cannot start {command[0]}: {error.strerror}") from None
    finally:
        if on_record:
            os.close(records_write)

    outputs = {"stdout": Bounded(output_limit), "stderr": Bounded(output_limit)}
    lines = _Lines(on_record) if on_record else None
    deadline = started + timeout
    timed_out = cancelled = False
    exited: float | None = None
    pending = memoryview(stdin)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            if pending:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")
            else:
                process.stdin.close()
            selector.register(process.stdout, selectors.EVENT_READ, "stdout")
            if process.stderr is not None:
                selector.register(process.stderr, selectors.EVENT_READ, "stderr")
            if on_record:
                selector.register(records_read, selectors.EVENT_READ, "records")
            while selector.get_map():
                for key, _ in selector.select(_POLL_SECONDS):
                    if key.data == "stdin":
                        try:
                            pending = pending[os.write(key.fd, pending[:_CHUNK]) :]
                        except BrokenPipeError:
                            pending = pending[:0]
                        if not pending:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                        continue
                    data = os.read(key.fd, _CHUNK)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif lines is not None and key.data == "records":
                        lines.write(data)
                    else:
                        outputs[key.data].write(data)
                now = time.monotonic()
                if exited is None and process.poll() is not None:
                    exited = now
                if exited is not None and now - exited > _DRAIN_SECONDS:
                    break  # something that it started keeps a stream open
                if exited is None and cancellation.requested:
                    cancelled = True
                    break
                if exited is None and now > deadline:
                    timed_out = True
                    break
        if not (timed_out or cancelled):
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                timed_out = True
        left_behind = _end(process, mark, gently=timed_out or cancelled)
        _drain(process.stdout.fileno(), outputs["stdout"].write)
        if process.stderr is not None:
            _drain(process.stderr.fileno(), outputs["stderr"].write)
        if lines is not None:
            _drain(records_read, lines.write)
    except BaseException:
        _end(process, mark, gently=False)
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if on_record:
            os.close(records_read)
    return Completed(
        returncode=process.returncode,
        stdout=outputs["stdout"].getvalue(),
        stderr=outputs["stderr"].getvalue(),
        truncated=any(output.dropped for output in outputs.values()),
        timed_out=timed_out,
        cancelled=cancelled,
        seconds=time.monotonic() - started,
        left_behind=left_behind,
    )


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
