"""What a job reads: files, folders, and what makes its outcome depend on more than those.

An audit hook sees what goes through Python: ``open``, imports, listings, programs, connections. A
mere question whether a file is there raises no event: the functions of ``os`` that ask are wrapped.
Native code that opens a file by itself is not seen; the judge counts for it what it could have read
in the repository.
"""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
import threading
from importlib.util import source_from_cache
from typing import TYPE_CHECKING, Any

from .ownership import Ownership

if TYPE_CHECKING:
    from collections.abc import Callable

    from .records import Channel

_CHUNK = 1000
_MOST = 50_000
_FOREIGN = 200
"""Files outside of the repository and the environment: more are no inputs, but a scan."""
_MACHINE = ("/proc/", "/sys/", "/dev/")
_OWN_CACHES = frozenset({".hypothesis", ".tiergate", "__pycache__"})
"""What tools keep in a repository for themselves; neither reading nor writing there counts."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_STARTED = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "pty.spawn",
        "subprocess.Popen",
        "_posixsubprocess.fork_exec",
    }
)
_CONNECTED = frozenset(
    {
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.sendmsg",
        "socket.sendto",
        "urllib.Request",
    }
)
_ATTRIBUTES = ("os.getxattr", "os.listxattr", "os.removexattr", "os.setxattr")
_QUESTIONS = ("access", "lstat", "readlink", "stat")
"""Functions of ``os``, of which each other question in Python is made."""
_QUESTIONED = (
    "supports_dir_fd",
    "supports_effective_ids",
    "supports_fd",
    "supports_follow_symlinks",
)
_ASKED = 2000
"""Questions about paths outside of the repository: more are no inputs, but a search."""
_CREATING = frozenset({"os.link", "os.mkdir", "os.rename", "os.symlink"})
_CHANGED: dict[str, dict[int, int | None]] = {
    "os.chmod": {0: 2},
    "os.chown": {0: 3},
    "os.link": {1: 3},
    "os.mkdir": {0: 2},
    "os.remove": {0: 1},
    "os.rename": {0: 2, 1: 3},
    "os.rmdir": {0: 1},
    "os.symlink": {1: 2},
    "os.truncate": {0: None},
    "os.utime": {0: 3},
}
"""Events → which of their arguments are paths that change, and which the folders these are in."""


def _is_of_a_tool(path: str) -> bool:
    return any(f"{os.sep}{name}{os.sep}" in path + os.sep for name in _OWN_CACHES)


def _told_by(path: str) -> str:
    """Return the path whose kind answers the same question: nothing lies below a file."""
    above = os.path.dirname(path)  # noqa: PTH120 - quick
    return above if os.path.isfile(above) else path  # noqa: PTH113 - as above


class Inputs:
    """Collects what one process reads; to be started in the process that it is about.

    Args:
        repository: the repository's top folder.
        search: the folders of the repository that modules are imported from.
    """

    def __init__(self, repository: str, search: list[str]) -> None:
        self._owned = Ownership(repository)
        self._reasons: dict[str, None] = {}
        self._read: dict[str, None] = dict.fromkeys(search)
        self._listed: dict[str, None] = {}
        self._foreign: dict[str, None] = {}
        self._asked: dict[str, None] = {}
        self._answered: set[str] = set()
        self._made: set[str] = set()
        self._raw: set[tuple[str, str, bool]] = set()
        self._busy = threading.local()
        self._process = os.getpid()
        # Not all below the prefixes: of an interpreter in /usr that would be far too much.
        paths = sysconfig.get_paths()
        own = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        own |= {*site.getsitepackages(), os.path.join(sys.prefix, "pyvenv.cfg")}  # noqa: PTH118
        own.add(os.path.dirname(__file__))  # noqa: PTH120 - quick
        own |= {os.path.realpath(path) for path in own}
        self._installed = tuple(path + os.sep for path in own if path != os.sep)
        named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
        self._temporary = {os.path.realpath(path) for path in (*named, "/tmp") if path}  # noqa: S108 - as tempfile has it
        self._handlers: dict[str, Callable[[str, Any], None]] = {
            "open": self._opened,
            "os.listdir": self._listing,
            "os.scandir": self._listing,
            "os.fwalk": self._unseen,
            "import": self._imported,
            "ctypes.dlopen": self._loaded,
            "sqlite3.connect": self._database,
            "asked": self._asking,
            "cpython.PyInterpreterState_New": self._unwatched,
            **dict.fromkeys(_ATTRIBUTES, self._unwatched),
            **dict.fromkeys(_STARTED, self._starting),
            **dict.fromkeys(_CONNECTED, self._connecting),
            **dict.fromkeys(_CHANGED, self._changing),
        }

    def start(self) -> None:
        """Watch from now on; there is no end to it."""
        sys.addaudithook(self._event)
        for name in _QUESTIONS:
            self._wrap(name)

    def _wrap(self, name: str) -> None:
        """Have a function of ``os`` tell which path it was asked about."""
        original = getattr(os, name)

        @functools.wraps(original)
        def asking(path: Any, *arguments: Any, **keywords: Any) -> Any:
            self._event("asked", (path, keywords.get("dir_fd")))
            return original(path, *arguments, **keywords)

        setattr(os, name, asking)
        for functions in (getattr(os, known) for known in _QUESTIONED):
            if original in functions:
                functions.add(asking)

    def send(self, channel: Channel) -> None:
        """Report what was read."""
        self._busy.yes = True
        if len(self._read) + len(self._listed) + len(self._asked) > _MOST:
            self._reasons["it reads too many files"] = None
        asked = dict.fromkeys(_told_by(path) for path in self._asked)
        kinds = (("file", self._read), ("folder", self._listed), ("asked", asked))
        for what, paths in kinds:
            names = list(paths)[:_MOST]
            for start in range(0, len(names), _CHUNK):
                channel.send("inputs", kind=what, paths=names[start : start + _CHUNK])
        if sum(not self._owned.file(path) for path in self._asked) > _ASKED:
            self._reasons["it asks for too many files outside of the repository"] = None
        if len(self._foreign) > _FOREIGN:
            self._reasons["it reads too many files outside of the repository"] = None
        channel.send("inputs", kind="file", paths=list(self._foreign)[:_FOREIGN])
        channel.send("inputs-seen", reasons=list(self._reasons)[:20])

    def _event(self, event: str, arguments: Any) -> None:
        handler = self._handlers.get(event)
        if handler is None or getattr(self._busy, "yes", False):
            return
        self._busy.yes = True
        try:
            handler(event, arguments)
        except Exception as error:  # noqa: BLE001 - a hook that raises would change what it watches
            self._reasons[f"{event}: {type(error).__name__} while it was recorded"] = None
        finally:
            self._busy.yes = False

    def _path(self, value: Any, folder: int = -1) -> str:
        """Return an absolute path, links not followed.

        Args:
            value: a path, or the number of an open file.
            folder: the number of an open folder that the path starts in.
        """
        if isinstance(value, int):
            return os.readlink(f"/proc/self/fd/{value}")  # noqa: PTH115 - quick, as below
        path = os.fsdecode(value)
        if folder >= 0:
            path = os.path.join(self._path(folder), path)  # noqa: PTH118
        return os.path.abspath(path)  # noqa: PTH100 - links are not followed

    def _opened(self, event: str, arguments: Any) -> None:
        value, mode, flags = arguments
        if value is None or isinstance(value, int):
            return  # a descriptor: it was opened before
        key = (os.fsdecode(value), str(mode), bool((flags or 0) & _WRITING))
        if key in self._raw and key[0].startswith("/"):
            return
        self._raw.add(key)
        if mode is None and not key[0].startswith("/"):
            # Of os.open, which may be told of a folder that the event does not name.
            if not self._is_deleting():
                self._reasons["os.open: a path that may start in an open folder"] = None
            return
        path = self._path(value)
        if (flags or 0) & _WRITING:
            if os.path.isdir(path):  # noqa: PTH112 - quick
                return  # a file without a name, in the folder that is named
            if not flags & (os.O_TRUNC | os.O_EXCL):
                self._reads(path, self._read)  # and what was there before stays
            self._written(path, made=True)
        else:
            self._reads(path, self._read)

    def _asking(self, event: str, arguments: Any) -> None:
        value, folder = arguments
        if isinstance(value, int):
            return  # a descriptor: it was opened before
        named = os.fsdecode(value)
        if folder is None and named.startswith("/"):
            if named in self._answered:
                return
            self._answered.add(named)
        path = self._path(value, -1 if folder is None else folder)
        if path.startswith(_MACHINE) or path in self._asked or _is_of_a_tool(path):
            return
        if self._is_own_product(path) or self._is_installed(path) or self._is_temporary(path):
            return
        self._asked[path] = None

    def _listing(self, event: str, arguments: Any) -> None:
        value = arguments[0]
        path = self._path("." if value is None else value)
        if self._is_shared(path) and not self._owned.file(path):
            return  # what others do in the folder for temporary files is no input
        self._reads(path, self._listed)

    def _reads(self, path: str, among: dict[str, None]) -> None:
        if path.startswith(_MACHINE) or path in among or path in self._foreign:
            return
        if self._owned.file(path):
            if not _is_of_a_tool(path):
                among[path] = None
        elif self._is_own_product(path):
            real = os.path.realpath(path)
            if real != path and not self._is_own_product(real):
                self._reads(real, among)  # by a link of its own
        elif not self._is_installed(path):
            if among is self._listed:
                among[path] = None
            else:
                self._foreign[path] = None
                if path.endswith(".pyc"):
                    self._compiled(path)

    def _compiled(self, path: str) -> None:
        """Count the source of a module elsewhere: the import only asked for its time."""
        try:
            self._foreign[source_from_cache(path)] = None
        except ValueError:
            return  # there is none

    def _is_shared(self, path: str) -> bool:
        """Tell whether a folder is the one for temporary files, or pytest's own in it."""
        above, name = os.path.split(path)
        return path in self._temporary or (
            above in self._temporary and name.startswith("pytest-of-")
        )

    def _is_temporary(self, path: str) -> bool:
        """Tell whether it is of the runs that pytest keeps the temporary files of."""
        if self._owned.file(path):
            return False
        while len(path) > 1 and not self._is_shared(path):
            path = os.path.dirname(path)  # noqa: PTH120 - quick
        return len(path) > 1 and path not in self._temporary

    @staticmethod
    def _is_deleting() -> bool:
        """Tell whether the event is of ``shutil.rmtree``, which opens folders to empty them."""
        code = sys._getframe(3).f_code  # noqa: SLF001 - the event does not say
        return code.co_name == "_rmtree_safe_fd" and code.co_filename.endswith("shutil.py")

    def _is_installed(self, path: str) -> bool:
        known = self._installed
        return path.startswith(known) or (os.path.realpath(path) + os.sep).startswith(known)

    def _is_own_product(self, path: str) -> bool:
        """Tell whether this process made a path outside of the repository, or a folder above it."""
        while self._made and len(path) > 1:
            if path in self._made:
                return True
            path = os.path.dirname(path)  # noqa: PTH120 - quick
        return False

    def _written(self, path: str, *, made: bool) -> None:
        if path.startswith(_MACHINE):
            return
        if not self._owned.file(path):
            if made:
                self._made.add(path)
        elif not _is_of_a_tool(path):
            self._reasons[f"it wrote {self._owned.relative(path)}"] = None

    def _changing(self, event: str, arguments: Any) -> None:
        for at, folder in _CHANGED[event].items():
            path = self._path(arguments[at], -1 if folder is None else arguments[folder])
            if event == "os.rename" and at == 0:
                self._reads(path, self._read)
            if event != "os.mkdir" or not os.path.lexists(path):
                self._written(path, made=event in _CREATING)

    def _imported(self, event: str, arguments: Any) -> None:
        filename = arguments[1]
        if filename:
            self._native(self._path(filename))
        search = arguments[2]
        if isinstance(search, list):
            for entry in search:
                if isinstance(entry, str) and entry not in self._read:
                    path = self._path(entry or ".")
                    if self._owned.file(path):
                        self._read[path] = None

    def _loaded(self, event: str, arguments: Any) -> None:
        name = arguments[0]
        if isinstance(name, str) and os.sep in name:
            self._native(self._path(name))

    def _native(self, path: str) -> None:
        if self._owned.file(path):
            self._reasons[f"native code: {self._owned.relative(path)}"] = None
        else:
            self._reads(path, self._read)

    def _database(self, event: str, arguments: Any) -> None:
        name = os.fsdecode(arguments[0])
        if name.startswith("file:"):
            if not name.startswith("file::memory:") and "mode=memory" not in name:
                self._reasons[f"a database: {name}"] = None
        elif name and name != ":memory:":
            path = self._path(name)
            if not self._is_own_product(path):
                self._reasons[f"a database: {self._owned.relative(path)}"] = None

    def _starting(self, event: str, arguments: Any) -> None:
        self._reasons[f"it started a process ({event})"] = None

    def _connecting(self, event: str, arguments: Any) -> None:
        self._reasons[f"it used the network ({event})"] = None

    def _unwatched(self, event: str, arguments: Any) -> None:
        self._reasons[f"{event}: what it reads is not told"] = None

    def _unseen(self, event: str, arguments: Any) -> None:
        self._reasons[f"{event}: paths that are not told"] = None
