"""``gate.yaml`` → ``Spec``: typed and strict, every problem at its line and column."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tiergate import checkers, expectation, yaml_document, yaml_typed
from tiergate.errors import UserError
from tiergate.expectation import Expectation
from tiergate.fields import (
    Device,
    EnvironmentName,
    Identifier,
    Remedy,
    RepositoryPath,
    Seconds,
    check_repository_path,
)
from tiergate.suggest import did_you_mean
from tiergate.waves import find_cycle
from tiergate.yaml_document import Mark, Problem
from tiergate.yaml_typed import INVALID, Reader


class CriterionEntry(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"with_": "with"}
):
    """One line of the gate."""

    id: Annotated[Identifier, Meta(description="Names the criterion; unique in the file.")]
    uses: Annotated[str, Meta(description="The checker that evaluates it.", examples=["pytest"])]
    name: Annotated[str, Meta(description="What the criterion holds, in words.")] = ""
    with_: Annotated[Any, Meta(description="The checker's parameters.")] = None
    expect: Annotated[
        dict[str, int | str] | None,
        Meta(
            description='Outcome → exact number, or ">=N". What is not named must be zero.',
            examples=[{"passed": 11}, {"errors": 0, "collected": ">=605"}],
        ),
    ] = None
    devices: Annotated[
        list[Device], Meta(min_length=1, description="Where it is evaluated; the CPU by default.")
    ] = msgspec.field(default_factory=lambda: ["cpu"])
    needs: Annotated[
        list[Identifier], Meta(description="Criteria that must pass before this one is evaluated.")
    ] = []
    timeout: Annotated[
        Seconds | None, Meta(description="Seconds after which it counts as an error.")
    ] = None
    remedy: Annotated[Remedy | None, Meta(description="Who mends it when it fails, and how.")] = (
        None
    )


class TierEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tier; it is judged only when the tiers above it in the file passed."""

    gate: Annotated[str, Meta(min_length=1, description="The tier's name.", examples=["TIER 0"])]
    criteria: Annotated[list[CriterionEntry], Meta(min_length=1)]
    next: Annotated[str, Meta(description="What a pass unlocks.", examples=["TIER 1 (M4)"])] = ""
    remedy: Annotated[
        Remedy | None, Meta(description="The task that closes the tier when all else is mended.")
    ] = None


class GateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The criteria of a merge gate."""

    gate: Annotated[str, Meta(description="The name of the only tier.", examples=["TIER 0"])] = ""
    next: Annotated[str, Meta(description="What a pass unlocks.", examples=["TIER 1 (M4)"])] = ""
    criteria: Annotated[
        list[CriterionEntry], Meta(description="The criteria of the only tier.")
    ] = []
    remedy: Annotated[Remedy | None, Meta(description="The task that closes the only tier.")] = None
    tiers: Annotated[
        list[TierEntry],
        Meta(description="Several tiers, lowest first, instead of gate, next, criteria, remedy."),
    ] = []
    devices: Annotated[
        list[Device], Meta(min_length=1, description="The legs: one runner judges each device.")
    ] = msgspec.field(default_factory=lambda: ["cpu"])
    pythonpath: Annotated[
        list[RepositoryPath], Meta(description="Put in front of the candidate's sys.path.")
    ] = []
    env: Annotated[
        dict[EnvironmentName, str], Meta(description="Environment variables of the candidate.")
    ] = {}
    pass_env: Annotated[
        list[EnvironmentName],
        Meta(description="Variables of the caller's environment that the candidate may see."),
    ] = []
    timeout: Annotated[
        Seconds, Meta(description="Seconds per criterion, where it has no timeout of its own.")
    ] = 600.0


@dataclass(frozen=True)
class Criterion:
    """A criterion, ready to be evaluated."""

    id: str
    uses: str
    name: str
    parameters: msgspec.Struct
    expect: Expectation
    devices: tuple[Device, ...]
    needs: tuple[str, ...]
    timeout: float
    remedy: Remedy
    mark: Mark


@dataclass(frozen=True)
class Tier:
    """Criteria that are judged together."""

    gate: str
    next: str
    remedy: Remedy
    criteria: tuple[Criterion, ...]


@dataclass(frozen=True)
class Spec:
    """A whole ``gate.yaml``."""

    path: Path
    digest: str
    devices: tuple[Device, ...]
    tiers: tuple[Tier, ...]
    pythonpath: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    pass_env: tuple[str, ...] = ()

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """All criteria, in the order of the file."""
        return tuple(criterion for tier in self.tiers for criterion in tier.criteria)

    def criterion(self, criterion_id: str) -> Criterion:
        """Return the criterion of that id.

        Raises:
            UserError: there is none; the message suggests the nearest.
        """
        by_id = {criterion.id: criterion for criterion in self.criteria}
        if criterion_id not in by_id:
            hint = did_you_mean(criterion_id, by_id)
            raise UserError(f"{self.path}: no criterion {criterion_id!r}{hint}")
        return by_id[criterion_id]


class SpecError(UserError):
    """A spec with problems, each on a line ``file:line:column: message``."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems)
        super().__init__(
            "\n".join(
                f"{path}:{p.mark.line}:{p.mark.column}: {_printable(p.message)}"
                for p in self.problems
            )
        )


def load(path: Path) -> Spec:
    """Read a spec from a file.

    Raises:
        SpecError: the file is not a valid spec; it lists every problem.
        UserError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the spec: {error.strerror}; name one with --spec"
        ) from None
    return parse(data, path)


def parse(data: bytes, path: Path) -> Spec:
    """Read a spec from bytes; ``path`` is for messages.

    Raises:
        SpecError: as for ``load``.
    """
    reader = Reader({"repository-path": check_repository_path})
    try:
        root = yaml_document.parse(data)
        document = reader.read(root, GateFile)
        if document is INVALID:
            raise SpecError(path, reader.problems)
        tiers = list(_tiers(document, reader))
        _check_graph(tiers, document, reader)
    except yaml_document.YamlError as error:
        raise SpecError(path, [error.problem]) from None
    except yaml_typed.TooManyProblemsError:
        raise SpecError(path, reader.problems) from None
    if reader.problems:
        raise SpecError(path, reader.problems)
    return Spec(
        path=path,
        digest=hashlib.sha256(data).hexdigest(),
        devices=tuple(document.devices),
        tiers=tuple(tiers),
        pythonpath=tuple(document.pythonpath),
        env=dict(document.env),
        pass_env=tuple(document.pass_env),
    )


def _tiers(document: GateFile, reader: Reader) -> Iterator[Tier]:
    if document.tiers:
        for name in ("gate", "next", "criteria", "remedy"):
            if (name,) in reader.nodes:
                reader.problem((name,), f"{name!r} goes inside a tier when 'tiers' is used")
        for index, entry in enumerate(document.tiers):
            yield _tier(entry, document, reader, ("tiers", index))
        return
    if not document.gate:
        reader.problem((), "missing 'gate': the name of the tier")
    if not document.criteria:
        reader.problem(("criteria",), "no criteria: an empty gate would always pass")
    entry = TierEntry(
        gate=document.gate,
        next=document.next,
        remedy=document.remedy,
        criteria=document.criteria,
    )
    yield _tier(entry, document, reader, ())


def _tier(entry: TierEntry, document: GateFile, reader: Reader, at: yaml_typed.Path) -> Tier:
    criteria = []
    for index, criterion in enumerate(entry.criteria):
        built = _criterion(criterion, document, reader, (*at, "criteria", index))
        if built is not None:
            criteria.append(built)
    return Tier(entry.gate, entry.next, entry.remedy or Remedy(), tuple(criteria))


def _criterion(
    entry: CriterionEntry, document: GateFile, reader: Reader, at: yaml_typed.Path
) -> Criterion | None:
    for index, device in enumerate(entry.devices):
        if device not in document.devices:
            reader.problem((*at, "devices", index), f"{device!r} is not one of the spec's devices")
        if device in entry.devices[:index]:
            reader.problem((*at, "devices", index), f"{device!r} is listed twice")
    try:
        checker = checkers.get(entry.uses)
    except checkers.UnknownCheckerError as error:
        reader.problem((*at, "uses"), str(error))
        return None
    with_node = reader.nodes.get((*at, "with"))
    if with_node is None:
        with_node = yaml_document.Node(yaml_document.Kind.MAPPING, reader.nodes[at].mark)
    parameters = reader.read(with_node, checker.With, (*at, "with"))
    if parameters is INVALID:
        return None
    for where, message in checker.problems(parameters):
        reader.problem((*at, "with", *where), message)
    return Criterion(
        id=entry.id,
        uses=entry.uses,
        name=entry.name or entry.id,
        parameters=parameters,
        expect=_expectation(entry, checker.outcomes(parameters), reader, at),
        devices=tuple(entry.devices),
        needs=tuple(entry.needs),
        timeout=entry.timeout or document.timeout,
        remedy=entry.remedy or Remedy(),
        mark=reader.nodes[at].mark,
    )


def _expectation(
    entry: CriterionEntry, outcomes: expectation.Outcomes, reader: Reader, at: yaml_typed.Path
) -> Expectation:
    expected = entry.expect if entry.expect is not None else dict(outcomes.default)
    for name, message in expectation.check_names(expected, outcomes):
        reader.problem((*at, "expect", name) if name else (*at, "expect"), message)
    bounds = {}
    for name, value in expected.items():
        try:
            bounds[name] = expectation.parse_bound(value)
        except ValueError as error:
            reader.problem((*at, "expect", name), str(error))
    if (reason := expectation.vacuous(bounds, outcomes)) is not None:
        reader.problem((*at, "expect"), reason)
    return bounds


def _check_graph(tiers: list[Tier], document: GateFile, reader: Reader) -> None:
    """Check what concerns several criteria: unique ids, ``needs:`` and unused devices."""
    entries = _entries(document)
    ids: dict[str, yaml_typed.Path] = {}
    for at, _, entry in entries:
        if entry.id in ids:
            first = reader.nodes[ids[entry.id]].mark.line
            reader.problem((*at, "id"), f"duplicate id {entry.id!r}, first at line {first}")
        ids.setdefault(entry.id, (*at, "id"))
    tier_of = {entry.id: tier for _, tier, entry in entries}
    for at, tier, entry in entries:
        for index, need in enumerate(entry.needs):
            where = (*at, "needs", index)
            if need not in ids:
                reader.problem(
                    where, f"needs {need!r}, which is no criterion" + did_you_mean(need, ids)
                )
            elif tier_of[need] > tier:
                reader.problem(
                    where, f"needs {need!r} of a later tier, which would never be judged"
                )
    cycle = find_cycle({entry.id: entry.needs for _, _, entry in entries})
    if cycle:
        where = next((*at, "needs") for at, _, entry in entries if entry.id == cycle[0])
        reader.problem(where, "needs form a cycle: " + " → ".join(cycle))
    used = {device for tier in tiers for c in tier.criteria for device in c.devices}
    for index, device in enumerate(document.devices):
        if used and device not in used and not reader.problems:
            reader.problem(("devices", index), f"no criterion is judged on {device!r}")


def _entries(document: GateFile) -> list[tuple[yaml_typed.Path, int, CriterionEntry]]:
    if document.tiers:
        return [
            (("tiers", t, "criteria", index), t, entry)
            for t, tier in enumerate(document.tiers)
            for index, entry in enumerate(tier.criteria)
        ]
    return [(("criteria", i), 0, entry) for i, entry in enumerate(document.criteria)]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
