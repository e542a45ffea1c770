"""Verdicts, their evidence, and the report of one leg: the words that travel as JSON."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tiergate.errors import NotEvaluatedError
from tiergate.fields import Device, Remedy

SCHEMA_VERSION = 2
REPORT_NAME = "report.json"

Status = Literal["pass", "fail", "error", "blocked", "waived"]

# `passing` is the only place that says which statuses let a gate pass.
PASSING: frozenset[Status] = frozenset({"pass", "waived"})


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a report: immutable, unknown fields refused, defaults left out."""


class Excerpt(_Record, frozen=True):
    """Lines of a file as they were when it was judged, around the line that matters."""

    first: int
    """The number of the first line."""
    lines: list[str]


class Failure(_Record, frozen=True):
    """One thing that did not hold: a test, a name, a collection error."""

    id: str
    """The pytest node id, or what else names it."""
    outcome: str
    message: str = ""
    details: str = ""
    """A traceback, shortened."""
    path: str = ""
    line: int | None = None
    source: Excerpt | None = None


class Finding(_Record, frozen=True):
    """One place in the code that a rule matched."""

    rule: str
    path: str
    line: int
    column: int
    message: str
    code: str = ""
    fingerprint: str = ""
    """Of rule, path and code; it survives line shifts, and waivers name it."""
    source: Excerpt | None = None


class Case(_Record, frozen=True):
    """One test that ran, and what came of it."""

    id: str
    """The pytest node id."""
    outcome: str
    seconds: float = 0.0
    """Set-up, call and teardown together."""


class Touch(_Record, frozen=True):
    """A changed file, and the last commit of the change that touched it."""

    path: str
    commit: str = ""
    """Shortened; empty where the change is not committed."""
    author: str = ""
    subject: str = ""


class Evidence(_Record, frozen=True):
    """What a person needs to believe or mend a verdict."""

    expected: dict[str, str] = {}
    observed: dict[str, int] = {}
    mismatches: list[str] = []
    """The outcomes that are not as expected."""
    failures: list[Failure] = []
    findings: list[Finding] = []
    notes: list[str] = []
    reproduce: list[str] = []
    """Commands for a shell at the repository's root."""
    output: str = ""
    """The end of what the evaluation printed; never interpreted."""
    cases: list[Case] = []
    """The tests that ran, in their order."""
    running: str = ""
    """The test that was running when the evaluation was ended from outside."""
    touched: list[Touch] = []
    """Of what the head changed, the files that the failure concerns, the nearest to it first."""


class Cached(_Record, frozen=True):
    """Which run gave a verdict that was answered from the cache."""

    at: str
    """When that run began, UTC, ISO 8601."""
    tree: str
    """The digest of the repository's state that it judged."""


class Verdict(_Record, frozen=True):
    """What the judge says of one cell."""

    criterion: str
    device: Device
    status: Status
    summary: str
    seconds: float = 0.0
    started: float = 0.0
    """Seconds from the start of the leg."""
    slot: int = 0
    """Which of the leg's parallel slots it ran in, from 0."""
    evidence: Evidence = Evidence()
    remedy: Remedy = Remedy()
    waiver: str = ""
    """Until when, why and by whom the failure is accepted."""
    cached: Cached | None = None
    """There where nothing was evaluated, because nothing had changed since an earlier pass."""

    @property
    def cell(self) -> str:
        """The cell's name, as in ``ISS-003@cpu``."""
        return cell_name(self.criterion, self.device)


class Change(_Record, frozen=True):
    """A difference between the base's spec and the head's."""

    where: str
    """The criterion, or the key of the spec."""
    message: str
    weakening: bool
    """Whether something passes now that did not pass before, or may."""


class BaseIdentity(_Record, frozen=True):
    """The base branch that the head was compared with."""

    commit: str
    spec: Literal["base", "head"]
    """Whose spec decided: the head's only where the base has none yet."""
    head_spec_digest: str
    drift: list[Change] = []
    judge_relevant: list[str] = []
    """Files that the head changed and on which verdicts depend: conftest.py and the like."""


class SpecIdentity(_Record, frozen=True):
    """Which spec the verdicts come from."""

    path: str
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Source(_Record, frozen=True):
    """Which state of the repository was judged; empty outside a git repository."""

    commit: str = ""
    tree: str = ""
    """A digest of every file's path, mode and content, uncommitted changes included."""
    dirty: bool = False


class Run(_Record, frozen=True):
    """Which run of a workflow wrote the report; empty on a laptop."""

    id: str = ""
    attempt: int = 0


class Shard(_Record, frozen=True):
    """Which part of a device's cells a leg evaluated."""

    index: Annotated[int, Meta(ge=1)]
    count: Annotated[int, Meta(ge=1)]
    plan: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """The digest of the plan that all shards must have in common."""

    @property
    def name(self) -> str:
        """As in ``2/4``."""
        return f"{self.index}/{self.count}"


class BaseTests(_Record, frozen=True):
    """The tests that a criterion has on the base."""

    commit: str = ""
    tests: dict[str, str] = {}
    """Test id → digest of its body."""
    problem: str = ""
    """Why the base does not collect."""


class Tally(_Record, frozen=True):
    """What was counted while tests were collected, or while they ran."""

    counts: dict[str, int] = {}
    """Outcomes of the shard's own files: those of all shards add up."""
    shared: dict[str, dict[str, int]] = {}
    """Outcome → what had it → how often: not of one file, so every shard may see the same."""
    failures: list[Failure] = []


class Part(_Record, frozen=True):
    """What one shard observed of a cell that several share: no verdict, and never a pass."""

    criterion: str
    device: Device
    error: str = ""
    """Why it could not be evaluated; then the whole cell cannot."""
    collection: Tally = Tally()
    run: Tally = Tally()
    stopped: bool = False
    """Errors in the collection kept the tests from being run: in one piece, all of them."""
    collected: dict[str, str] = {}
    """Test id → digest of its body."""
    passed: list[str] = []
    cases: list[Case] = []
    flaky: dict[str, str] = {}
    """Tests that failed, and passed when they were run again → in which attempt."""
    files: list[str] = []
    """What the collection visited."""
    allocations: int = 0
    """On the CUDA device."""
    seconds: float = 0.0
    notes: list[str] = []
    reproduce: list[str] = []
    output: str = ""
    running: str = ""
    base: BaseTests | None = None
    """From the one shard that asks the base, where the criterion is compared with it."""

    @property
    def cell(self) -> str:
        """The cell's name."""
        return cell_name(self.criterion, self.device)


class Report(_Record, frozen=True, tag_field="kind", tag="tiergate-report"):
    """All verdicts of one leg."""

    schema_version: int
    tool_version: str
    spec: SpecIdentity
    source: Source
    device: Device
    planned: list[str]
    """Every cell of the leg, as the spec has it."""
    selected: list[str]
    """The cells that this run was asked for, in whole or in part."""
    complete: bool
    """False when the run was interrupted: such a report never passes."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    verdicts: list[Verdict]
    base: BaseIdentity | None = None
    head_verdicts: list[Verdict] = []
    """Verdicts on the head's own criteria, where its spec differs from the base's."""
    environment: dict[str, str] = {}
    device_proof: dict[str, str] = {}
    run: Run = Run()
    interruption: str = ""
    shard: Shard | None = None
    """None when the leg evaluated all cells of its device."""
    parts: list[Part] = []
    """Of the cells that the shard shares with others."""

    @property
    def leg(self) -> str:
        """The leg in words, as in ``cpu leg`` or ``cpu leg 2/4``."""
        return f"{self.device} leg" + (f" {self.shard.name}" if self.shard else "")


class ReportError(NotEvaluatedError):
    """A report that cannot be read: missing, truncated, of another version, or forged."""


def cell_name(criterion: str, device: str) -> str:
    """Name a cell."""
    return f"{criterion}@{device}"


def encode(report: Report) -> bytes:
    """Return the JSON form of a report, indented."""
    try:
        data = msgspec.json.encode(report)
    except UnicodeEncodeError:
        # A file name that is no UTF-8 came in as lone surrogates, which JSON cannot hold.
        data = msgspec.json.encode(_encodable(msgspec.to_builtins(report)))
    return msgspec.json.format(data, indent=1) + b"\n"


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value


def decode(data: bytes, name: str) -> Report:
    """Read a report from JSON; ``name`` is for messages.

    Raises:
        ReportError: not JSON, not a report, or of another schema version.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise ReportError(
                f"{name}: report of schema version {version}; this tiergate reads {SCHEMA_VERSION}"
            )
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"{name}: not a readable report: {error}") from None


class _Version(msgspec.Struct):
    schema_version: int


def read(path: Path) -> Report:
    """Read a report from a file, or from ``report.json`` in a folder.

    Raises:
        ReportError: it is missing or cannot be read.
    """
    file = path / REPORT_NAME if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ReportError(f"{file}: cannot read the report: {error.strerror}") from None
    return decode(data, str(file))


def write(report: Report, directory: Path) -> Path:
    """Write ``report.json`` into ``directory``, whole or not at all; return its path.

    Raises:
        NotEvaluatedError: the folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / REPORT_NAME
        write_atomically(path, encode(report))
    except OSError as error:
        raise NotEvaluatedError(
            f"{directory}: cannot write the report: {error.strerror}; choose a folder with --report"
        ) from None
    return path


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by a file holding ``data``; a crash leaves the old file or the new one."""
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        error.filename = str(path)  # the name that a person knows
        raise
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        new.chmod(mode)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``report.json``."""
    schema = msgspec.json.schema(Report)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tiergate report",
        **schema,
    }
