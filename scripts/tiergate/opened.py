"""Which files below a folder are opened meanwhile, by whatever code: the kernel tells.

Native code raises none of the events by which Python tells what it reads. Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys
import threading
from collections.abc import Collection, Iterator
from types import TracebackType

from tiergate import folders

_CLOSED_WRITTEN, _MOVED, _OPENED, _CREATED, _DELETED = 0x8, 0x40 | 0x80, 0x20, 0x100, 0x200
_WRITTEN = _CLOSED_WRITTEN | _MOVED | _CREATED | _DELETED
_OVERFLOWED, _OF_FOLDER = 0x4000, 0x40000000
_EVENT = struct.Struct("iIII")
_READ = 64 * 1024
_TOOLS = frozenset({".hypothesis", ".pytest_cache", ".tiergate", "__pycache__"})


class Opened:
    """Watches the files of a folder that are not known; a context manager.

    Other programs are seen as well, which does no harm: there is more to be compared later.

    Args:
        root: the folder.
        known: files below it that need not be told, by their relative names.
    """

    def __init__(self, root: str, known: Collection[str]) -> None:
        self.files: dict[str, None] = {}
        self.reasons: dict[str, None] = {}
        """Why more may have been opened, or was changed."""
        self._root = root
        self._known = known
        self._places: dict[int, str] = {}
        self._descriptor = -1

    def __enter__(self) -> Opened:
        """Start watching."""
        if not sys.platform.startswith("linux"):
            return self
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            self._refuse()
            return self
        for path in self._watched():
            place = library.inotify_add_watch(
                self._descriptor, os.fsencode(path), _OPENED | _WRITTEN
            )
            if place >= 0:
                self._places[place] = path
            elif ctypes.get_errno() not in {errno.ENOENT, errno.EACCES}:  # of those nothing opens
                self._refuse()
                break
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="opened")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take in what has happened until now, and stop."""
        if self._descriptor < 0:
            return
        os.close(self._stop)
        self._thread.join()
        os.close(self._stopped)
        os.close(self._descriptor)
        self._descriptor = -1

    def _watched(self) -> Iterator[str]:
        """Yield the folders, and the files elsewhere that unknown links lead to."""
        for folder, _, files in folders.walk(self._root):
            yield folder
            for name in files:
                path = os.path.join(folder, name)  # noqa: PTH118 - thousands of them
                if self._relative(path) not in self._known and os.path.islink(path):  # noqa: PTH114
                    yield path

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._root + os.sep)

    def _refuse(self) -> None:
        why = os.strerror(ctypes.get_errno())
        self.reasons[f"what native code opens cannot be watched: {why}"] = None

    def _listen(self) -> None:
        happened = select.poll()  # select() takes no descriptor above 1023
        for descriptor in (self._descriptor, self._stopped):
            happened.register(descriptor, select.POLLIN)
        while True:
            if self._descriptor in dict(happened.poll()):
                self._take(os.read(self._descriptor, _READ))
            else:
                return

    def _take(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            place, what, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
            if what & _OVERFLOWED:
                self.reasons["more files were opened than the kernel tells"] = None
            elif place in self._places and name not in _TOOLS:
                watched = self._places[place]  # without a name: a file that a link leads to
                self._happened(os.path.join(watched, name) if name else watched, what)  # noqa: PTH118

    def _happened(self, path: str, what: int) -> None:
        name = self._relative(path)
        if what & _WRITTEN:
            self.reasons[f"{name} was written while it ran"] = None
        elif name not in self._known and not what & _OF_FOLDER:
            self.files[path] = None
