"""Which cell begins when: what may begin early, and what shares a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiergate import plan, spec
from tiergate.plan import Cell
from tiergate.schedule import GpuMemory, Schedule

EVERYWHERE = ["cpu", "cuda"]


def of(*criteria: dict[str, Any], device: Any = "cpu", **top: Any) -> dict[str, Cell]:
    document = {"gate": "TIER 0", "criteria": list(criteria), **top}
    if device == "cuda":
        document["devices"] = EVERYWHERE
    if "tiers" in top:
        del document["gate"], document["criteria"]
    gate = spec.parse(json.dumps(document).encode(), Path("gate.yaml"))
    return {cell.criterion.id: cell for cell in plan.cells(gate, device)}


def imports(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "uses": "imports", "with": {"module": "shop"}, **more}


def runs(name: str, **more: Any) -> dict[str, Any]:
    tests = {"with": {"paths": ["tests"]}, "expect": {"passed": 1}}
    return {"id": name, "uses": "pytest", **tests, **more}


def command(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "uses": "command", "with": {"run": ["true"]}, **more}


def collection(name: str = "all", **more: Any) -> dict[str, Any]:
    return {"id": name, "uses": "collection", "expect": {"collected": 1}, **more}


ONLY_COLLECTS = runs("only-collects", needs=["first"]) | {
    "with": {"paths": ["tests"], "collect-only": True},
    "expect": {"collected": 1},
}


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        (runs("first"), collection(needs=["first"]), "begin early"),
        (imports("first"), imports("then", needs=["first"]), "begin early"),
        (imports("first"), ONLY_COLLECTS, "begin early"),
        (imports("first"), runs("then", needs=["first"]), "wait"),
        (imports("first"), command("then", needs=["first"]), "wait"),
        (command("first"), collection(needs=["first"]), "wait"),
    ],
)
def test_cell_begins_early_where_it_and_its_needs_leave_nothing_behind(first, then, expected):
    first, then = of(first, then).values()
    schedule = Schedule([then, first], jobs=2)
    assert schedule.answer(then) == expected
    assert schedule.answer(first) == "begin"
    schedule.decide(first.name, passed=True)
    assert schedule.answer(then) == "begin"


def test_cell_waits_for_what_its_needs_need():
    cells = of(command("built"), imports("first", needs=["built"]), collection(needs=["first"]))
    schedule = Schedule(list(cells.values()), jobs=4)
    assert schedule.answer(cells["all"]) == "wait"
    schedule.decide("built@cpu", passed=True)
    assert schedule.answer(cells["all"]) == "begin early"
    schedule.decide("first@cpu", passed=False)
    assert schedule.answer(cells["all"]) == "blocked"


def test_cell_of_a_higher_tier_waits():
    low = {"gate": "TIER 0", "criteria": [imports("low")]}
    cells = of(tiers=[low, {"gate": "TIER 1", "criteria": [collection()]}])
    assert Schedule(list(cells.values()), jobs=2).answer(cells["all"]) == "wait"


def test_one_place_is_kept_for_what_decides():
    cells = of(imports("first"), collection("a", needs=["first"]), collection("b", needs=["first"]))
    schedule = Schedule(list(cells.values()), jobs=2)
    schedule.begin(cells["a"])
    assert schedule.answer(cells["b"]) == "wait"
    assert schedule.answer(cells["first"]) == "begin"
    assert Schedule(list(cells.values()), jobs=1).answer(cells["a"]) == "wait"


def gpu(*criteria: dict[str, Any], free: float = 10) -> tuple[Schedule, dict[str, Cell]]:
    cells = of(*criteria, device="cuda")
    return Schedule(list(cells.values()), jobs=8, memory=GpuMemory(free)), cells


def test_cells_share_a_gpu_as_long_as_they_fit_into_what_is_free():
    four, three = {"gpu-memory": 4}, {"gpu-memory": 3}
    schedule, cells = gpu(
        runs("a", devices=EVERYWHERE, **four),
        runs("b", devices=EVERYWHERE, **four),
        runs("c", devices=EVERYWHERE, **three),
    )
    schedule.begin(cells["a"])
    schedule.begin(cells["b"])
    assert schedule.answer(cells["c"]) == "wait"
    schedule.end(cells["a"])
    assert schedule.answer(cells["c"]) == "begin"


@pytest.mark.parametrize("memory", [{}, {"gpu-memory": 11}])
def test_cell_that_says_nothing_or_too_much_has_the_gpu_for_itself(memory):
    schedule, cells = gpu(
        runs("small", devices=EVERYWHERE, **{"gpu-memory": 0.5}),
        runs("large", devices=EVERYWHERE, **memory),
    )
    assert schedule.answer(cells["large"]) == "begin"
    schedule.begin(cells["small"])
    assert schedule.answer(cells["large"]) == "wait"
    schedule.end(cells["small"])
    schedule.begin(cells["large"])
    assert schedule.answer(cells["small"]) == "wait"


def test_scan_takes_no_memory_of_the_gpu():
    scan = {
        "id": "scan",
        "uses": "semgrep",
        "with": {"rules": ["unsafe-torch-load"], "paths": ["src"]},
        "expect": {"findings": 0},
        "devices": EVERYWHERE,
    }
    schedule, cells = gpu(scan, runs("tests", devices=EVERYWHERE))
    schedule.begin(cells["tests"])
    assert schedule.answer(cells["scan"]) == "begin"
