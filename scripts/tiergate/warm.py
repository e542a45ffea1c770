"""A warm interpreter of the candidate's: started once, it forks a process for each job."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType

import msgspec

from tiergate import processes, shadows
from tiergate.errors import NotEvaluatedError
from tiergate.processes import MARK, Bounded, Cancellation, Completed, Process, Streams
from tiergate.repository import Repository

PROBE = Path(__file__).parent / "probe" / "start.py"

PRELOADED = ("pytest", "numpy", "torch")
"""What is imported ahead of time, where the candidate's environment has it."""

_START_SECONDS = 120.0
_FORK_SECONDS = 60.0
_TICK = 0.1
_MESSAGE = 1024 * 1024
_NAMES = 64 * 1024
"""Bytes of file names in one message: the kernel takes some 200 KB."""


class LostError(NotEvaluatedError):
    """The warm interpreter ended while it ran a job, or could not start it."""


def supported() -> bool:
    """Tell whether interpreters can be forked on this platform."""
    return sys.platform.startswith("linux") and hasattr(os, "fork")


class WarmInterpreter:
    """An interpreter that has imported what is slow to import; a context manager.

    May be used from several threads. Where it cannot serve, ``accepts`` says no to every job and
    ``failed`` says why.

    Args:
        python: the candidate's interpreter.
        environment: the whole environment of the jobs.
        modules: what it imports ahead of time, where the candidate's environment has it.
    """

    def __init__(
        self, python: Path, environment: Mapping[str, str], modules: Sequence[str] = PRELOADED
    ) -> None:
        self.failed = ""
        self.environment = dict(environment)
        self._python = python
        self._modules = modules
        self._imported: frozenset[str] | None = None
        self._shadowed: dict[tuple[str, tuple[str, ...], frozenset[str]], bool] = {}
        self._output = Bounded(64 * 1024)
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> WarmInterpreter:
        """Start it; it is not waited for."""
        with contextlib.ExitStack() as stack:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(self._control.close)
            reading, writing = os.pipe()
            printed = FileIO(reading)
            try:
                self._control.send(_to_import(self._modules))
                with tempfile.TemporaryFile() as nothing:
                    process = subprocess.Popen(
                        [self._python, "-I", "-B", PROBE, "serve", str(theirs.fileno())],
                        cwd="/",
                        env={**self.environment, MARK: os.urandom(16).hex()},
                        stdin=nothing,
                        stdout=writing,
                        stderr=writing,
                        pass_fds=(theirs.fileno(),),
                        start_new_session=True,
                    )
            except OSError as error:
                printed.close()
                self.failed = str(error)
                return self
            finally:
                theirs.close()
                os.close(writing)
            reader = threading.Thread(target=self._read_output, args=(printed,), daemon=True)
            reader.start()
            stack.callback(reader.join)
            stack.callback(_end, process, self._control)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, with all that it still runs."""
        self.failed = self.failed or "it was ended"
        self._stack.close()

    def _read_output(self, stream: FileIO) -> None:
        with stream:
            while data := stream.read(4096):
                self._output.write(data)

    def accepts(
        self, repository: Repository, pythonpath: Sequence[str], cancellation: Cancellation
    ) -> bool:
        """Tell whether a job in this repository ends as it would in a fresh process.

        It does not where the interpreter cannot serve, nor where a file of the repository could be
        imported in the place of a module that was imported ahead of time.
        """
        with self._lock:
            self._await(cancellation)
            imported = self._imported
        if self.failed or imported is None:
            return False
        question = (str(repository.root), tuple(pythonpath), imported)
        if question not in self._shadowed:
            self._shadowed[question] = shadows.any_of(*question)
        return not self._shadowed[question]

    def load(
        self, modules: Sequence[str], rewritten: Sequence[str], cancellation: Cancellation
    ) -> bool:
        """Import more modules ahead of time, and wait for it; no job may be running.

        Args:
            modules: dotted names.
            rewritten: files that pytest rewrites when it imports them.
            cancellation: ends the waiting.

        Returns:
            Whether it can serve now; an import that fails ends it.
        """
        with self._lock:
            self._await(cancellation)
            if not self.failed:
                self._imported = None
                try:
                    self._control.send(_to_import(modules, rewritten))
                except OSError as error:
                    self.failed = f"it has ended ({error.strerror})"
                self._await(cancellation)
            return self._imported is not None

    def _await(self, cancellation: Cancellation) -> None:
        """Wait until it has imported what it imports ahead of time, or nobody waits any more."""
        deadline = time.monotonic() + _START_SECONDS
        while self._imported is None and not self.failed and not cancellation.requested:
            if select.select([self._control], [], [], _TICK)[0]:
                try:
                    data = self._control.recv(_MESSAGE)
                    self._imported = frozenset(msgspec.json.decode(data, type=list[str]))
                except (OSError, msgspec.DecodeError):
                    shown = self._output.getvalue().decode(errors="replace").strip()
                    self.failed = shown.rpartition("\n")[2][:300] or "it ended at once"
            elif time.monotonic() > deadline:
                self.failed = "it was not ready in time"

    def run(
        self,
        *,
        cwd: Path,
        timeout: float,
        cancellation: Cancellation,
        stdin: bytes,
        on_record: Callable[[bytes], None],
        test_files: Sequence[str] = (),
    ) -> Completed:
        """Run a job as ``processes.run`` does, standard error merged, in a forked process.

        ``test_files`` are rewritten by another process beside it, in their order, as far as they
        can be named in one message.

        Raises:
            LostError: the interpreter ended meanwhile, or could not fork.
        """
        forked: list[_Forked] = []

        def start(streams: Streams) -> Process:
            forked.append(self._fork(cwd, streams, test_files))
            return forked[0]

        try:
            done = processes.supervise(
                start,
                timeout=timeout,
                cancellation=cancellation,
                stdin=stdin,
                merge_stderr=True,
                on_record=on_record,
            )
        finally:
            for child in forked:
                child.close()
        if forked[0].lost and not (done.timed_out or done.cancelled):
            self.failed = "it has ended"
            raise LostError("lost: the warm interpreter that had forked it ended")
        return done

    def _fork(self, cwd: Path, streams: Streams, test_files: Sequence[str]) -> _Forked:
        assert streams.records is not None
        reading, writing = os.pipe()
        try:
            told = {"cwd": str(cwd), "mark": streams.mark, "test-files": _named(test_files)}
            message = msgspec.json.encode(told)
            given = [streams.stdin, streams.stdout, streams.stderr, streams.records, writing]
            with self._lock:
                socket.send_fds(self._control, [message], given)
        except OSError as error:
            os.close(reading)
            self.failed = "it has ended"
            raise LostError(f"the warm interpreter has ended ({error.strerror})") from None
        finally:
            os.close(writing)
        return _Forked(reading)


class _Forked:
    """A forked process, as its parent in the candidate's interpreter tells of it."""

    def __init__(self, status: int) -> None:
        self.lost = False
        self._status = status
        self._told = bytearray()
        self._returncode: int | None = None
        os.set_blocking(status, False)
        deadline = time.monotonic() + _FORK_SECONDS
        while (pid := self._answer(b"pid ")) is None:
            self._listen(max(0.0, deadline - time.monotonic()))
            refused = b"refused" in self._told
            if self.lost or refused or time.monotonic() > deadline:
                self.close()
                why = self._told.decode(errors="replace").strip() or "no answer"
                raise LostError(f"the warm interpreter did not fork: {why}")
        self.pid = pid

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        if self._returncode is None:
            self._listen(0)
        return self._returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._returncode is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("a forked job", timeout or 0)
            self._listen(left)
        return self._returncode

    def close(self) -> None:
        """Close the descriptor through which its end is told."""
        if self._status >= 0:
            os.close(self._status)
            self._status = -1

    def _listen(self, timeout: float | None) -> None:
        if not select.select([self._status], [], [], timeout)[0]:
            return
        data = os.read(self._status, 4096)
        self._told += data
        self._returncode = self._answer(b"exit ")
        if not data and self._returncode is None:
            self.lost = True
            self._returncode = -signal.SIGKILL

    def _answer(self, word: bytes) -> int | None:
        for line in self._told.split(b"\n")[:-1]:
            if line.startswith(word):
                return int(line[len(word) :])
        return None


def _to_import(modules: Sequence[str], rewritten: Sequence[str] = ()) -> bytes:
    return msgspec.json.encode({"modules": list(modules), "rewritten": list(rewritten)})


def _named(files: Sequence[str]) -> list[str]:
    """Return the first of the files, as many as one message may name."""
    room = _NAMES
    named = []
    for file in files:
        room -= len(file.encode("utf-8", "surrogateescape")) + 8
        if room < 0 or not file.isprintable():
            break
        named.append(file)
    return named


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    try:
        process.wait(processes.TERMINATE_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
