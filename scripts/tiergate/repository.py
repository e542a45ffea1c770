"""The judged repository: its commit, a digest of its tree, and the files that belong to it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tiergate.errors import NotEvaluatedError
from tiergate.verdict import Source

# What a repository's own settings could make git overlook, or run.
_GIT_ENVIRONMENT = {"GIT_NO_REPLACE_OBJECTS": "1", "LC_ALL": "C"}
_GIT_SETTINGS = [
    word
    for setting in (
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.untrackedCache=false",
        "core.checkStat=default",
        "core.trustctime=true",
        "diff.ignoreSubmodules=none",
        "status.showUntrackedFiles=normal",
    )
    for word in ("-c", setting)
]
_SKIPPED_WITHOUT_GIT = frozenset({".git", ".hg", ".tiergate", "__pycache__", "node_modules"})


class _Listed(NamedTuple):
    names: set[str]
    unchanged: dict[str, tuple[str, str]]
    """Mode and blob id of the tracked files that git knows to be as they were staged."""
    withheld: set[str]
    """Tracked files that git keeps out of the work tree, and does not report as deleted."""


class Repository:
    """A folder with the candidate's code; in git where it is a checkout.

    Args:
        root: the repository's top folder.
        original: of a throw-away copy, the folder that it is a copy of.
    """

    def __init__(self, root: Path, original: Path | None = None) -> None:
        self.root = root.resolve()
        self.original = (original or root).resolve()
        """What is kept on the repository between runs is kept under this name."""

    @cached_property
    def is_git(self) -> bool:
        """Whether ``root`` lies in a git work tree."""
        return self._listed is not None

    @cached_property
    def files(self) -> list[str]:
        """The files that belong to it: tracked, or untracked and not ignored; sorted.

        Paths are relative with ``/``. Tracked files that are gone from the folder are not listed.
        Without git, every file below the folder.
        """
        return sorted(self._walk() if self._listed is None else self._listed.names)

    @cached_property
    def _listed(self) -> _Listed | None:
        """What git has in its index and in the work tree; None outside of a work tree."""
        try:
            told = git(
                self.root,
                "ls-files",
                *("-v", "--stage", "--cached", "--modified", "--others", "--exclude-standard"),
                *("-z", "--", "."),
            )
        except NotEvaluatedError:
            if any((folder / ".git").exists() for folder in (self.root, *self.root.parents)):
                raise  # a checkout that git refuses must not be judged as a mere folder
            return None
        names: set[str] = set()
        changed: set[str] = set()
        skipped: set[str] = set()
        blobs: dict[str, tuple[str, str]] = {}
        for line in told.split(b"\0")[:-1]:
            if line.startswith(b"? "):  # untracked
                names.add(os.fsdecode(line[2:]))
                continue
            about, _, path = line.partition(b"\t")
            name = os.fsdecode(path)
            names.add(name)
            tag, mode, blob, _ = about.decode().split(" ")
            if tag == "H":  # git looks at it: it is not told to assume that it is unchanged
                blobs[name] = (mode, blob)
            elif tag == "C":  # a second line: changed, or gone
                changed.add(name)
            elif tag in {"S", "s"}:  # the skip-worktree bit, which a sparse checkout sets
                skipped.add(name)
        unchanged = {name: about for name, about in blobs.items() if name not in changed}
        there = {n for n in names if n in unchanged or os.path.lexists(self.root / n)}
        return _Listed(there, unchanged, skipped - there)

    def files_under(self, paths: list[str]) -> list[str]:
        """The files of the repository that are, or lie below, one of ``paths``."""
        return _under(paths, self.files)

    def withheld(self, paths: list[str]) -> list[str]:
        """Say which tracked files at or below ``paths`` a sparse checkout keeps out of the folder.

        Git takes them for unchanged, so that nothing else shows that they are not judged.
        """
        skipped = sorted(self._listed.withheld) if self._listed else []
        why = "is tracked, but kept out of the work tree: run `git sparse-checkout disable`"
        return [f"{name} {why}" for name in _under(paths, skipped)]

    def twins(self, paths: list[str]) -> list[str]:
        """Say which files at or below ``paths`` have a twin, whose name differs only in case.

        Where the file system does not tell them apart, only one of them is there.
        """
        known: dict[str, list[str]] = {}
        for name in self.files:
            known.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
        judged = set(self.files_under(paths))
        return [
            f"{' and '.join(names)} differ only in case: some file systems keep only one of them"
            for names in known.values()
            if len(names) > 1 and judged.intersection(names)
        ]

    def leaves(self, path: str) -> bool:
        """Tell whether ``path``, symbolic links followed, leads out of the repository."""
        real = Path(os.path.realpath(self.root / path))  # unlike resolve(), it bears a loop
        return real != self.root and self.root not in real.parents

    @cached_property
    def tree(self) -> str:
        """A digest of every file's name, mode and content; empty outside of a work tree."""
        if self._listed is None:
            return ""
        known = self._listed.unchanged
        digest = hashlib.sha256()
        for name in self.files:
            mode, blob = known.get(name) or _describe(self.root / name)
            digest.update(b"%s %s %s\0" % (mode.encode(), blob.encode(), os.fsencode(name)))
        return digest.hexdigest()

    def source(self) -> Source:
        """Return the commit and the digest of what is in the folder now."""
        try:
            # Before the files are listed, which reads each again that the index cannot vouch for.
            told = git(
                self.root,
                "status",
                *("--porcelain=v2", "--branch", "--no-ahead-behind", "--no-renames"),
                *("--ignore-submodules=none", "-z", "--", "."),
                refresh=True,
            )
        except NotEvaluatedError:
            if self._listed is None:
                return Source()
            raise
        commit, dirty = "", False  # a repository without a first commit has none
        for line in told.split(b"\0")[:-1]:
            if line.startswith(b"# branch.oid "):
                named = line.rpartition(b" ")[2].decode()
                commit = "" if named == "(initial)" else named
            dirty |= not line.startswith(b"# ")
        return Source(commit=commit, tree=self.tree, dirty=dirty)

    def _walk(self) -> list[str]:
        found: list[str] = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name not in _SKIPPED_WITHOUT_GIT]
            linked = [name for name in folders if Path(folder, name).is_symlink()]
            paths = (Path(folder, name) for name in (*names, *linked))
            # As git does: a pipe or a socket is no file, and reading one could wait for ever.
            found.extend(
                path.relative_to(self.root).as_posix()
                for path in paths
                if path.is_symlink() or path.is_file()
            )
        return found


def _under(paths: list[str], names: list[str]) -> list[str]:
    """The names that are, or lie below, one of ``paths``."""
    wanted = [os.path.normpath(path) for path in paths]
    if "." in wanted:
        return names
    folders = tuple(f"{path}/" for path in wanted)
    return [name for name in names if name in wanted or name.startswith(folders)]


def _describe(path: Path) -> tuple[str, str]:
    """Return mode and blob id as git would give them."""
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        return "120000", _blob(os.fsencode(path.readlink()))
    if stat.S_ISDIR(about.st_mode):
        return "160000", ""  # an untracked nested repository
    mode = "100755" if about.st_mode & stat.S_IXUSR else "100644"
    return mode, _blob(path.read_bytes())


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def git(root: Path, *arguments: str, refresh: bool = False) -> bytes:
    """Run git in ``root``, without the caller's GIT_ variables and without hooks.

    Args:
        root: where.
        arguments: git's own.
        refresh: let it note in its index which files it found to be unchanged, where nobody holds
            the index; right after a clone or a checkout, that spares reading them all every time.

    Raises:
        NotEvaluatedError: git is missing, or refuses.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *_GIT_SETTINGS, *arguments],
            cwd=root,
            env={
                **environment,
                **_GIT_ENVIRONMENT,
                "GIT_OPTIONAL_LOCKS": "1" if refresh else "0",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=True,
        )
    except FileNotFoundError:
        raise NotEvaluatedError("git is not installed, or not on PATH") from None
    except subprocess.TimeoutExpired:
        raise NotEvaluatedError(f"git {arguments[0]} took more than 120 seconds") from None
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip()
        raise NotEvaluatedError(f"git {arguments[0]} failed in {root}: {message}") from None
    return done.stdout
