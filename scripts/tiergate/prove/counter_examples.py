"""What a counter-example is: a change of the repository that must turn a criterion red."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tiergate.errors import UserError
from tiergate.expectation import Expectation, Outcomes, mismatches
from tiergate.prove import declared
from tiergate.prove.declared import ProofEntry
from tiergate.prove.python_source import Source
from tiergate.spec import Criterion, Spec
from tiergate.verdict import Status, Verdict


class CounterExampleError(UserError):
    """A counter-example that cannot be made, or changes nothing."""


@dataclass(frozen=True)
class CounterExample:
    """A change of the repository, and what the verdict must be then."""

    name: str
    """Of its kind: ``test-skipped``; or as the spec declares it."""
    what: str
    """What is changed, in words, with the place."""
    edits: Mapping[str, bytes | None] = field(default_factory=dict)
    """Path → new content, or None for a file that is deleted."""
    patch: bytes = b""
    """What ``git apply`` gets in the place of ``edits``."""
    status: Status = "fail"
    named: tuple[str, ...] = ()
    """One of these must stand in the verdict's evidence; without any, there must be some."""
    effect: Mapping[str, int] = field(default_factory=dict)
    """By how much outcomes change at least; where the criterion bears that, it does not apply."""
    expect: Expectation | None = None
    """The outcomes that must be observed."""
    declared: bool = False

    def applies(
        self, criterion: Criterion, outcomes: Outcomes, observed: Mapping[str, int]
    ) -> bool:
        """Tell whether the criterion's expectation, as it is written, refuses the effect."""
        if not self.effect:
            return True
        bounds = criterion.expect
        if any(name in bounds and bounds[name].base and n < 0 for name, n in self.effect.items()):
            return True  # a test of the base is gone
        names = {*observed, *self.effect}
        counts = {name: observed.get(name, 0) + self.effect.get(name, 0) for name in names}
        return bool(mismatches(criterion.expect, counts, outcomes))

    def objection(self, verdict: Verdict, outcomes: Outcomes) -> str:
        """Say why a verdict does not count as catching this, or return an empty string."""
        if verdict.status != self.status:
            return f"the verdict is {verdict.status}, not {self.status}: {verdict.summary}"
        if self.expect is not None:
            wrong = mismatches(self.expect, verdict.evidence.observed, outcomes)
            if wrong:
                return "other outcomes than declared: " + "; ".join(map(str, wrong))
        text = _evidence(verdict, printed=self.declared)
        if self.named and not any(name in text for name in self.named):
            return f"the evidence does not name {' or '.join(self.named)}"
        evidence = verdict.evidence
        shown = evidence.failures or evidence.findings or evidence.mismatches
        if self.status == "fail" and not shown:
            return "the verdict has no evidence"
        return ""


def _evidence(verdict: Verdict, *, printed: bool) -> str:
    evidence = verdict.evidence
    parts = [verdict.summary, evidence.running, *evidence.notes, *evidence.mismatches]
    for failure in evidence.failures:
        parts += [failure.id, failure.outcome, failure.message, failure.details, failure.path]
    for finding in evidence.findings:
        parts += [finding.rule, f"{finding.path}:{finding.line}", finding.code]
    if printed:
        parts.append(evidence.output)
    return "\n".join(parts)


@dataclass(frozen=True)
class Tree:
    """The untouched repository, to find places in.

    Attributes:
        root: its folder.
        files: what belongs to it, sorted.
        spec: the spec that it is judged by.
    """

    root: Path
    files: tuple[str, ...]
    spec: Spec

    @cached_property
    def known(self) -> frozenset[str]:
        """The files as a set."""
        return frozenset(self.files)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return (self.root / name).read_bytes()

    def python(self, name: str) -> Source | None:
        """Return a file as Python source, or None where it is none."""
        try:
            return Source(self.read(name))
        except (SyntaxError, ValueError, OSError):
            return None

    def appended(self, name: str, text: str) -> bytes:
        """Return a Python file with ``text`` at its end; a file that is not there is created."""
        source = self.python(name) if name in self.known else None
        return source.appended(text) if source else text.encode()

    def under(self, path: str) -> Iterator[str]:
        """Yield the files that are, or lie below, ``path``."""
        path = path.removeprefix("./").rstrip("/")
        for name in self.files:
            if path in {"", "."} or name == path or name.startswith(f"{path}/"):
                yield name


def from_entry(entry: ProofEntry, tree: Tree) -> CounterExample:
    """Return a counter-example that the spec declares.

    Raises:
        CounterExampleError: it does not fit the repository as it is.
    """
    edits, patch = _changes(entry, tree)
    return CounterExample(
        name=entry.name,
        what=", ".join(edits) or f"patch {entry.patch}",
        edits=edits,
        patch=patch,
        status=entry.status,
        named=(entry.evidence,) if entry.evidence else (),
        expect=declared.bounds(entry),
        declared=True,
    )


def _changes(entry: ProofEntry, tree: Tree) -> tuple[dict[str, bytes | None], bytes]:
    if entry.replace is not None:
        file = entry.replace.file
        data = _existing(file, tree)
        old, new = entry.replace.old.encode(), entry.replace.new.encode()
        if (found := data.count(old)) != 1:
            raise CounterExampleError(f"'old' occurs {found} times in {file}, not once")
        return {file: data.replace(old, new)}, b""
    if entry.append is not None:
        file = entry.append.file
        return {file: _existing(file, tree) + entry.append.text.encode()}, b""
    if entry.create is not None:
        file = entry.create.file
        if (tree.root / file).exists():
            raise CounterExampleError(f"{file} is there already; use append or replace")
        return {file: entry.create.text.encode()}, b""
    if entry.delete is not None:
        _existing(entry.delete, tree)
        return {entry.delete: None}, b""
    assert entry.patch is not None  # the spec has exactly one of them
    return {}, _existing(entry.patch, tree)


def _existing(file: str, tree: Tree) -> bytes:
    if file not in tree.known:
        raise CounterExampleError(f"{file} is no file of the repository")
    return tree.read(file)
