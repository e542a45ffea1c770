"""The Python of a repository that has to be read, and why some of it cannot be."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tiergate.loads import notebooks
from tiergate.repository import Repository

SUFFIXES = frozenset({".py", ".pyi", ".pyw"})
_NEWLINE = b"\n"
_NOTEBOOK = ".ipynb"
_UNREADABLE_SUFFIXES = frozenset({".pyc", ".pyx"})
_SHEBANG = re.compile(rb"#!.*(?:python|pypy|\b(?:uv|pipx|hatch|pdm|poetry)[ \t]+run\b)")
_SUPPRESSION = re.compile(rb"#\s*(?:nosem(?:grep)?\b|nosec\b|noqa:[^\n]*\b(?:S614|TOR102)\b)")


@dataclass(frozen=True)
class PythonFile:
    """A file and the Python in it."""

    path: str
    source: bytes
    lines: tuple[int, ...] | None = None
    """Of a notebook: each line's line in the file."""

    @cached_property
    def digest(self) -> str:
        """Of path and content."""
        sha = hashlib.sha1(self.path.encode("utf-8", "surrogateescape"), usedforsecurity=False)
        sha.update(b"\0" + self.source)
        return sha.hexdigest()

    def line(self, number: int) -> int:
        """Return the line of the file in which a line of the source stands."""
        if self.lines is None:
            return number
        return self.lines[min(number, len(self.lines)) - 1]

    def code(self, number: int) -> str:
        """Return a line of the source, shortened."""
        lines = self.source.decode("utf-8", "replace").split("\n")
        return lines[number - 1].strip()[:200] if 0 < number <= len(lines) else ""


@dataclass
class Inventory:
    """What is to be scanned."""

    files: dict[str, PythonFile] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Notebooks in another language."""

    @property
    def plain(self) -> list[str]:
        """The files that are Python as they stand."""
        return [file.path for file in self.files.values() if file.lines is None]

    def suppressions(self) -> list[str]:
        """Return where a comment asks scanners to look away."""
        return [
            f"{file.path}:{file.line(1 + file.source.count(_NEWLINE, 0, match.start()))}"
            for file in self.files.values()
            if b"nos" in file.source or b"noqa" in file.source
            for match in _SUPPRESSION.finditer(file.source)
        ]


def inventory(paths: Sequence[str], repository: Repository) -> Inventory:
    """Read the Python files at or below ``paths``: .py, .pyi, .pyw, notebooks, scripts."""
    found = Inventory()
    for path in paths:
        if not (repository.root / path).exists():
            found.unreadable.append(f"{path}: does not exist")
    found.unreadable += [*repository.twins(list(paths)), *repository.withheld(list(paths))]
    leaves = _Leaving(repository)
    for name in repository.files_under(list(paths)):
        if not name.isprintable():
            found.unreadable.append(f"{name!a}: such a name cannot be passed on safely")
        elif problem := _add(found, name, repository, leaves):
            found.unreadable.append(f"{name}: {problem}")
    return found


def others(repository: Repository, known: Inventory) -> dict[str, bytes]:
    """Return the rest of the repository's modules: what is scanned may import from them."""
    sources = {}
    leaves = _Leaving(repository)
    for name in repository.files:
        is_module = name.isprintable() and os.path.splitext(name)[1].lower() == ".py"  # noqa: PTH122 - of every file
        if is_module and name not in known.files and not leaves(name):
            path = f"{repository.root}/{name}"
            if os.path.isfile(path):  # noqa: PTH113 - of every file
                with open(path, "rb") as stream:  # noqa: PTH123 - of every file
                    sources[name] = stream.read()
    return sources


class _Leaving:
    """Tells as ``Repository.leaves`` does which of many files lie elsewhere.

    Where neither a file nor a folder above it is a symbolic link, there is nothing to follow; each
    folder is looked at once.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._plain = {"": True}

    def __call__(self, name: str) -> bool:
        return not self._is_plain(name) and self._repository.leaves(name)

    def _is_plain(self, name: str) -> bool:
        above, _, last = name.rpartition("/")
        plain = self._plain.get(above)
        if plain is None:
            plain = self._plain[above] = self._is_plain(above)
        path = f"{self._repository.root}/{name}"
        return plain and last not in {"", ".", ".."} and not os.path.islink(path)  # noqa: PTH114 - of every file


def _add(found: Inventory, name: str, repository: Repository, leaves: _Leaving) -> str:
    """Read one file into the inventory; say why it cannot be."""
    path = repository.root / name
    suffix = path.suffix.lower()
    if leaves(name):
        return "a symbolic link that leaves the repository"
    if path.is_dir():
        return "a nested repository, a submodule or a linked folder"
    if suffix in _UNREADABLE_SUFFIXES:
        return f"{path.suffix} files cannot be scanned"
    try:
        if suffix == _NOTEBOOK:
            extract = notebooks.extract(path.read_bytes())
            if extract is None:
                found.skipped.append(name)
            else:
                found.files[name] = PythonFile(name, extract.source, extract.lines)
                found.unreadable += [
                    f"{name}:{line}: a cell that is no Python" for line in extract.broken
                ]
        elif suffix in SUFFIXES or (not path.suffix and _has_shebang(path)):
            found.files[name] = PythonFile(name, path.read_bytes())
    except notebooks.NotebookError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _has_shebang(path: Path) -> bool:
    if not path.exists():  # a symbolic link to nothing
        return False
    with path.open("rb") as stream:
        first = stream.readline(200)
    return _SHEBANG.match(first) is not None
