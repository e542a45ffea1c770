"""Cells in parallel: early evaluations change no verdict, in whichever order cells end."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate import plan, spec
from tiergate.candidate import Candidate
from tiergate.cell_run import CellRun
from tiergate.plan import Cell
from tiergate.processes import Cancellation
from tiergate.repository import Repository
from tiergate.verdict import Verdict


class Events:
    """Writes down what a listener is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, cell: str) -> None:
        self.told.append(f"started {cell}")

    def finished(self, verdict: Verdict) -> None:
        self.told.append(f"finished {verdict.cell} {verdict.status}")


def collection(name: str, *needs: str) -> dict[str, Any]:
    return {"id": name, "uses": "collection", "expect": {"collected": 1}, "needs": list(needs)}


class Fakes:
    """Cells whose evaluation is a wait for an event; then they pass, or do not."""

    def __init__(self, *criteria: dict[str, Any], failing: frozenset[str] = frozenset()) -> None:
        document = {"gate": "TIER 0", "criteria": list(criteria)}
        gate = spec.parse(json.dumps(document).encode(), Path("gate.yaml"))
        self.cells = plan.cells(gate, "cpu")
        self.candidate = Candidate(
            Path("python"), Repository(Path(__file__).parent), gate, 1, Cancellation()
        )
        self.may_end = {cell.name: threading.Event() for cell in self.cells}
        self.cancelled: dict[str, str] = {}
        self.events = Events()
        self._failing = failing

    def evaluate(self, cell: Cell, cancellation: Cancellation) -> Verdict:
        while not self.may_end[cell.name].wait(0.005):
            if cancellation.requested:
                self.cancelled[cell.name] = cancellation.reason
                return Verdict(cell.criterion.id, "cpu", "error", "cancelled")
        failed = cell.criterion.id in self._failing
        return Verdict(cell.criterion.id, "cpu", "fail" if failed else "pass", "evaluated")

    def run(self, jobs: int = 2, known: dict[str, Verdict] | None = None) -> dict[str, Verdict]:
        self.cell_run = CellRun(
            self.cells, self.candidate, jobs, self.events, self.evaluate, known=known or {}
        )
        self.cell_run()
        found = self.cell_run.found
        return {n: msgspec.structs.replace(v, started=0.0, slot=0) for n, v in found.items()}


@pytest.mark.parametrize("ended_before", [True, False])
def test_cell_that_began_early_is_blocked_as_one_that_never_began(ended_before):
    """Its need fails while it runs, or after it ended."""
    early = Fakes(collection("all", "first"), collection("first"), failing=frozenset({"first"}))
    early.may_end["first@cpu"].set()
    late = Fakes(collection("all", "first"), collection("first"), failing=frozenset({"first"}))
    for event in late.may_end.values():
        event.set()
    if ended_before:
        early.may_end["all@cpu"].set()
        early.may_end["first@cpu"].clear()
        ending = threading.Timer(0.05, early.may_end["first@cpu"].set)
        ending.start()
    assert early.run() == late.run(jobs=1)
    assert early.cell_run.found["all@cpu"].summary == "needs first@cpu, which did not pass"
    assert early.cell_run.found["all@cpu"].slot == 0
    assert early.cell_run.dropped == {"all@cpu"}
    reason = {} if ended_before else {"all@cpu": "what it needs did not pass"}
    assert early.cancelled == reason
    assert "started all@cpu" in early.events.told
    assert "started all@cpu" not in late.events.told


def test_verdict_of_a_cell_that_ended_early_is_told_when_its_needs_have_passed():
    fakes = Fakes(collection("all", "first"), collection("first"))
    fakes.may_end["all@cpu"].set()
    threading.Timer(0.05, fakes.may_end["first@cpu"].set).start()
    assert {name: v.status for name, v in fakes.run().items()} == {
        "first@cpu": "pass",
        "all@cpu": "pass",
    }
    assert fakes.events.told == [
        "started all@cpu",
        "started first@cpu",
        "finished first@cpu pass",
        "finished all@cpu pass",
    ]


def test_answered_cell_begins_nothing_early():
    fakes = Fakes(collection("all", "first"), collection("first"))
    fakes.may_end["first@cpu"].set()
    answer = Verdict("all", "cpu", "pass", "kept")
    assert fakes.run(known={"all@cpu": answer})["all@cpu"].summary == "kept"
    assert "started all@cpu" not in fakes.events.told


def test_cancellation_leaves_out_what_began_early():
    fakes = Fakes(collection("all", "first"), collection("first"))
    threading.Timer(0.05, fakes.candidate.cancellation.cancel, ["interrupted"]).start()
    assert {name: v.status for name, v in fakes.run().items()} == {"first@cpu": "error"}
    assert fakes.cancelled == {"all@cpu": "interrupted", "first@cpu": "interrupted"}


@settings(max_examples=25, deadline=None)
@given(
    needs=st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=5, max_size=5),
    failing=st.frozensets(st.sampled_from("abcde"), max_size=2),
    order=st.sampled_from(list(itertools.permutations(range(5)))),
    jobs=st.integers(2, 4),
)
def test_verdicts_are_those_of_one_cell_after_another(needs, failing, order, jobs):
    """Whatever needs what, whatever fails, and whichever cell is taken to be the longest."""
    names = "abcde"
    criteria = [
        collection(names[n], *(names[m] for m in sorted(needs[n]) if m < n)) for n in range(5)
    ]
    found = []
    for at_a_time in (1, jobs):
        fakes = Fakes(*criteria, failing=failing)
        for event in fakes.may_end.values():
            event.set()
        if at_a_time > 1:
            fakes.cells = [fakes.cells[n] for n in order]
        found.append({name: v.status for name, v in fakes.run(at_a_time).items()})
    assert found[0] == found[1]
