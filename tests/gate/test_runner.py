"""The cells of a leg: their order, what blocks them, and what ends them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from samples import Sample, ended

from tiergate import checkers, plan, runner
from tiergate.runner import LegResult
from tiergate.verdict import Verdict


class Events:
    """Writes down what a listener is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, cell: str) -> None:
        self.told.append(f"started {cell}")

    def progress(self, cell: str, what: str) -> None:
        self.told.append(f"progress {cell} {what}")

    def expected(self, cell: str, tests: int) -> None:
        self.told.append(f"expected {cell} {tests}")

    def finished(self, verdict: Verdict) -> None:
        self.told.append(f"finished {verdict.cell} {verdict.status}")


def criterion(name: str, code: str = "", **more: Any) -> dict[str, Any]:
    run = ["{python}", "-ISc", code] if code else ["true"]
    return {"id": name, "uses": "command", "with": {"run": run}, **more}


@pytest.fixture
def bare(sample: Sample) -> Sample:
    """A sample whose candidate starts fast; no test runs in it."""
    sample.python = Path(sys.executable)
    return sample


def leg(
    sample: Sample,
    *criteria: Mapping[str, Any],
    jobs: int = 2,
    listener: Any = None,
    only: set[str] | None = None,
    device: Any = "cpu",
    **top: Any,
) -> LegResult:
    sample.gate(*criteria, **top)
    candidate = sample.candidate()
    planned = plan.cells(candidate.spec, device)
    selected = {cell.name for cell in planned if only is None or cell.criterion.id in only}
    return runner.run_leg(
        planned,
        candidate,
        device=device,
        selected=selected,
        jobs=jobs,
        listener=listener or Events(),
    )


def statuses(result: LegResult) -> dict[str, str]:
    return {verdict.criterion: verdict.status for verdict in result.verdicts}


def test_verdicts_come_in_the_order_of_the_plan_whichever_ends_first(bare: Sample, tmp_path: Path):
    told = tmp_path / "told"

    class Tells(Events):
        def finished(self, verdict: Verdict) -> None:
            super().finished(verdict)
            told.touch()

    slow = f"import os, time\nwhile not os.path.exists({str(told)!r}): time.sleep(0.01)"
    events = Tells()
    result = leg(bare, criterion("slow", slow), criterion("fast"), listener=events)
    assert [verdict.criterion for verdict in result.verdicts] == ["slow", "fast"]
    assert statuses(result) == {"slow": "pass", "fast": "pass"}
    assert events.told[-2:] == ["finished fast@cpu pass", "finished slow@cpu pass"]


def test_one_job_evaluates_one_cell_at_a_time(bare: Sample):
    events = Events()
    leg(bare, criterion("a"), criterion("b"), criterion("c"), jobs=1, listener=events)
    assert events.told == [
        line for c in "abc" for line in (f"started {c}@cpu", f"finished {c}@cpu pass")
    ]


def test_cell_whose_need_failed_is_blocked_and_so_are_those_that_need_it(bare: Sample):
    events = Events()
    result = leg(
        bare,
        criterion("last", needs=["middle"]),
        criterion("middle", needs=["first"]),
        criterion("first", "raise SystemExit(1)"),
        criterion("free"),
        listener=events,
    )
    assert statuses(result) == {
        "last": "blocked",
        "middle": "blocked",
        "first": "fail",
        "free": "pass",
    }
    summaries = {verdict.criterion: verdict.summary for verdict in result.verdicts}
    assert summaries["middle"] == "needs first@cpu, which did not pass"
    assert summaries["last"] == "needs middle@cpu, which did not pass"
    assert [line for line in events.told if line.startswith("started")] == [
        "started first@cpu",
        "started free@cpu",
    ]


def test_need_that_could_not_be_evaluated_blocks_as_well(bare: Sample):
    result = leg(
        bare,
        criterion("broken", "import os; os.kill(os.getpid(), 9)"),
        criterion("after", needs=["broken"]),
    )
    assert statuses(result) == {"broken": "error", "after": "blocked"}


def test_collection_that_began_before_its_need_failed_is_ended_with_its_process(sample: Sample):
    """The need waits for the collection to run, then fails; the collection would take minutes."""
    running = sample.root.parent / "running"
    sample.write(
        "tests/test_long.py",
        f"import os, pathlib, time\npathlib.Path({str(running)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n",
    )
    sample.write(
        "src/needed.py",
        f"import os, time\nwhile not os.path.exists({str(running)!r}):\n    time.sleep(0.01)\n"
        "raise ImportError('after the collection had begun')\n",
    )
    collection = {"id": "all", "uses": "collection", "expect": {"collected": 1}}
    result = leg(
        sample,
        {**collection, "timeout": 300, "needs": ["needed"]},
        {"id": "needed", "uses": "imports", "with": {"module": "needed"}},
    )
    blocked, failed = result.verdicts
    assert (failed.status, blocked.status) == ("fail", "blocked")
    assert blocked.summary == "needs needed@cpu, which did not pass"
    assert blocked.evidence.output == ""
    assert (blocked.seconds, blocked.slot) == (0.0, 0)
    assert result.timings.keys() == {"needed@cpu"}
    assert ended(int(running.read_text()), seconds=0)


def test_need_that_was_not_selected_does_not_block(bare: Sample):
    result = leg(
        bare,
        criterion("first", "raise SystemExit(1)"),
        criterion("after", needs=["first"]),
        only={"after"},
    )
    assert statuses(result) == {"after": "pass"}


def test_tier_is_judged_only_when_the_one_under_it_passed(bare: Sample):
    def tiers(code: str) -> dict[str, Any]:
        low = {"gate": "TIER 0", "criteria": [criterion("low", code), criterion("other")]}
        return {"tiers": [low, {"gate": "TIER 1", "criteria": [criterion("high")]}]}

    assert statuses(leg(bare, **tiers("pass"))) == {"low": "pass", "other": "pass", "high": "pass"}
    failed = statuses(leg(bare, **tiers("raise SystemExit(1)")))
    assert failed == {"low": "fail", "other": "pass", "high": "blocked"}


def test_checker_that_raises_is_an_error_with_its_traceback(bare: Sample, monkeypatch):
    broken = SimpleNamespace(**vars(checkers.get("command")))

    def observe(parameters: Any, context: Any) -> Any:
        raise ZeroDivisionError("by zero")

    broken.observe = observe
    bare.gate(criterion("a"))
    monkeypatch.setattr(runner.checkers, "get", lambda _: broken)
    (verdict,) = leg(bare, criterion("a")).verdicts
    assert verdict.status == "error"
    assert verdict.summary == "the checker command failed: ZeroDivisionError: by zero"
    assert "in observe" in verdict.evidence.output


def test_candidate_that_does_not_answer_makes_every_cell_an_error(bare: Sample):
    bare.python = bare.write("python", "#!/bin/sh\necho this is no Python; exit 3\n")
    bare.python.chmod(0o755)
    result = leg(bare, criterion("a"), criterion("b", needs=["a"]))
    assert statuses(result) == {"a": "error", "b": "error"}
    assert "did not answer: ended without its closing record" in result.verdicts[0].summary
    assert "this is no Python" in result.verdicts[0].summary


def test_missing_device_makes_every_cell_an_error_never_a_skip(bare: Sample):
    result = leg(
        bare,
        criterion("a", devices=["cpu", "cuda"]),
        criterion("b", devices=["cpu"]),
        device="cuda",
        devices=["cpu", "cuda"],
    )
    assert statuses(result) == {"a": "error"}
    assert "no usable CUDA device: torch cannot be imported" in result.verdicts[0].summary
    assert result.device_proof == {}


def test_cancellation_starts_nothing_more(bare: Sample):
    class Cancels(Events):
        def finished(self, verdict: Verdict) -> None:
            super().finished(verdict)
            bare.cancellation.cancel("interrupted by SIGINT")

    events = Cancels()
    result = leg(bare, criterion("a"), criterion("b"), criterion("c"), jobs=1, listener=events)
    assert statuses(result) == {"a": "pass"}
    assert events.told == ["started a@cpu", "finished a@cpu pass"]


def test_cancellation_ends_what_runs_as_not_evaluated(bare: Sample):
    class Cancels(Events):
        def started(self, cell: str) -> None:
            super().started(cell)
            bare.cancellation.cancel("interrupted by SIGTERM")

    (verdict,) = leg(
        bare, criterion("a", "import time; time.sleep(60)"), listener=Cancels()
    ).verdicts
    assert (verdict.status, verdict.summary) == ("error", "cancelled: interrupted by SIGTERM")


def test_cancellation_before_the_first_cell_gives_no_verdicts(bare: Sample):
    bare.cancellation.cancel("interrupted by SIGINT")
    result = leg(bare, criterion("a"), criterion("b"))
    assert result.verdicts == []


def test_listener_that_fails_ends_what_runs_at_once(bare: Sample, tmp_path: Path):
    class Gone(Events):
        def finished(self, verdict: Verdict) -> None:
            raise BrokenPipeError("nobody reads")

    long = criterion("long", "import time; time.sleep(300)", timeout=200)
    started = time.monotonic()
    with pytest.raises(BrokenPipeError):
        leg(bare, criterion("quick"), long, listener=Gone())
    assert time.monotonic() - started < 100
    assert bare.cancellation.reason == "stopped by BrokenPipeError"


def test_progress_is_told_with_its_cell(sample: Sample):
    events = Events()
    sample.gate()
    from samples import PASSES

    leg(sample, PASSES, listener=events)
    assert events.told == [
        "started prices@cpu",
        "expected prices@cpu 2",
        "progress prices@cpu tests/test_prices.py::test_total",
        "progress prices@cpu tests/test_prices.py::test_nothing_costs_nothing",
        "finished prices@cpu pass",
    ]


def test_the_longest_begins_first_and_one_alone_is_not_asked_for(bare: Sample):
    took = {"a@cpu": 1.0, "b@cpu": 3.0, "c@cpu": 2.0}
    asked: list[str] = []
    events = Events()

    def expected(cell: str) -> float:
        asked.append(cell)
        return took[cell]

    bare.gate(*map(criterion, "abc"))
    gate = bare.candidate()
    for only in (set(took), {"a@cpu"}):
        asked.clear()
        cells = plan.cells(gate.spec, "cpu")
        runner.run_leg(
            cells,
            gate,
            device="cpu",
            selected=sorted(only),
            jobs=1,
            listener=events,
            expected=expected,
        )
        assert asked == (sorted(took) if len(only) > 1 else [])
    assert [told for told in events.told if told.startswith("started")] == [
        "started b@cpu", "started c@cpu", "started a@cpu", "started a@cpu",
    ]  # fmt: skip
