"""Throw-away copies of the repository, outside of it, each a git repository of its own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tiergate.errors import NotEvaluatedError, UserError
from tiergate.prove.counter_examples import CounterExampleError
from tiergate.repository import Repository, git

_PREFIX = "tiergate-prove-"
_LOCK = "lock"


class Copies:
    """A folder of copies; made by ``copies``.

    Attributes:
        original: the folder that all of them are copies of.
        untouched: the copy that stays as the repository is.
        cache: a folder for what the untouched copy answers as a base.
    """

    def __init__(self, folder: Path, original: Repository) -> None:
        self.original = original.original
        self.untouched = Repository(folder / "untouched", self.original)
        self.cache = folder / "cache"
        self._folder = folder
        self._count = 0
        self._lock = threading.Lock()
        _copy_files(original, self.untouched.root)
        _make_repository(self.untouched.root)

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """Yield the root of a fresh copy, which is removed afterwards.

        Raises:
            NotEvaluatedError: there is no room for it, or it cannot be written.
        """
        with self._lock:
            self._count += 1
            root = self._folder / f"{self._count:04}"
        try:
            _copy_tree(self.untouched.root, root)
            yield root
        finally:
            _remove(root)


@contextmanager
def copies(original: Repository) -> Iterator[Copies]:
    """Yield a folder of copies of ``original`` in the system's folder for temporary files.

    Folders that killed runs left behind are removed first: the lock of a run ends with it.

    Raises:
        UserError: the folder for temporary files lies inside the repository.
    """
    temporary = Path(tempfile.gettempdir()).resolve()
    if original.root in {temporary, *temporary.parents}:
        raise UserError(
            f"the folder for temporary files, {temporary}, lies in the repository, which is never "
            "touched; set TMPDIR to another one"
        )
    remove_stale(temporary)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=temporary))
    lock = os.open(folder / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "new").rename(folder / _LOCK)  # seen by others only now that it is locked
        yield Copies(folder, original)
    finally:
        _remove(folder)
        os.close(lock)


def remove_stale(temporary: Path) -> None:
    """Remove the folders of runs that have ended without removing them."""
    for folder in temporary.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
                continue
            # Without a lock file it is being made just now, or being removed.
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
            finally:
                os.close(lock)


def apply(root: Path, edits: Mapping[str, bytes | None], patch: bytes) -> None:
    """Change a copy.

    Raises:
        CounterExampleError: the patch does not apply, a path leads elsewhere, or all is as before.
    """
    before = digest(root)
    added = [n for n, content in edits.items() if content is not None and not (root / n).exists()]
    for name, content in edits.items():
        path = root / name
        if root not in Path(os.path.realpath(path)).parents or path.is_symlink():
            raise CounterExampleError(f"{name} is, or lies behind, a symbolic link")
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if added:
        git(root, "add", "--force", "--", *added)  # as if committed, also what git ignores
    if patch:
        _apply_patch(root, patch)
    if digest(root) == before:
        raise CounterExampleError("it changes nothing")


def digest(root: Path) -> str:
    """Return a digest of all files of a copy, with their names and modes."""
    sha = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in {".git", "__pycache__"})
        for name in sorted(names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                content = os.fsencode(path.readlink())
            else:
                content = path.read_bytes() if stat.S_ISREG(mode) else b""
            place = os.fsencode(path.relative_to(root))
            sha.update(b"%d %s\0%d\0" % (mode, place, len(content)) + content)
    return sha.hexdigest()


def _apply_patch(root: Path, patch: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="tiergate-", suffix=".patch") as file:
        file.write(patch)
        file.flush()
        try:
            git(root, "apply", "--whitespace=nowarn", file.name)
        except NotEvaluatedError as error:
            raise CounterExampleError(f"the patch does not apply: {error}") from None


def _copy_files(original: Repository, root: Path) -> None:
    root.mkdir(parents=True)
    for name in original.files:
        source, target = original.root / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(_own_link(source, original.root))
        elif source.is_dir():
            target.mkdir(exist_ok=True)  # a submodule: it is not judged
        else:
            shutil.copy2(source, target)
            target.chmod(target.stat().st_mode | stat.S_IWUSR)  # it is there to be changed


def _copy_tree(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, symlinks=True)
    except (OSError, shutil.Error) as error:
        raise NotEvaluatedError(f"{target}: cannot copy the repository: {error}") from None


def _own_link(link: Path, root: Path) -> str:
    """Return a link's target; one inside the repository never leads back to the original."""
    target = link.readlink()
    if target.is_absolute() and root in target.parents:
        return os.path.relpath(target, link.parent)
    return str(target)


def _make_repository(root: Path) -> None:
    git(root, "init", "--quiet", "--template=")
    git(root, "add", "--all", "--force")
    who = ["-c", "user.name=tiergate", "-c", "user.email=tiergate@localhost"]
    git(
        root, *who, "-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "-m", "copy"
    )
    git(root, "repack", "-a", "-d", "--quiet")


def _remove(folder: Path) -> None:
    """Remove a folder, also where candidate code took away permissions in it."""
    if not folder.exists():
        return
    for inner, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(inner, name)
            if not path.is_symlink() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
