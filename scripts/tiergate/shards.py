"""The plan of shards: which of a device's legs evaluates which cell, or which files of it.

Every file belongs to exactly one shard, whatever the plan knows of it: a cell that several shards
share names one of them that takes the files that are not planned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tiergate.checkers import Share
from tiergate.errors import NotEvaluatedError, UserError
from tiergate.fields import Device
from tiergate.verdict import Run, Shard, Source, write_atomically

SCHEMA_VERSION = 1
PLAN_NAME = "plan.json"
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")

Index = Annotated[int, Meta(ge=1)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a plan."""


class Assignment(_Record, frozen=True):
    """Who evaluates a cell."""

    shard: Index
    """All of it, or of a shared cell the files that ``files`` does not name."""
    files: dict[str, Index] = {}
    """File → shard, where several shards share the cell."""

    @property
    def shards(self) -> list[int]:
        """The shards that have a part of it, in order."""
        return sorted({self.shard, *self.files.values()})

    def share(self, index: int, count: int) -> Share | None:
        """Return the part of one shard, or None where it is the whole cell."""
        if not self.files:
            return None
        mine = frozenset(file for file, owner in self.files.items() if owner == index)
        return Share(
            shard=f"{index}/{count}",
            mine=mine,
            others=frozenset(self.files) - mine,
            rest=self.shard == index,
        )


class DevicePlan(_Record, frozen=True):
    """How the cells of one device are spread."""

    count: Index
    """How many shards there are; each has something to do."""
    cells: dict[str, Assignment]
    head: dict[str, Index] = {}
    """Who evaluates the head's own cells, where it weakens a criterion."""
    seconds: list[float] = []
    """What each shard is expected to take."""

    def cells_of(self, index: int) -> list[str]:
        """Return the cells of which a shard has a part."""
        return [name for name, given in self.cells.items() if index in given.shards]


class ShardPlan(_Record, frozen=True, tag_field="kind", tag="tiergate-plan"):
    """Which shard evaluates what, for one spec and one state of the repository."""

    schema_version: int
    spec: str
    """The digest of the spec that decides."""
    head_spec: str
    """The digest of the head's own spec, where it differs."""
    source: Source
    devices: dict[Device, DevicePlan]
    run: Run = Run()

    @property
    def digest(self) -> str:
        """The digest that shards have in common."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    def shard(self, device: Device, index: int) -> Shard:
        """Return what a report of this shard carries."""
        return Shard(index, self.devices[device].count, self.digest)


class PlanError(NotEvaluatedError):
    """A plan that cannot be read."""


def encode(plan: ShardPlan) -> bytes:
    """Return the JSON form of a plan, indented."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def read(path: Path) -> ShardPlan:
    """Read a plan from a file.

    Raises:
        PlanError: it is missing, no plan, or of another schema version.
    """
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise PlanError(
                f"{path}: plan of schema version {version}; this tiergate reads {SCHEMA_VERSION}"
            )
        return msgspec.json.decode(data, type=ShardPlan)
    except OSError as error:
        raise PlanError(f"{path}: cannot read the plan: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{path}: not a readable plan: {error}") from None


class _Version(msgspec.Struct):
    schema_version: int


def write(plan: ShardPlan, path: Path) -> None:
    """Write a plan, whole or not at all.

    Raises:
        NotEvaluatedError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode(plan))
    except (OSError, UnicodeEncodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise NotEvaluatedError(f"{path}: cannot write the plan: {problem}") from None


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``2/4``.

    Raises:
        UserError: it is not of that form, or out of range.
    """
    match = _SHARD.fullmatch(text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: write it such as 2/4: the second shard of four")
    return int(match[1]), int(match[2])


def chosen(plan: ShardPlan, device: Device, text: str, *, name: Path) -> int:
    """Return the index of the shard that ``--shard`` names.

    Raises:
        UserError: the plan has no such shard.
    """
    index, count = parse_shard(text)
    planned = plan.devices.get(device)
    if planned is None:
        raise UserError(f"--shard {text}: {name} has no {device} leg")
    if planned.count != count:
        raise UserError(f"--shard {text}: {name} has {planned.count} shards on {device}")
    return index


def mismatch(plan: ShardPlan, spec: str, head_spec: str, source: Source | None) -> str:
    """Say why a plan is not one for this spec and state, or return an empty string."""
    if plan.spec != spec:
        return f"made from another spec (sha256 {plan.spec[:12]}; this one is {spec[:12]})"
    if plan.head_spec != head_spec:
        return "made from another spec of the head than the one that is here"
    if source is not None and (plan.source.commit, plan.source.tree) != (
        source.commit,
        source.tree,
    ):
        return (
            f"made for another state of the repository (commit {plan.source.commit[:12]}, tree "
            f"{plan.source.tree[:12]}; here commit {source.commit[:12] or 'none'}, tree "
            f"{source.tree[:12] or 'none'})"
        )
    return ""


def uncovered(planned: DevicePlan, cells: Collection[str], head: Collection[str]) -> str:
    """Say which cells a plan lacks, or has too many, or return an empty string."""
    if odd := sorted(set(planned.cells) ^ set(cells)):
        return f"does not have just the cells of the spec: {', '.join(odd)}"
    if odd := sorted(set(planned.head) ^ set(head)):
        return f"does not have just the head's own cells: {', '.join(odd)}"
    used = {shard for given in planned.cells.values() for shard in given.shards}
    if not (used | set(planned.head.values())) <= set(range(1, planned.count + 1)):
        return "names a shard that it does not have"
    return ""
