"""Spec + repository + history → the plan of shards."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from tiergate import drift, plan, shards, splitting
from tiergate.errors import UserError
from tiergate.fields import Device
from tiergate.repository import Repository
from tiergate.shards import ShardPlan
from tiergate.spec import Spec
from tiergate.splitting import Durations
from tiergate.verdict import Run


def make(
    repository: Repository,
    spec: Spec,
    head: Spec | None,
    counts: Mapping[Device, int],
    durations: Durations,
    *,
    allow_weakening: bool,
) -> ShardPlan:
    """Return the plan of shards for the state that the repository is in.

    Args:
        repository: the candidate; none of its code is run.
        spec: the base's spec, or the only one.
        head: the head's, where it differs.
        counts: device → how many shards there may be.
        durations: of earlier runs.
        allow_weakening: as for the decision.

    Raises:
        UserError: it is not a git repository: shards could not be told to be of one state.
    """
    source = repository.source()
    if not source.tree:
        raise UserError(
            f"--shards: {repository.root} is not a git repository, so nobody could tell whether "
            "the shards judge the same state"
        )
    deciding = drift.deciding(spec, head, allow_weakening=allow_weakening)
    weakened = _weakened(spec, head, allow_weakening=allow_weakening)
    present = frozenset(repository.files)
    folders = splitting.folders_of(present)
    devices = {}
    for device, count in counts.items():
        cells = plan.cells(deciding, device)
        own = plan.cells(head, device) if head is not None else []
        devices[device] = splitting.spread(
            cells,
            [cell for cell in own if cell.criterion.id in weakened],
            count,
            splitting.files_of(cells, sorted(present), folders) if count > 1 else {},
            durations,
        )
    return ShardPlan(
        schema_version=shards.SCHEMA_VERSION,
        spec=deciding.digest,
        head_spec=head.digest if head is not None else "",
        source=source,
        devices=devices,
        run=Run(
            os.environ.get("GITHUB_RUN_ID", ""),
            int(os.environ.get("GITHUB_RUN_ATTEMPT", "0") or 0),
        ),
    )


def _weakened(spec: Spec, head: Spec | None, *, allow_weakening: bool) -> Collection[str]:
    return drift.weakened_criteria(spec, head) if head and not allow_weakening else ()
