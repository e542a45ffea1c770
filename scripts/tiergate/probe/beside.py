"""A process beside a session that rewrites test files before the session comes to them.

Pytest compiles each test file anew, with its assertions rewritten, between the imports of the file
before it and its own. What comes out depends on the file alone, so that another core can do it. The
two share memory and no descriptor; each file is done by whichever of them takes it first.
"""

from __future__ import annotations

import gc
import hashlib
import marshal
import mmap
import os
import signal
import struct
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

_FREE, _TAKEN, _DONE = 0, 1, 2
_ENTRY = struct.Struct("=BQQ32s")
"""State, where the code is and how long, the digest of the source."""
_ROOM, _LEAST = 8, 8192
"""Bytes for the code of each byte of source, and of a file; what is not written to is not used."""
_MOST = 512 * 1024 * 1024
_NICE = 10


class Beside:
    """Files that two processes share; to be made before they part.

    Args:
        files: in the order in which the session is expected to import them.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._numbers = {file: number for number, file in enumerate(files)}
        self._table = len(self._numbers) * _ENTRY.size
        room = sum(_ROOM * _size(file) + _LEAST for file in self._numbers)
        self._memory = mmap.mmap(-1, self._table + min(room, _MOST))
        self._end = self._table

    def work(self, foreign: Iterable[int]) -> int:
        """Start the process that rewrites, and return its id.

        Args:
            foreign: descriptors that are not for it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, as for every other child
            pid = os.fork()
        if pid == 0:
            try:
                self._become(foreign)
                self._rewrite_all()
            finally:
                os._exit(0)
        self._memory.close()
        return pid

    def _become(self, foreign: Iterable[int]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in foreign:
            os.close(number)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.nice(_NICE)  # on a core that is idle
        gc.disable()

    def _rewrite_all(self) -> None:
        rewrite: Any = sys.modules["_pytest.assertion.rewrite"]
        parent = os.getppid()
        # From the end: one that kept just ahead of the session would be at the same file as it
        # again and again, and both would do it.
        for file, number in reversed(self._numbers.items()):
            if os.getppid() != parent:
                return
            if self._state(number) == _FREE:
                self._set(number, _TAKEN)
                self._rewrite(rewrite, file, number)

    def _rewrite(self, rewrite: Any, file: str, number: int) -> None:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                digest = _digest(file)
                about, code = rewrite._rewrite_test(Path(file), None)  # noqa: SLF001 - as below
                stat = isinstance(about, os.stat_result)  # of older versions of pytest
                data = marshal.dumps((None if stat else about, code))
                unchanged = digest == _digest(file)
            except Exception:  # noqa: BLE001 - the session comes to it as well, and tells of it
                return
        end = self._end + len(data)
        if warned or not unchanged or end > len(self._memory):
            return
        self._memory[self._end : end] = data
        self._set(number, _DONE, self._end, len(data), digest)
        self._end = end

    def offer(self, rewrite: Any) -> None:
        """Have the pytest of this process take what has been done of the same content."""
        original = rewrite._rewrite_test  # noqa: SLF001 - pytest has no public way

        def rewrite_test(path: Path, config: Any) -> tuple[Any, CodeType]:
            __tracebackhide__ = True
            done = None
            if not config.getini("enable_assertion_pass_hook"):
                done = self._done(str(path))
            if done is None:
                result: tuple[Any, CodeType] = original(path, config)
                return result
            about, code = done
            return (path.stat() if about is None else about), code

        rewrite._rewrite_test = rewrite_test  # noqa: SLF001 - as above

    def _done(self, file: str) -> tuple[Any, CodeType] | None:
        number = self._numbers.get(file)
        if number is None:
            return None
        state, start, length, digest = _ENTRY.unpack_from(self._memory, number * _ENTRY.size)
        if state == _FREE:
            self._set(number, _TAKEN)
        if state != _DONE or digest != _digest(file):
            return None
        done: tuple[Any, CodeType]
        done = marshal.loads(self._memory[start : start + length])  # noqa: S302 - our own
        return done

    def _state(self, number: int) -> int:
        return self._memory[number * _ENTRY.size]

    def _set(
        self, number: int, state: int, start: int = 0, length: int = 0, digest: bytes = b""
    ) -> None:
        at = number * _ENTRY.size
        # The state comes last: who reads it finds the rest there.
        self._memory[at + 1 : at + _ENTRY.size] = _ENTRY.pack(0, start, length, digest)[1:]
        self._memory[at] = state


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - many of them
    except OSError:
        return 0


def _digest(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()
