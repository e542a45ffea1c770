"""Tries every counter-example of every criterion, in copies of the repository."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from tiergate import checkers
from tiergate.base import Base
from tiergate.baseline import Baseline
from tiergate.candidate import Candidate, Imported
from tiergate.errors import NotEvaluatedError, UserError
from tiergate.expectation import Outcomes
from tiergate.plan import Cell
from tiergate.prove import copies, kinds
from tiergate.prove.copies import Copies
from tiergate.prove.counter_examples import CounterExample, Tree, from_entry
from tiergate.prove.proof import Conclusion, CriterionProof, Tried
from tiergate.repository import Repository
from tiergate.runner import DEVICE_TIMEOUT, Evaluation
from tiergate.spec import Criterion
from tiergate.verdict import PASSING, Part, Verdict
from tiergate.warm import WarmInterpreter

_TICK = 0.2


class Listener(Protocol):
    """Is told what happens, for a person who watches."""

    def untouched(self, verdict: Verdict, when: str) -> None:
        """The untouched copy was judged, ``before`` or ``after`` the counter-examples."""

    def tried(self, criterion: str, tried: Tried) -> None:
        """A counter-example was tried."""


@dataclass
class _Work:
    """What there is to do for one criterion, and what came of it."""

    cell: Cell
    examples: list[CounterExample] = field(default_factory=list)
    unmade: list[Tried] = field(default_factory=list)
    inapplicable: list[str] = field(default_factory=list)
    tried: dict[int, Tried] = field(default_factory=dict)
    before: Verdict | None = None
    after: Verdict | None = None

    @property
    def criterion(self) -> Criterion:
        return self.cell.criterion

    @property
    def outcomes(self) -> Outcomes:
        return checkers.get(self.criterion.uses).outcomes(self.criterion.parameters)

    @property
    def seconds(self) -> float:
        return self.before.seconds if self.before else 0.0


def prove(
    cells: Iterable[Cell], candidate: Candidate, *, jobs: int, listener: Listener
) -> list[CriterionProof]:
    """Try the counter-examples of each cell's criterion; the proofs come in the same order.

    The untouched copy is judged first and, when all was tried, once more. After a cancellation
    nothing is started any more; what was not tried makes a criterion ``not evaluated``.

    Raises:
        NotEvaluatedError: the device is not there, or the repository cannot be copied.
    """
    works = [_Work(cell) for cell in cells]
    _check_device(works, candidate)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(copies.copies(candidate.repository))
        prover = _Prover(
            made, msgspec.structs.replace(candidate, imported=Imported()), jobs, listener
        )
        prover.judge_untouched(works, "before")
        prover = replace(prover, candidate=_deepened(prover.candidate, stack))
        tree = Tree(made.untouched.root, tuple(made.untouched.files), candidate.spec)
        ready = [work for work in works if work.before and work.before.status in PASSING]
        for work in ready:
            _make(work, tree)
        prover.try_all(ready)
        prover.judge_untouched(ready, "after")
    return [_concluded(work) for work in works]


def _check_device(works: list[_Work], candidate: Candidate) -> None:
    if any(work.cell.device == "cuda" for work in works):
        proof = candidate.run_job("cuda", "cuda", DEVICE_TIMEOUT, {})
        if not proof.of("device") or proof.problem:
            said = proof.problem or proof.of("no-device")[0]["reason"]
            raise NotEvaluatedError(f"no usable CUDA device: {said}")


def _deepened(candidate: Candidate, stack: contextlib.ExitStack) -> Candidate:
    """Have the warm interpreter import ahead of time what the criteria import anyway."""
    warm, imported = candidate.warm, candidate.imported
    candidate = msgspec.structs.replace(candidate, imported=None)
    if warm is None or imported is None:
        return candidate
    if warm.load(list(imported.modules), list(imported.rewritten), candidate.cancellation):
        return candidate
    # One of them cannot be imported by itself: as shallow as it was, then.
    fresh = WarmInterpreter(candidate.python, warm.environment)
    return msgspec.structs.replace(candidate, warm=stack.enter_context(fresh))


def _make(work: _Work, tree: Tree) -> None:
    """Make the counter-examples of a criterion; one that cannot be made is kept as such."""
    assert work.before is not None
    examples = kinds.generic(work.criterion, tree)
    for entry in work.criterion.proofs:
        try:
            examples.append(from_entry(entry, tree))
        except UserError as error:
            work.unmade.append(
                Tried(
                    name=entry.name,
                    what="could not be made",
                    caught=False,
                    expected=entry.status,
                    observed=None,
                    problem=str(error),
                    declared=True,
                )
            )
    observed = work.before.evidence.observed
    for example in examples:
        if example.applies(work.criterion, work.outcomes, observed):
            work.examples.append(example)
        else:
            work.inapplicable.append(example.name)


@dataclass(frozen=True)
class _Prover:
    copies: Copies
    candidate: Candidate
    jobs: int
    listener: Listener

    def judge_untouched(self, works: list[_Work], when: str) -> None:
        """Judge the untouched copy by each criterion."""

        def judge(work: _Work) -> Callable[[], None]:
            def task() -> None:
                verdict = self._verdict(work.cell, self.copies.untouched.root)
                if when == "before":
                    work.before = verdict
                else:
                    work.after = verdict
                self.listener.untouched(verdict, when)

            return task

        self._run([judge(work) for work in sorted(works, key=_longest_first)])

    def try_all(self, works: list[_Work]) -> None:
        """Try every counter-example."""

        def attempt(work: _Work, index: int, example: CounterExample) -> Callable[[], None]:
            def task() -> None:
                tried = self._try(work, example)
                if self.candidate.cancellation.requested:
                    return  # it may have been ended, which says nothing of the criterion
                work.tried[index] = tried
                self.listener.tried(work.criterion.id, tried)

            return task

        self._run(
            [
                attempt(work, index, example)
                for work in sorted(works, key=_longest_first)
                for index, example in enumerate(work.examples)
            ]
        )

    def _try(self, work: _Work, example: CounterExample) -> Tried:
        started = time.monotonic()
        verdict: Verdict | None = None
        try:
            with self.copies.copy() as root:
                copies.apply(root, example.edits, example.patch)
                verdict = self._verdict(work.cell, root)
            problem = example.objection(verdict, work.outcomes)
        except (UserError, OSError) as error:
            problem = f"it could not be tried: {error}"
        return Tried(
            name=example.name,
            what=example.what,
            caught=not problem,
            expected=example.status,
            observed=verdict.status if verdict else None,
            summary=verdict.summary if verdict else "",
            evidence=_first(verdict) if verdict else "",
            problem=problem,
            declared=example.declared,
            counts=verdict.evidence.observed if verdict else {},
            seconds=round(time.monotonic() - started, 3),
        )

    def _verdict(self, cell: Cell, root: Path) -> Verdict:
        candidate = msgspec.structs.replace(
            self.candidate, repository=Repository(root, self.copies.original)
        )
        # The untouched copy stands for the base branch.
        base = Base("untouched", self.copies.untouched)
        baseline = Baseline(base, self.copies.cache) if cell.criterion.needs_base else None
        return Evaluation(candidate, _Silent(), baseline, lambda verdict: verdict).verdict(cell)

    def _run(self, tasks: list[Callable[[], None]]) -> None:
        """Run tasks in parallel; after a cancellation, or an error of ours, none is started."""
        cancellation = self.candidate.cancellation
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(max_workers=self.jobs, thread_name_prefix="prove") as pool:
            try:
                while tasks or running:
                    if cancellation.requested:
                        tasks.clear()
                    while tasks and len(running) < self.jobs:
                        running.add(pool.submit(tasks.pop(0)))
                    done, running = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException as error:
                cancellation.cancel(f"stopped by {type(error).__name__}")
                raise


def _first(verdict: Verdict) -> str:
    """Return what the evidence of a verdict begins with."""
    evidence = verdict.evidence
    if evidence.failures:
        return f"{evidence.failures[0].outcome}: {evidence.failures[0].id}"
    if evidence.findings:
        finding = evidence.findings[0]
        return f"{finding.path}:{finding.line} {finding.rule}"
    return evidence.running


class _Silent:
    """Nobody watches the single tests of a counter-example."""

    def started(self, cell: str) -> None:
        """Say nothing."""

    def progress(self, cell: str, what: str) -> None:
        """Say nothing."""

    def expected(self, cell: str, tests: int) -> None:
        """Say nothing."""

    def finished(self, verdict: Verdict) -> None:
        """Say nothing."""

    def observed(self, part: Part) -> None:
        """Say nothing."""


def _longest_first(work: _Work) -> float:
    return -work.seconds


def _concluded(work: _Work) -> CriterionProof:
    conclusion, problem = _conclusion(work)
    return CriterionProof(
        criterion=work.criterion.id,
        uses=work.criterion.uses,
        device=work.cell.device,
        conclusion=conclusion,
        problem=problem,
        before=work.before.status if work.before else None,
        after=work.after.status if work.after else None,
        made=len(work.examples) + len(work.unmade),
        tried=[*(work.tried[index] for index in sorted(work.tried)), *work.unmade],
        inapplicable=work.inapplicable,
    )


def _conclusion(work: _Work) -> tuple[Conclusion, str]:
    """Say whether a criterion is proven; what is worst comes first."""
    if work.before is None:
        return "not evaluated", "the untouched copy was not judged"
    if work.before.status not in PASSING:
        unjudged = work.before.status == "error"
        return (
            "not evaluated" if unjudged else "not proven",
            f"the untouched copy does not pass: {work.before.status}: {work.before.summary}",
        )
    tried = list(work.tried.values())
    survivors = [attempt.name for attempt in tried if not attempt.caught and attempt.observed]
    if survivors:
        return (
            "not proven",
            f"{len(survivors)} of {len(tried)} counter-examples are not caught: "
            + ", ".join(survivors),
        )
    if not work.examples and not work.unmade:
        return "not proven", _none(work)
    if untried := [t for t in [*tried, *work.unmade] if t.observed is None]:
        return "not evaluated", "; ".join(f"{t.name}: {t.problem}" for t in untried)
    if len(tried) != len(work.examples):
        return "not evaluated", f"{len(tried)} of {len(work.examples)} counter-examples were tried"
    if work.after is None:
        return "not evaluated", "the untouched copy was not judged again"
    if work.after.status not in PASSING:
        return (
            "not evaluated" if work.after.status == "error" else "not proven",
            f"the untouched copy does not pass again: {work.after.status}: {work.after.summary}",
        )
    return "proven", ""


def _none(work: _Work) -> str:
    if work.inapplicable:
        return (
            "no counter-example: the expectation bears "
            f"{', '.join(dict.fromkeys(work.inapplicable))}; make it stricter, or declare what "
            "must fail under 'proofs'"
        )
    return (
        f"no counter-example: for uses: {work.criterion.uses}, declare under 'proofs' a change of "
        "the repository that must make it fail"
    )
