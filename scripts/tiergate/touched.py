"""Whose change a failure concerns: the changed files that it names, and their commits.

It points people to where to look first and decides nothing; it is silent where git cannot tell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath

import msgspec

from tiergate.base import changed_files
from tiergate.errors import NotEvaluatedError
from tiergate.repository import Repository, git
from tiergate.spec import Criterion
from tiergate.verdict import PASSING, Touch, Verdict

MOST = 10
"""Files of one verdict that are named."""
_MOST_ASKED = 60
"""Files of one leg whose commits git is asked for."""
_LONGEST = 200
_MOST_TEXT = 500_000
_DEEPEST = 30


class Change:
    """What the head changed: since the base, or in its latest commit and after it.

    Args:
        head: the judged repository.
        base: the commit of the base, or "" without one.
    """

    def __init__(self, head: Repository, base: str = "") -> None:
        self._head = head
        self._base = base
        self._known: dict[str, Touch | None] = {}

    def attach(
        self, verdicts: Sequence[Verdict], criterion: Callable[[str], Criterion]
    ) -> list[Verdict]:
        """Return the verdicts; those that did not pass with the changed files that they concern."""
        if all(verdict.status in PASSING for verdict in verdicts) or not self._head.is_git:
            return list(verdicts)
        try:
            return [
                verdict
                if verdict.status in PASSING
                else self._told(verdict, criterion(verdict.criterion))
                for verdict in verdicts
            ]
        except NotEvaluatedError:
            return list(verdicts)  # a help for people: the verdicts stand without it

    def _told(self, verdict: Verdict, criterion: Criterion) -> Verdict:
        names = concerned(self._changed, verdict, criterion)
        touches = (touch for name in names if (touch := self._touch(name)) is not None)
        evidence = msgspec.structs.replace(verdict.evidence, touched=list(islice(touches, MOST)))
        return msgspec.structs.replace(verdict, evidence=evidence)

    @cached_property
    def _since(self) -> str:
        """The commit that the change begins after; "" where the history begins with the head."""
        try:
            name = self._base or "HEAD^"
            return git(self._head.root, "rev-parse", "--verify", "--quiet", name).decode().strip()
        except NotEvaluatedError:
            return ""

    @cached_property
    def _uncommitted(self) -> frozenset[str]:
        return frozenset(changed_files(self._head, "HEAD"))

    @cached_property
    def _changed(self) -> list[str]:
        if not self._since:
            return self._head.files
        return changed_files(self._head, self._since)

    @cached_property
    def _cut(self) -> frozenset[str]:
        """The commits of a shallow clone that seem to add every file."""
        name = git(self._head.root, "rev-parse", "--git-path", "shallow").rstrip(b"\n")
        file = self._head.root / os.fsdecode(name)
        return frozenset(file.read_text().split()) if file.exists() else frozenset()

    def _touch(self, path: str) -> Touch | None:
        if path in self._uncommitted:
            return Touch(path)
        if path not in self._known and len(self._known) < _MOST_ASKED:
            self._known[path] = self._commit(path)
        return self._known.get(path)

    def _commit(self, path: str) -> Touch | None:
        """Ask for the last commit of the change that touched a file; None if git cannot tell."""
        told = git(
            self._head.root,
            "--literal-pathspecs",
            "log",
            "--max-count=1",
            "--no-show-signature",
            "--encoding=UTF-8",
            "--format=%H%x00%h%x00%an%x00%s",
            f"{self._since}..HEAD" if self._since else "HEAD",
            "--",
            path,
        )
        if not told:
            return None  # the base changed it, not the head
        full, short, author, subject = told.decode(errors="replace").rstrip("\n").split("\0")
        if full in self._cut:
            return None
        return Touch(path, short, author[:_LONGEST], subject[:_LONGEST])


def concerned(changed: Iterable[str], verdict: Verdict, criterion: Criterion) -> list[str]:
    """Return the changed files that a verdict concerns, the nearest to what failed first.

    First those at the place of a failure or finding, then those that a message or traceback names,
    then those that the remedy names; only where there is none, those below the criterion's paths.
    """
    evidence = verdict.evidence
    places = {finding.path for finding in evidence.findings}
    for failure in evidence.failures:
        places |= {failure.path, failure.id.partition("::")[0]}
    texts = [verdict.summary, evidence.output]
    texts += [text for f in evidence.failures for text in (f.message, f.details)]
    named = set(_words("\n".join(texts)[:_MOST_TEXT]))
    changed = list(changed)
    ranks = {
        name: 0 if name in places else 1 if name in named else 2
        for name in changed
        if name in places or name in named or _lies_in(name, verdict.remedy.files)
    }
    if not ranks:
        return sorted(name for name in changed if _lies_in(name, _paths(criterion.parameters)))
    return sorted(ranks, key=lambda name: (ranks[name], name))


def _words(text: str) -> Iterator[str]:
    """Yield what may be a path in a text; of an absolute one, every tail of it."""
    for word in dict.fromkeys(re.findall(r"[\w./+-]+", text)):
        parts = word.rstrip(".").split("/")[-_DEEPEST:]
        yield from ("/".join(parts[start:]) for start in range(len(parts)))


def _paths(parameters: msgspec.Struct) -> list[str]:
    """Return the paths that a criterion of whichever kind is about."""
    paths = getattr(parameters, "paths", [])
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def _lies_in(name: str, paths: Iterable[str]) -> bool:
    """Tell whether a file is, or lies below, one of the paths."""
    wanted = {os.path.normpath(path.partition("::")[0]) for path in paths}
    path = PurePosixPath(name)
    return any(str(each) in wanted for each in (path, *path.parents))
