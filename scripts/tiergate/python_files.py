"""The Python of a repository that has to be read, and why some of it cannot be."""

from __future__ import annotations

import hashlib
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
    found.unreadable += repository.twins(list(paths))
    for name in repository.files_under(list(paths)):
        if not name.isprintable():
            found.unreadable.append(f"{name!a}: such a name cannot be passed on safely")
        elif problem := _add(found, name, repository):
            found.unreadable.append(f"{name}: {problem}")
    return found


def others(repository: Repository, known: Inventory) -> dict[str, bytes]:
    """Return the rest of the repository's modules: what is scanned may import from them."""
    sources = {}
    for name in repository.files:
        path = repository.root / name
        is_module = name.isprintable() and path.suffix.lower() == ".py" and path.is_file()
        if is_module and name not in known.files and not repository.leaves(name):
            sources[name] = path.read_bytes()
    return sources


def _add(found: Inventory, name: str, repository: Repository) -> str:
    """Read one file into the inventory; say why it cannot be."""
    path = repository.root / name
    suffix = path.suffix.lower()
    if repository.leaves(name):
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
