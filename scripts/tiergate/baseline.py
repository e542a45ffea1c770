"""``">=base"``: no test of the base may vanish, told by its id, or by its body where it moved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tiergate.base import Base
from tiergate.checkers import Context, Observation
from tiergate.sessions import records, running
from tiergate.spec import Criterion
from tiergate.verdict import BaseTests, Failure, write_atomically

Tests = Mapping[str, str]
"""Test id → digest of its body."""


class Comparison(msgspec.Struct, frozen=True):
    """What became of the base's tests."""

    vanished: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]


class Answer(msgspec.Struct):
    """The tests that a commit has for a criterion."""

    tests: dict[str, str]
    problem: str = ""
    """Why they are not known."""


class Baseline:
    """Collects a criterion's tests in the base's work tree.

    Args:
        base: the base's checkout.
        kept: the folder for answers; without it each is collected anew.
        circumstances: a digest of what an answer depends on besides the base and the criterion.
    """

    def __init__(self, base: Base, kept: Path | None = None, circumstances: str = "") -> None:
        self._base = base
        self._kept = kept
        self._circumstances = circumstances

    def tests(self, context: Context) -> BaseTests:
        """Return the tests that the criterion has on the base."""
        answer = self._tests(context)
        return BaseTests(self._base.commit, answer.tests, answer.problem)

    def _tests(self, context: Context) -> Answer:
        if self._kept is None:
            return collect(self._base, context)
        file = self._kept / f"{self._key(context)}.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Answer)
        except (OSError, msgspec.DecodeError):
            pass  # not asked before, or not readable any more: collect
        answer = collect(self._base, context)
        if not answer.problem:
            self._kept.mkdir(parents=True, exist_ok=True)
            write_atomically(file, msgspec.json.encode(answer))
        return answer

    def _key(self, context: Context) -> str:
        candidate = context.candidate
        parts = (
            self._base.repository.source().tree,
            context.criterion.uses,
            msgspec.json.encode(context.criterion.parameters).decode(),
            context.device,
            str(candidate.python),
            repr(candidate.spec.pythonpath),
            repr(sorted(candidate.environment(context.device).items())),
            self._circumstances,
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def collect(base: Base, context: Context) -> Answer:
    """Collect a criterion's tests in the base's work tree."""
    candidate = msgspec.structs.replace(context.candidate, repository=base.repository)
    there = msgspec.structs.replace(
        context,
        candidate=candidate,
        progress=_silent,
        expect_tests=lambda _: None,
        share=None,
        timings=None,
    )
    root = base.repository.root
    parameters = msgspec.to_builtins(context.criterion.parameters)
    paths = [path for path in parameters["paths"] if (root / path.split("::")[0]).exists()]
    if not paths:
        return Answer({})  # the base has no such tests yet
    arguments = [*parameters["args"], "--collect-only"]
    # As on the head: the bodies are compared.
    plain = context.criterion.uses == "collection" or parameters.get("collect-only", False)
    result, session = running.run_session(there, paths, arguments, plain=plain)
    problem = records.problem_of(result, session, collect_only=True)
    if not problem and session.counts["errors"]:
        first = session.failures[0]
        problem = f"{session.counts['errors']} errors, the first in {first.id}"
    return Answer(dict(session.bodies), problem)


def against(base: BaseTests, observation: Observation, criterion: Criterion) -> Observation:
    """Return the observation with the tests counted as ``vanished`` that the base has alone.

    A base that does not collect makes it an error.
    """
    outcomes = [name for name, bound in criterion.expect.items() if bound.base]
    if base.problem:
        return msgspec.structs.replace(
            observation, error=f"the base does not collect: {base.problem}"
        )
    vanished: dict[str, str] = {}
    notes = list(observation.notes)
    for outcome in outcomes:
        found = compare(base.tests, observation.tests.get(outcome, {}))
        vanished |= dict.fromkeys(found.vanished, outcome)
        notes += [f"renamed since the base: {old} → {new}" for old, new in found.renamed]
    notes.append(f"{len(base.tests)} tests on the base, commit {base.commit[:12]}")
    failures = [
        Failure(id=test, outcome="vanished", message=f"the base has it; not {outcome} here")
        for test, outcome in vanished.items()
    ]
    return msgspec.structs.replace(
        observation,
        counts={**observation.counts, "vanished": len(vanished)},
        failures=(*failures, *observation.failures)[: records.MAX_FAILURES],
        notes=tuple(dict.fromkeys(notes)),
    )


def compare(base: Tests, head: Tests) -> Comparison:
    """Pair the base's tests with the head's: by id, then by body among those that are left."""
    new: dict[str, list[str]] = {}
    for test, body in head.items():
        if test not in base:
            new.setdefault(body, []).append(test)
    vanished, renamed = [], []
    for test, body in base.items():
        if test in head:
            continue
        if body and new.get(body):
            renamed.append((test, new[body].pop(0)))
        else:
            vanished.append(test)
    return Comparison(tuple(vanished), tuple(renamed))


def _silent(_: str) -> None:
    """Nobody watches the base's collection."""
