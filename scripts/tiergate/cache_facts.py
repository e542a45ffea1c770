"""What an answer depended on, and whether it still is so: files, folders, environment, machine."""

from __future__ import annotations

import functools
import hashlib
import os
import resource
import stat
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from tiergate.environment import usable_cpus

_RACY_NS = 2_000_000_000
_CLOCK_NS = 50_000_000
"""How far a file system's clock may lag behind this process's."""
_IGNORED = frozenset(
    {".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tiergate"}
    | {"__pycache__"}
)
_TEXTS = frozenset(
    {".cfg", ".ini", ".md", ".py", ".pyi", ".rst", ".sh", ".toml", ".yaml", ".yml", ""}
)
"""Suffixes of what only Python reads: the content counts where it was read. Of all other files,
which native code may read unseen, it always counts."""
_CHUNK = 1024 * 1024
_MISSING = "missing"
_PACKAGE = Path(__file__).resolve().parent
_NVIDIA = Path("/proc/driver/nvidia")


Kind = Literal["file", "folder", "asked"]
"""What counts of a path: the content of a file, the entries of a folder, or whether it is there."""


class Fact(msgspec.Struct, frozen=True, array_like=True):
    """What was at a path."""

    content: str
    """A digest of all that counts of it."""
    signature: str
    """What tells cheaply that it is unchanged; empty where nothing does."""


def digest(*parts: str | bytes) -> str:
    """Return one short digest of several texts."""
    sha = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        sha.update(b"%d:" % len(data) + data)
    return sha.hexdigest()


class Facts:
    """Looks at paths, at each of them once.

    A file is as it was where its size, times and inode are, as git has it: what changed within the
    last moments before it was read is read again, because a second change in the same tick of the
    clock would not show.

    Args:
        root: the repository, whose files are named relative to it.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.compared = 0
        """How many paths had to be read again to see that they are what they were."""
        self._seen: dict[tuple[str, bool], tuple[str, int]] = {}
        self._known: dict[tuple[str, Kind], Fact] = {}
        self._folders = _RealFolders()

    def name(self, path: str) -> str:
        """Return a path relative to the root, where it lies below it."""
        return path.removeprefix(self._root + os.sep)

    def fact(self, name: str, kind: Kind) -> Fact:
        """Return what is at a path now: a file's content, a folder's entries, or their kind."""
        key = (name, kind)
        if key not in self._known:
            started = time.time_ns()
            signature, changed = self._look(name, kind)
            content = self._content(name, signature, kind)
            steady = changed < started - _RACY_NS
            self._known[key] = Fact(content, signature if steady else "")
        return self._known[key]

    def holds(self, name: str, known: Fact, kind: Kind) -> bool:
        """Tell whether what is at a path counts as what was there."""
        if known.signature and self._look(name, kind)[0] == known.signature:
            return True
        self.compared += 1
        return self.fact(name, kind).content == known.content

    def current(self, name: str, known: Fact, kind: Kind) -> Fact:
        """Return a fact that holds with what tells it the cheapest now."""
        same = self._look(name, kind)[0] == known.signature
        return known if same else self.fact(name, kind)

    def changed_since(self, name: str, moment_ns: int, kind: Kind) -> bool:
        """Tell whether what is at a path changed after a moment, or may have."""
        return self._look(name, kind)[1] >= moment_ns - _CLOCK_NS

    def _look(self, name: str, kind: Kind) -> tuple[str, int]:
        """Return the signature, and when it changed last, in nanoseconds; 0 where that is open."""
        key = (name, kind == "folder")
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = _signature(self._path(name), kind, self._folders)
        return found

    def _path(self, name: str) -> str:
        return name if name.startswith("/") else f"{self._root}/{name}"

    def _content(self, name: str, signature: str, kind: Kind) -> str:
        if signature.startswith(_MISSING):
            return signature
        path = self._path(name)
        about = signature.partition(" ")[0]
        if kind == "asked":
            return _answer(name, signature)
        try:
            if kind == "folder":
                with os.scandir(path) as entries:
                    found = sorted(
                        f"{entry.name}\0{_kind(entry)}"
                        for entry in entries
                        if entry.name not in _IGNORED
                    )
                return f"{about} {digest(*found)}"
            status = os.stat(path)  # noqa: PTH116 - as above
            if not stat.S_ISREG(status.st_mode):
                return f"{about} {stat.S_IFMT(status.st_mode):o}"
            return f"{about} {status.st_mode:o} {_digest_of(path)}"
        except OSError as error:
            return f"{about} unreadable {error.errno} {time.time_ns()}"


def _answer(name: str, signature: str) -> str:
    """Return what a question such as ``os.path.exists`` is told; ``signature`` is not of nothing.

    What native code may read without an event once it is known to be there counts as a whole.
    """
    place, what, *_ = signature.split(" ")
    return f"{place} {what}" if is_text(name) and what != "folder" else signature


def is_text(name: str) -> bool:
    """Tell by a file's suffix whether only Python, or a person, reads it."""
    return os.path.splitext(name)[1].lower() in _TEXTS  # noqa: PTH122 - thousands of them


def _digest_of(path: str) -> str:
    sha = hashlib.blake2b(digest_size=20)
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - as above
        while data := stream.read(_CHUNK):
            sha.update(data)
    return sha.hexdigest()


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "l"
    return "d" if entry.is_dir(follow_symlinks=False) else "f"


class _RealFolders:
    """Where folders really lie, each of them asked for once."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {"": "/"}
        self._places: dict[str, str] = {}

    def real(self, path: str) -> str:
        """Return an absolute folder's path with its links followed."""
        found = self._real.get(path)
        if found is None:
            above, _, name = path.rpartition("/")
            found = f"{self.real(above).rstrip('/')}/{name}"
            try:
                if name in {".", ".."} or stat.S_ISLNK(os.lstat(found).st_mode):
                    found = os.path.realpath(found)
            except OSError:
                pass  # it is not there: then nothing is a link
            self._real[path] = found
        return found

    def place(self, real: str) -> str:
        """Return a short digest of where a path lies that is no link."""
        if real not in self._places:
            self._places[real] = digest(real, "")[:8]
        return self._places[real]


def _signature(path: str, kind: Kind, folders: _RealFolders) -> tuple[str, int]:
    """Return a path's state, its first word where it really lies; and when it changed."""
    real = folders.real(path.rpartition("/")[0])
    link = ""
    try:
        status = os.lstat(path)
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        if stat.S_ISLNK(status.st_mode):
            link = os.path.realpath(path)
            status = os.stat(path)  # noqa: PTH116
            changed = max(changed, status.st_mtime_ns, status.st_ctime_ns)
    except OSError as error:
        return f"{_MISSING} {error.errno} {real} {link}", 0
    place = digest(real, link)[:8] if link else folders.place(real)
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    if stat.S_ISDIR(status.st_mode) and kind != "folder":
        return f"{place} folder {status.st_mode:o}", 0  # its entries do not count here
    about = f"{status.st_mode:o} {status.st_size} {times} {status.st_ino} {status.st_dev}"
    return f"{place} {about}", changed


def listing(folders: Iterable[str]) -> str:
    """Return a digest of the entries of folders with their sizes and times, one level deep.

    A folder among the entries that is listed itself counts by its own entries alone: bytecode that
    is written below it, for one, changes its times.
    """
    listed = frozenset(folders)
    lines = []
    for folder in listed:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name != "__pycache__" and entry.path not in listed:
                        about = entry.stat(follow_symlinks=False)
                        times = f"{about.st_mtime_ns} {about.st_ino}"
                        lines.append(f"{folder}\0{entry.name}\0{about.st_size} {times}")
        except OSError as error:
            lines.append(f"{folder}\0{error.errno}")
    return digest("\n".join(sorted(lines)))


def environment(python: Path, folders: Iterable[str]) -> str:
    """Return a digest of an interpreter and what lies in the folders it imports from."""
    real = os.path.realpath(python)
    files = [str(python), real, str(python.parent.parent / "pyvenv.cfg")]
    lie = _RealFolders()
    return digest(real, listing(folders), *(_signature(file, "file", lie)[0] for file in files))


@functools.cache
def tool() -> str:
    """Return a digest of this program's own files, and of the environment it runs in."""
    folders = [folder for folder, _, _ in os.walk(_PACKAGE) if not folder.endswith("__pycache__")]
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return digest(sys.version, listing(folders), listing(packages))


def machine() -> str:
    """Return a digest of what this machine, and who starts it on it, is to a program."""
    mask = os.umask(0o077)
    os.umask(mask)
    limits = [
        f"{name} {resource.getrlimit(getattr(resource, name))}"
        for name in dir(resource)
        if name.startswith("RLIMIT_")
    ]
    who = (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *os.getgroups())
    return digest(*os.uname(), str(usable_cpus()), f"{mask:o}", repr(who), *limits)


def cuda(place: Path = _NVIDIA) -> str:
    """Return a digest of the driver and the GPUs; empty where they cannot be told."""
    try:
        told = [(place / "version").read_bytes()]
        gpus = sorted((place / "gpus").iterdir())
        told += [(gpu / "information").read_bytes() for gpu in gpus]
    except OSError:
        return ""
    return digest(*told) if gpus else ""


def variables(environment_: Mapping[str, str]) -> dict[str, str]:
    """Return a digest of each environment variable: values may be secrets."""
    return {f"${name}": digest(value) for name, value in environment_.items()}
