"""Runs the cells of one leg: in parallel, in the order that their needs allow."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from tiergate import checkers, judge
from tiergate.candidate import Candidate
from tiergate.checkers import Context
from tiergate.errors import UserError
from tiergate.fields import Device
from tiergate.plan import Cell
from tiergate.verdict import PASSING, Verdict

DEVICE_TIMEOUT = 120.0
"""Seconds that the proof of a device, or the environment's fingerprint, may take."""

_TICK = 0.2


class Listener(Protocol):
    """Is told what happens, for a person who watches."""

    def started(self, cell: str) -> None:
        """A cell's evaluation began."""

    def progress(self, cell: str, what: str) -> None:
        """A cell now evaluates ``what``: a test's node id, for example."""

    def finished(self, verdict: Verdict) -> None:
        """A cell has its verdict."""


@dataclass
class LegResult:
    """What came of a leg."""

    verdicts: list[Verdict] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    device_proof: dict[str, str] = field(default_factory=dict)


def run_leg(
    planned: list[Cell],
    candidate: Candidate,
    *,
    device: Device,
    selected: Collection[str],
    jobs: int,
    listener: Listener,
) -> LegResult:
    """Evaluate the selected cells of a leg; the verdicts come in the order of the plan.

    A cell whose needs were selected and did not pass is ``blocked``. After a cancellation no cell
    is started any more; those without a verdict are simply missing from the result.
    """
    result = LegResult()
    wanted = [cell for cell in planned if cell.name in selected]
    found = candidate.run_job("environment", device, DEVICE_TIMEOUT, {})
    if found.problem:
        reason = f"the candidate's interpreter {candidate.python} did not answer: {found.problem}"
        return _nothing_runs(result, wanted, f"{reason}\n{found.output[-2000:]}".strip(), listener)
    result.environment = found.of("environment")[0]["values"]
    if device == "cuda":
        proof = candidate.run_job("cuda", device, DEVICE_TIMEOUT, {})
        if not proof.of("device") or proof.problem:
            said = proof.problem or proof.of("no-device")[0]["reason"]
            return _nothing_runs(result, wanted, f"no usable CUDA device: {said}", listener)
        result.device_proof = proof.of("device")[0]["values"]
    verdicts = _run_cells(wanted, candidate, jobs, listener)
    result.verdicts = [verdicts[cell.name] for cell in wanted if cell.name in verdicts]
    return result


def _nothing_runs(
    result: LegResult, wanted: list[Cell], reason: str, listener: Listener
) -> LegResult:
    for cell in wanted:
        verdict = judge.not_run(cell.criterion, cell.device, "error", reason)
        result.verdicts.append(verdict)
        listener.finished(verdict)
    return result


def _run_cells(
    wanted: list[Cell], candidate: Candidate, jobs: int, listener: Listener
) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    waiting = list(wanted)
    running: dict[Future[Verdict], Cell] = {}
    names = {cell.name for cell in wanted}

    def finish(verdict: Verdict) -> None:
        verdicts[verdict.cell] = verdict
        listener.finished(verdict)

    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="cell") as pool:
        while waiting or running:
            for cell in list(waiting):
                needs = [need for need in cell.needs if need in names]
                unmet = [n for n in needs if n in verdicts and verdicts[n].status not in PASSING]
                if unmet:
                    waiting.remove(cell)
                    reason = f"needs {', '.join(unmet)}, which did not pass"
                    finish(judge.not_run(cell.criterion, cell.device, "blocked", reason))
                elif len(running) < jobs and all(need in verdicts for need in needs):
                    waiting.remove(cell)
                    listener.started(cell.name)
                    running[pool.submit(_evaluate, cell, candidate, listener)] = cell
            if candidate.cancellation.requested:
                waiting.clear()
            if not running:
                continue
            done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in done:
                del running[future]
                finish(future.result())
    return verdicts


def _evaluate(cell: Cell, candidate: Candidate, listener: Listener) -> Verdict:
    def progress(what: str) -> None:
        listener.progress(cell.name, what)

    criterion = cell.criterion
    checker = checkers.get(criterion.uses)
    context = Context(criterion, candidate, cell.device, progress)
    started = time.monotonic()
    try:
        observation = checker.observe(criterion.parameters, context)
    except UserError as error:
        observation = checkers.Observation(error=str(error))
    except Exception as error:  # noqa: BLE001 - whatever a checker raises must not look like a pass
        observation = checkers.Observation(
            error=f"the checker {criterion.uses} failed: {type(error).__name__}: {error}",
            output=traceback.format_exc(),
        )
    return judge.judge(context, checker, observation, time.monotonic() - started)
