"""What a whole scan observed before, of a tree in which nothing has changed since.

Which files changed is git's to say, from the times in its index and with its care for files that
changed in the moment they were staged; what it does not know is read. Outside of git, in CI and of
a throw-away copy every scan is made anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tiergate import cache_facts, findings_cache
from tiergate.candidate import Candidate
from tiergate.checkers import Observation
from tiergate.findings_cache import FindingsCache
from tiergate.repository import Repository
from tiergate.scanning import engines, rules
from tiergate.scanning.request import Request
from tiergate.verdict import Finding


class _Answer(msgspec.Struct, frozen=True):
    """The parts of an observation that a scan gives."""

    error: str
    counts: dict[str, int]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


class Answers:
    """The answer to one request, by the digest of the repository's tree.

    Args:
        request: what is scanned, and how.
        candidate: what is judged, with the interpreter that compiles it.
    """

    def __init__(self, request: Request, candidate: Candidate) -> None:
        self._repository = candidate.repository
        place = findings_cache.folder(os.environ)
        copied = self._repository.root != self._repository.original
        self._tree = "" if place is None or copied else self._repository.tree
        self._kept = FindingsCache(
            place if self._tree else None,
            f"scan-{_digest(request, candidate)[:32]}" if self._tree else "",
        )

    def get(self) -> Observation | None:
        """Return what was observed of the same tree, or None."""
        known = self._kept.get(self._tree)
        if known is None:
            return None
        answer = msgspec.convert(known, _Answer)
        return Observation(
            error=answer.error, counts=answer.counts, findings=answer.findings, notes=answer.notes
        )

    def put(self, observed: Observation) -> None:
        """Keep what was observed, unless the tree changed meanwhile."""
        if not self._tree or Repository(self._repository.root).tree != self._tree:
            return
        answer = _Answer(
            observed.error, dict(observed.counts), observed.findings, tuple(observed.notes)
        )
        self._kept.put(self._tree, msgspec.to_builtins(answer))
        self._kept.save()


def _digest(request: Request, candidate: Candidate) -> str:
    """Return a digest of all but the tree that an answer depends on."""
    core = engines.fast()
    programs = [candidate.python, candidate.python.resolve(), *([core] if core else [])]
    return findings_cache.digest(
        candidate.repository.root,
        cache_facts.tool(),
        *(f"{program} {_signature(program)}" for program in programs),
        request.engine,
        request.policy,
        *(text for rule in request.rules for text in (rule, *rules.texts(rule))),
        "below",
        *request.paths,
    )


def _signature(program: Path) -> str:
    about = program.stat()
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ino}"
