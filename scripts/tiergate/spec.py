"""``gate.yaml`` → ``Spec``: typed and strict, every problem at its line and column."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
import hashlib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tiergate import checkers, expectation, yaml_document, yaml_typed
from tiergate.errors import UserError
from tiergate.expectation import Expectation
from tiergate.fields import (
    Device,
    EnvironmentName,
    Gigabytes,
    Identifier,
    Remedy,
    RepositoryPath,
    Seconds,
    check_date,
    check_repository_path,
)
from tiergate.prove import declared
from tiergate.prove.declared import ProofEntry
from tiergate.suggest import did_you_mean
from tiergate.waivers import Waiver
from tiergate.waves import find_cycle
from tiergate.yaml_document import Mark, Node, Problem
from tiergate.yaml_typed import INVALID, Reader

_EXAMPLE = {
    "id": "prices",
    "uses": "pytest",
    "with": {"paths": ["tests/test_prices.py"]},
    "expect": {"passed": 2},
}


class CriterionEntry(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"with_": "with", "gpu_memory": "gpu-memory"},
):
    """One line of the gate."""

    id: Annotated[
        Identifier,
        Meta(description="Names the criterion; unique in the file.", examples=["ISS-003"]),
    ]
    uses: Annotated[str, Meta(description="The checker that evaluates it.", examples=["pytest"])]
    name: Annotated[
        str,
        Meta(
            description="What the criterion holds, in words.",
            examples=["the optimizer keeps its behaviour"],
        ),
    ] = ""
    with_: Annotated[
        Any,
        Meta(
            description="The checker's parameters.",
            examples=[{"paths": ["tests/test_optimizer.py"]}],
        ),
    ] = None
    expect: Annotated[
        dict[str, int | str] | None,
        Meta(
            description='Outcome → exact number, or ">=N". What is not named must be zero.',
            examples=[{"passed": 11}, {"errors": 0, "collected": ">=605"}],
        ),
    ] = None
    devices: Annotated[
        list[Device],
        Meta(
            min_length=1,
            description="Where it is evaluated; the CPU by default.",
            examples=[["cpu", "cuda"]],
        ),
    ] = msgspec.field(default_factory=lambda: ["cpu"])
    needs: Annotated[
        list[Identifier],
        Meta(
            description="Criteria without whose pass this one is blocked. They are evaluated "
            "first, unless this one only imports or collects: that may be done meanwhile.",
            examples=[["ISS-001", "ISS-003"]],
        ),
    ] = []
    timeout: Annotated[
        Seconds | None,
        Meta(description="Seconds after which it counts as an error.", examples=[120]),
    ] = None
    gpu_memory: Annotated[
        Gigabytes | None,
        Meta(
            description="GB of the GPU's memory that it takes. Criteria share a GPU as long as "
            "they fit together into what is free; one that does not say has it for itself.",
            examples=[8],
        ),
    ] = None
    remedy: Annotated[
        Remedy | None,
        Meta(
            description="Who mends it when it fails, and how.",
            examples=[{"owner": "dev-ml", "hint": "read the first failure"}],
        ),
    ] = None
    retries: Annotated[
        int,
        Meta(
            ge=0,
            le=5,
            description="How often failed tests are run again, by themselves.",
            examples=[2],
        ),
    ] = 0
    flaky: Annotated[
        Literal["fail", "warn"],
        Meta(
            description="What a test means that passed only when it was run again.",
            examples=["warn"],
        ),
    ] = "fail"
    proofs: Annotated[
        list[ProofEntry],
        Meta(
            description="Changes that must turn it red, on top of those that its kind has.",
            examples=[[{"name": "the module is gone", "delete": "src/shop/prices.py"}]],
        ),
    ] = []


class FindingEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which finding is waived."""

    rule: Annotated[
        Identifier, Meta(description="The rule that found it.", examples=["unsafe-torch-load"])
    ]
    path: Annotated[RepositoryPath, Meta(description="The file.", examples=["src/load.py"])]
    fingerprint: Annotated[
        str,
        Meta(
            pattern="^[0-9a-f]{16}$",
            description="Of rule, path and code; it survives line shifts. Reports print it.",
            examples=["0f3a9c51d2e84b67"],
        ),
    ]


class WaiverEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A failure that is accepted for a while."""

    criterion: Annotated[
        Identifier, Meta(description="The criterion that may fail.", examples=["ISS-004"])
    ]
    reason: Annotated[
        str,
        Meta(
            min_length=1,
            description="Why this is acceptable for now.",
            examples=["vendored; replaced with release 2.0"],
        ),
    ]
    owner: Annotated[
        str,
        Meta(min_length=1, description="Who sees to it that it ends.", examples=["dev-security"]),
    ]
    expires: Annotated[
        str,
        Meta(
            description="The last day on which it counts, UTC; at most 90 days ahead.",
            examples=["2026-12-24"],
            extra={"check": "date"},
        ),
    ]
    device: Annotated[
        Device | None,
        Meta(description="Only the cell on this device; all cells by default.", examples=["cuda"]),
    ] = None
    finding: Annotated[
        FindingEntry | None,
        Meta(
            description="Only this finding; the whole verdict by default.",
            examples=[
                {
                    "rule": "unsafe-torch-load",
                    "path": "src/load.py",
                    "fingerprint": "0f3a9c51d2e84b67",
                }
            ],
        ),
    ] = None


class TierEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tier; it is judged only when the tiers above it in the file passed."""

    gate: Annotated[str, Meta(min_length=1, description="The tier's name.", examples=["TIER 0"])]
    criteria: Annotated[
        list[CriterionEntry],
        Meta(min_length=1, description="The tier's criteria.", examples=[[_EXAMPLE]]),
    ]
    next: Annotated[str, Meta(description="What a pass unlocks.", examples=["TIER 1 (M4)"])] = ""
    remedy: Annotated[
        Remedy | None,
        Meta(
            description="The task that closes the tier when all else is mended.",
            examples=[{"task": "0.20", "owner": "qa"}],
        ),
    ] = None


class GateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The criteria of a merge gate."""

    gate: Annotated[str, Meta(description="The name of the only tier.", examples=["TIER 0"])] = ""
    next: Annotated[str, Meta(description="What a pass unlocks.", examples=["TIER 1 (M4)"])] = ""
    criteria: Annotated[
        list[CriterionEntry],
        Meta(description="The criteria of the only tier.", examples=[[_EXAMPLE]]),
    ] = []
    remedy: Annotated[
        Remedy | None,
        Meta(
            description="The task that closes the only tier.",
            examples=[{"task": "0.20", "owner": "qa"}],
        ),
    ] = None
    tiers: Annotated[
        list[TierEntry],
        Meta(
            description="Several tiers, lowest first, instead of gate, next, criteria, remedy.",
            examples=[[{"gate": "TIER 0", "next": "TIER 1", "criteria": [_EXAMPLE]}]],
        ),
    ] = []
    devices: Annotated[
        list[Device],
        Meta(
            min_length=1,
            description="The legs: one runner judges each device.",
            examples=[["cpu", "cuda"]],
        ),
    ] = msgspec.field(default_factory=lambda: ["cpu"])
    pythonpath: Annotated[
        list[RepositoryPath],
        Meta(description="Put in front of the candidate's sys.path.", examples=[["src", "."]]),
    ] = []
    env: Annotated[
        dict[EnvironmentName, str],
        Meta(
            description="Environment variables of the candidate.",
            examples=[{"HF_HUB_OFFLINE": "1"}],
        ),
    ] = {}
    pass_env: Annotated[
        list[EnvironmentName],
        Meta(
            description="Variables of the caller's environment that the candidate may see.",
            examples=[["HF_HOME"]],
        ),
    ] = []
    timeout: Annotated[
        Seconds,
        Meta(
            description="Seconds per criterion, where it has no timeout of its own.", examples=[300]
        ),
    ] = 600.0
    waivers: Annotated[
        list[WaiverEntry],
        Meta(
            description="Failures that are accepted until a date.",
            examples=[
                [
                    {
                        "criterion": "ISS-004",
                        "reason": "vendored",
                        "owner": "dev-security",
                        "expires": "2026-12-24",
                    }
                ]
            ],
        ),
    ] = []


class Criterion(msgspec.Struct, frozen=True):
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
    retries: int = 0
    flaky: Literal["fail", "warn"] = "fail"
    proofs: tuple[ProofEntry, ...] = ()
    gpu_memory: float | None = None

    @property
    def needs_base(self) -> bool:
        """Whether it expects no less than the base branch has."""
        return any(bound.base for bound in self.expect.values())


class Tier(msgspec.Struct, frozen=True):
    """Criteria that are judged together."""

    gate: str
    next: str
    remedy: Remedy
    criteria: tuple[Criterion, ...]


class Spec(msgspec.Struct, frozen=True):
    """A whole ``gate.yaml``."""

    path: Path
    digest: str
    devices: tuple[Device, ...]
    tiers: tuple[Tier, ...]
    pythonpath: tuple[str, ...] = ()
    env: dict[str, str] = {}
    pass_env: tuple[str, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    base: str = ""
    """The commit that it was read from, where that is not the work tree."""

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

    located = True

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems)
        super().__init__(
            "\n".join(
                f"{path}:{p.mark.line}:{p.mark.column}: {_printable(p.message)}"
                for p in self.problems
            )
        )


def load(path: Path, read: Callable[[bytes], Node] = yaml_document.parse) -> Spec:
    """Read a spec from a file.

    Args:
        path: the file.
        read: gives the tree of its nodes.

    Raises:
        SpecError: the file is not a valid spec; it lists every problem.
        UserError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        first = ", or let `tiergate init` write one" * isinstance(error, FileNotFoundError)
        raise UserError(
            f"{path}: cannot read the spec: {error.strerror}; name one with --spec{first}"
        ) from None
    return parse(data, path, read)


def parse(data: bytes, path: Path, read: Callable[[bytes], Node] = yaml_document.parse) -> Spec:
    """Read a spec from bytes; ``path`` is for messages.

    Raises:
        SpecError: as for ``load``.
    """
    reader = Reader({"repository-path": check_repository_path, "date": check_date})
    try:
        root = read(data)
        document = reader.read(root, GateFile)
        if document is INVALID:  # no mapping at all
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
        waivers=tuple(
            Waiver(
                criterion=entry.criterion,
                device=entry.device,
                finding=entry.finding
                and (entry.finding.rule, entry.finding.path, entry.finding.fingerprint),
                reason=entry.reason,
                owner=entry.owner,
                expires=date.fromisoformat(entry.expires),
            )
            for entry in document.waivers
        ),
    )


def _tiers(document: GateFile, reader: Reader) -> Iterator[Tier]:
    if ("tiers",) in reader.nodes:
        for name in ("gate", "next", "criteria", "remedy"):
            if (name,) in reader.nodes:
                reader.problem((name,), f"{name!r} goes inside a tier when 'tiers' is used")
        if not document.tiers and ("tiers",) not in reader.invalid:
            reader.problem(("tiers",), "no tiers: an empty gate would always pass")
        for index, entry in enumerate(document.tiers):
            if ("tiers", index) not in reader.invalid:
                yield _tier(entry, document, reader, ("tiers", index))
        return
    if not document.gate and ("gate",) not in reader.invalid:
        reader.problem((), "missing 'gate': the name of the tier")
    if not document.criteria and ("criteria",) not in reader.invalid:
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
        where = (*at, "criteria", index)
        if where in reader.invalid:
            continue
        built = _criterion(criterion, document, reader, where)
        if built is not None:
            criteria.append(built)
    return Tier(entry.gate, entry.next, entry.remedy or Remedy(), tuple(criteria))


def _criterion(
    entry: CriterionEntry, document: GateFile, reader: Reader, at: yaml_typed.Path
) -> Criterion | None:
    for index, device in enumerate(entry.devices):
        if device not in document.devices and ("devices",) not in reader.invalid:
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
        with_node = Node(yaml_document.Kind.MAPPING, reader.nodes[at].mark)
    parameters = reader.read(with_node, checker.With, (*at, "with"))
    if parameters is INVALID:
        return None
    for where, message in checker.problems(parameters):
        reader.problem((*at, "with", *where), message)
    _check_proofs(entry, checker.outcomes(parameters), reader, at)
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
        retries=entry.retries,
        flaky=entry.flaky,
        proofs=tuple(entry.proofs),
        gpu_memory=entry.gpu_memory,
    )


def _check_proofs(
    entry: CriterionEntry, outcomes: expectation.Outcomes, reader: Reader, at: yaml_typed.Path
) -> None:
    names: set[str] = set()
    for index, proof in enumerate(entry.proofs):
        where = (*at, "proofs", index)
        if where in reader.invalid:
            continue
        for key, message in declared.problems(proof, outcomes):
            reader.problem((*where, key), message)
        if proof.name in names:
            reader.problem((*where, "name"), f"duplicate name {proof.name[:80]!r}")
        names.add(proof.name)


def _expectation(
    entry: CriterionEntry, outcomes: expectation.Outcomes, reader: Reader, at: yaml_typed.Path
) -> Expectation:
    expected = entry.expect if entry.expect is not None else dict(outcomes.default)
    for name, message in expectation.check_names(expected, outcomes):
        if name is None:
            reader.problem((*at, "expect"), message)
        else:
            reader.problem((*at, "expect", name), message, at_key=True)
    bounds = {}
    for name, value in expected.items():
        try:
            bounds[name] = expectation.parse_bound(value)
        except ValueError as error:
            reader.problem((*at, "expect", name), str(error))
        else:
            if bounds[name].base and name not in outcomes.by_id:
                message = f'{name}: ">=base" compares tests by id; {entry.uses} does not count them'
                reader.problem((*at, "expect", name), message)
    if entry.flaky == "warn" and "flaky" in outcomes.strict:
        bounds.setdefault("flaky", expectation.Bound(0, at_least=True))
    if (reason := expectation.vacuous(bounds, outcomes)) is not None:
        reader.problem((*at, "expect"), reason)
    return bounds


def _check_graph(tiers: list[Tier], document: GateFile, reader: Reader) -> None:
    """Check what concerns several criteria: unique ids, ``needs:`` and unused devices."""
    entries = _entries(document, reader)
    ids: dict[str, yaml_typed.Path] = {}
    for at, _, entry in entries:
        if entry.id in ids:
            first = reader.nodes[ids[entry.id]].mark.line
            reader.problem((*at, "id"), f"duplicate id {entry.id!r}, first at line {first}")
        ids.setdefault(entry.id, (*at, "id"))
    _check_needs(entries, ids, reader)
    known = {*ids, *_written_ids(reader)}
    for index, waiver in enumerate(document.waivers):
        if ("waivers", index) not in reader.invalid and waiver.criterion not in known:
            hint = did_you_mean(waiver.criterion, ids)
            reader.problem(
                ("waivers", index, "criterion"), f"waives {waiver.criterion!r}, no criterion{hint}"
            )
    used = {device for tier in tiers for c in tier.criteria for device in c.devices}
    for index, device in enumerate(document.devices):
        if device in document.devices[:index]:
            reader.problem(("devices", index), f"{device!r} is listed twice")
        if used and device not in used and not reader.problems:
            reader.problem(("devices", index), f"no criterion is judged on {device!r}")


def _check_needs(
    entries: list[tuple[yaml_typed.Path, int, CriterionEntry]],
    ids: dict[str, yaml_typed.Path],
    reader: Reader,
) -> None:
    known = {*ids, *_written_ids(reader)}
    tier_of = {entry.id: tier for _, tier, entry in entries}
    for at, tier, entry in entries:
        for index, need in enumerate(entry.needs):
            where = (*at, "needs", index)
            if need in entry.needs[:index]:
                reader.problem(where, f"{need!r} is listed twice")
            elif need not in known:
                reader.problem(
                    where, f"needs {need!r}, which is no criterion" + did_you_mean(need, ids)
                )
            elif tier_of.get(need, tier) > tier:
                reader.problem(
                    where, f"needs {need!r} of a later tier, which would never be judged"
                )
    needs = {entry.id: entry.needs for _, _, entry in entries}
    while cycle := find_cycle(needs):
        reader.problem((*ids[cycle[0]][:-1], "needs"), "needs form a cycle: " + " → ".join(cycle))
        for criterion_id in cycle[1:]:
            del needs[criterion_id]


def _entries(
    document: GateFile, reader: Reader
) -> list[tuple[yaml_typed.Path, int, CriterionEntry]]:
    entries: list[tuple[yaml_typed.Path, int, CriterionEntry]]
    if document.tiers:
        entries = [
            (("tiers", t, "criteria", index), t, entry)
            for t, tier in enumerate(document.tiers)
            if ("tiers", t) not in reader.invalid
            for index, entry in enumerate(tier.criteria)
        ]
    else:
        entries = [(("criteria", i), 0, entry) for i, entry in enumerate(document.criteria)]
    return [entry for entry in entries if entry[0] not in reader.invalid]


def _written_ids(reader: Reader) -> Iterator[str]:
    """Yield the ids that stand in the file, of criteria with problems as well."""
    for path, node in reader.nodes.items():
        if path[-3:-2] == ("criteria",) and path[-1] == "id":
            yield node.text


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
