"""The base branch: its spec, its tests, and what the head changed of what verdicts depend on."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from tiergate import spec
from tiergate.errors import UserError
from tiergate.repository import Repository, git
from tiergate.spec import Spec

_RELEVANT_NAMES = frozenset(
    {
        ".gitattributes",
        ".gitmodules",
        ".semgrepignore",
        "conftest.py",
        "gate.yaml",
        "pyproject.toml",
        "pytest.ini",
        "pytest.toml",
        ".pytest.ini",
        ".pytest.toml",
        "setup.cfg",
        "setup.py",
        "sitecustomize.py",
        "tox.ini",
        "usercustomize.py",
        "constraints.txt",
    }
)
_RELEVANT_FOLDERS = (".github/", "scripts/")
# Where entry points stand that pytest loads plugins by.
_RELEVANT_PACKAGES = frozenset({".dist-info", ".egg-info"})
_RELEVANT_SUFFIXES = frozenset({".pth"})


# Where git looks for a name that is not written out.
_REFS = ("refs/tags/", "refs/heads/", "refs/remotes/")


class Base(msgspec.Struct, frozen=True):
    """A checkout of the base in a folder of its own."""

    commit: str
    repository: Repository


@contextmanager
def checkout(head: Repository, ref: str) -> Iterator[Base]:
    """Check out ``ref`` of the head's repository into a temporary work tree.

    Raises:
        UserError: the head is no git repository, or has no such commit.
    """
    commit = resolve(head, ref)
    prefix = git(head.root, "rev-parse", "--show-prefix").decode().strip()
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - only where there is a base

    with TemporaryDirectory(prefix="tiergate-base-") as folder:
        tree = Path(folder).resolve() / "tree"
        git(head.root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield Base(commit, Repository(tree / prefix))
        finally:
            git(head.root, "worktree", "remove", "--force", str(tree))


def resolve(head: Repository, ref: str) -> str:
    """Return the commit that ``ref`` names.

    Raises:
        UserError: there is none, or the name is ambiguous.
    """
    if not head.is_git:
        raise UserError(f"--base {ref}: {head.root} is not a git repository")
    if ref.startswith("-"):
        raise UserError(f"--base {ref}: not the name of a commit")
    # Git would take the first, say so on its standard error, and go on.
    known = git(head.root, "for-each-ref", "--format=%(refname)", *(p + ref for p in _REFS))
    if len(named := [name for name in known.decode().split() if name.endswith(f"/{ref}")]) > 1:
        raise UserError(
            f"--base {ref} names both {' and '.join(named)}: write out the one you mean"
        )
    try:
        answer = git(head.root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    except UserError:
        raise UserError(
            f"--base {ref}: no such commit here; fetch it first (a shallow clone has only its tip)"
        ) from None
    return answer.decode().strip()


def judge_relevant_changes(head: Repository, commit: str, judged_by: Iterable[Spec]) -> list[str]:
    """Return the files that differ from the base and can change what a verdict means."""
    programs = {name for of in judged_by for name in _programs(of)}
    changed = changed_files(head, commit)
    return [name for name in changed if is_relevant(name) or name in programs]


def _programs(judged_by: Spec) -> Iterator[str]:
    """Yield what the criteria run, as files of the repository are named: the head may bring it."""
    for criterion in judged_by.criteria:
        words = msgspec.to_builtins(criterion.parameters).get("run", ())
        yield from (posixpath.normpath(word) for word in words)


def changed_files(head: Repository, commit: str) -> list[str]:
    """Return the files that differ from the base, removed and untracked ones included; sorted."""
    options = ("--name-only", "--no-renames", "--ignore-submodules=none", "--relative", "-z")
    changed = git(head.root, "diff", *options, commit, "--", ".")
    untracked = git(head.root, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")
    names = {name.decode(errors="replace") for name in (changed + untracked).split(b"\0") if name}
    return sorted(names)


def is_relevant(name: str) -> bool:
    """Tell whether a file can change what any verdict means."""
    path = PurePosixPath(name)
    return (
        path.name in _RELEVANT_NAMES
        or path.suffix in _RELEVANT_SUFFIXES
        or any(folder.suffix in _RELEVANT_PACKAGES for folder in path.parents)
        or name.startswith(_RELEVANT_FOLDERS)
    )


class Specs(msgspec.Struct, frozen=True):
    """The spec of the base, or the head's where the base has none; and the head's if it differs."""

    base: Spec
    head: Spec | None
    origin: Literal["base", "head"]


def specs(head: Repository, commit: str, path: Path) -> Specs:
    """Return the base's spec, and the head's where it differs.

    Where the base has none yet, the head's decides.

    Args:
        head: the judged repository.
        commit: the base.
        path: the spec in the head's work tree.

    Raises:
        UserError: the spec lies outside the repository, or one of the two is not valid.
    """
    try:
        relative = path.resolve().relative_to(head.root)
    except ValueError:
        raise UserError(
            f"--spec {path}: with --base the spec must lie in the repository {head.root}"
        ) from None
    data = _content(head, commit, relative)
    if data is None:
        return Specs(spec.load(path), None, "head")
    parsed = spec.parse(data, Path(f"{relative}@{commit[:12]}"))
    of_base = msgspec.structs.replace(parsed, path=path, base=commit)
    if not path.exists():
        raise UserError(f"{path}: the head removed the spec that commit {commit[:12]} has")
    own = spec.load(path)
    return Specs(of_base, None if own.digest == of_base.digest else own, "base")


def _content(head: Repository, commit: str, relative: Path) -> bytes | None:
    # Asked of the tree: a file whose content cannot be read, as in a partial clone, is not absent.
    if not git(head.root, "ls-tree", "-z", commit, "--", f":(literal){relative.as_posix()}"):
        return None
    return git(head.root, "show", f"{commit}:./{relative.as_posix()}")
