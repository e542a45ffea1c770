"""Runs → trend, slowest tests, flaky tests: what ``tiergate history`` shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from tiergate.history import RunRecord
from tiergate.render.text import one_line

_TREND = 10
_FAILED = frozenset({"failed", "errors"})


class CellTrend(msgspec.Struct, frozen=True):
    """How a cell went over its latest runs, the oldest first."""

    cell: str
    runs: int
    seconds: list[float]
    statuses: list[str]
    median: float


class SlowTest(msgspec.Struct, frozen=True):
    """A test, and the median of its seconds."""

    cell: str
    test: str
    seconds: float
    runs: int


class FlakyTest(msgspec.Struct, frozen=True):
    """A test that ended in different ways in one state, or passed only when it was run again."""

    cell: str
    test: str
    outcomes: dict[str, int]


class HistoryReport(msgspec.Struct, frozen=True):
    """What a history shows."""

    runs: int
    first: str
    last: str
    cells: list[CellTrend]
    slowest: list[SlowTest]
    flaky: list[FlakyTest]


def make(runs: Sequence[RunRecord], top: int) -> HistoryReport:
    """Return what runs, the oldest first, show; ``top`` tests of each list."""
    cells: dict[str, list[tuple[float, str]]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    outcomes: dict[tuple[str, str], dict[str, set[str]]] = {}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for run in runs:
        for cell, record in run.cells.items():
            status = f"{record.status} {run.shard}" if run.shard else record.status
            cells.setdefault(cell, []).append((record.seconds, status))
            for test, (outcome, took) in record.tests.items():
                key = cell, test
                seconds.setdefault(key, []).append(took)
                outcomes.setdefault(key, {}).setdefault(run.tree, set()).add(outcome)
                tally = counts.setdefault(key, {})
                tally[outcome] = tally.get(outcome, 0) + 1
    flaky = [key for key, found in outcomes.items() if any(map(_flaky, found.values()))]
    slowest = sorted(seconds, key=lambda key: (-median(seconds[key]), key))
    return HistoryReport(
        runs=len(runs),
        first=runs[0].started if runs else "",
        last=runs[-1].started if runs else "",
        cells=[
            CellTrend(
                cell,
                len(found),
                [took for took, _ in found[-_TREND:]],
                [status for _, status in found[-_TREND:]],
                round(median(took for took, _ in found), 3),
            )
            for cell, found in cells.items()
        ],
        slowest=[
            SlowTest(*key, round(median(seconds[key]), 4), len(seconds[key]))
            for key in slowest[:top]
        ],
        flaky=[
            FlakyTest(*key, counts[key])
            for key in sorted(flaky, key=lambda key: (-_failures(counts[key]), key))[:top]
        ],
    )


def _flaky(outcomes: set[str]) -> bool:
    return "flaky" in outcomes or ("passed" in outcomes and bool(outcomes & _FAILED))


def _failures(counts: dict[str, int]) -> int:
    return sum(count for outcome, count in counts.items() if outcome != "passed")


def text(report: HistoryReport) -> str:
    """Return it for a terminal."""
    if not report.runs:
        return "no run is recorded here"
    span = f"{report.runs} runs, {report.first} to {report.last}"
    lines = [f"1 run, {report.first}" if report.runs == 1 else span, "", "cells, the latest last"]
    room = max((len(one_line(cell.cell)) for cell in report.cells), default=0)
    for cell in report.cells:
        trend = "  ".join(f"{seconds:.1f}" for seconds in cell.seconds)
        lines.append(f"  {one_line(cell.cell):<{room}}  median {cell.median:6.1f} s   {trend}")
    lines += ["", "slowest tests"]
    lines += [
        f"  {test.seconds:8.3f} s  {one_line(test.test)}  ({one_line(test.cell)})"
        for test in report.slowest
    ] or ["  none"]
    lines += ["", "flaky tests: different outcomes in one state of the repository"]
    lines += [
        f"  {one_line(test.test)}  ({one_line(test.cell)}): "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(test.outcomes.items()))
        for test in report.flaky
    ] or ["  none"]
    return "\n".join(lines)
