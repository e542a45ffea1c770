"""Judges a sample in one piece and in shards, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from samples import Sample

from tiergate import leg, plan, shard_planning
from tiergate.decide import Decision, decide
from tiergate.leg import Leg
from tiergate.repository import Repository
from tiergate.shards import ShardPlan
from tiergate.splitting import Durations
from tiergate.verdict import Part, Report, Verdict

TODAY = date(2026, 11, 25)


class Nobody:
    """Does not watch."""

    def started(self, cell: str) -> None: ...
    def progress(self, cell: str, what: str) -> None: ...
    def expected(self, cell: str, tests: int) -> None: ...
    def finished(self, verdict: Verdict) -> None: ...
    def observed(self, part: Part) -> None: ...


def planned(sample: Sample, count: int) -> ShardPlan:
    """Return a plan of shards that splits whatever can be split, in turn."""
    candidate = sample.candidate()
    repository = Repository(sample.root)
    # For each cell alone it pays to split it; together they might be balanced without.
    plans = []
    cells = plan.cells(candidate.spec, "cpu")
    for cell in cells:
        files = dict.fromkeys(repository.files, 1.0)
        known = {other.name: 0.001 for other in cells} | {cell.name: float(len(files))}
        plans.append(
            shard_planning.make(
                repository,
                candidate.spec,
                None,
                {"cpu": count},
                Durations(known, {cell.name: files}),
                allow_weakening=False,
            )
        )
    largest = max(plans, key=lambda made: made.devices["cpu"].count)
    spread = replace(
        largest.devices["cpu"],
        cells={
            cell.name: made.devices["cpu"].cells[cell.name]
            for cell, made in zip(cells, plans, strict=True)
        },
    )
    return replace(largest, devices={"cpu": spread})


def judged(sample: Sample, shards: ShardPlan | None = None, shard: int = 0) -> Report:
    """Judge the whole leg, or one shard of it."""
    candidate = sample.candidate()
    # The state is cached: what a test writes between two runs must be seen.
    candidate = replace(candidate, repository=Repository(sample.root))
    task = Leg(
        candidate, "cpu", frozenset(), 1, Path(sample.root, ".tiergate"), shards=shards, shard=shard
    )
    return leg.judge(task, Nobody())


def in_shards(sample: Sample, shards: ShardPlan) -> list[Report]:
    """Judge every shard of a plan."""
    return [judged(sample, shards, i) for i in range(1, shards.devices["cpu"].count + 1)]


def decided(sample: Sample, reports: list[Report], shards: ShardPlan | None = None) -> Decision:
    """Decide over reports of the state that the sample is in."""
    return decide(
        sample.candidate().spec,
        reports,
        source=Repository(sample.root).source(),
        today=TODAY,
        shards=shards,
    )


def essence(decision: Decision) -> Mapping[str, Any]:
    """Return what must be the same in one piece and in shards."""
    cells = {}
    for found in decision.cells:
        verdict = found.verdict
        assert verdict is not None, (found.cell.name, decision.problems)
        told = {(f.id, f.outcome) for f in verdict.evidence.failures}
        cells[verdict.cell] = (
            verdict.status,
            verdict.summary,
            verdict.evidence.observed,
            verdict.evidence.mismatches,
            told,
        )
    return {
        "conclusion": decision.conclusion,
        "problems": decision.problems,
        "cells": cells,
    }
