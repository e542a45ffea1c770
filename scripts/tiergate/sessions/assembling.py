"""Parts of a criterion → one observation. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from tiergate.checkers import Observation
from tiergate.fields import Device
from tiergate.sessions.records import MAX_CASES, MAX_FAILURES
from tiergate.spec import Criterion
from tiergate.verdict import Failure, Part, Tally

# More failures than this are no flake; and a command line takes only so many ids.
MOST_RETRIED = 100


def assemble(
    parts: Sequence[Part], criterion: Criterion, device: Device, *, collect_only: bool
) -> Observation:
    """Return what parts amount to: the one part of a whole criterion, or those of all shards."""
    errors = list(dict.fromkeys(part.error for part in parts if part.error))
    stopped = any(part.stopped for part in parts)
    counts, failures = _added([part.collection for part in parts])
    if not stopped:
        more, failed = _added([part.run for part in parts])
        counts, failures = counts + more, failures + failed
    collected = {test: body for part in parts for test, body in part.collected.items()}
    ran = [] if stopped else parts
    passed = {test: collected.get(test, "") for part in ran for test in part.passed}
    error = "; ".join(errors)
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if not error and not collect_only and device == "cuda":
        used = sum(part.allocations for part in parts)
        if used == 0:
            error = "no test used the CUDA device: nothing was ever allocated on it"
        notes.append(f"{used} allocations on the CUDA device")
    observation = Observation(
        counts=dict(counts),
        error=error,
        failures=tuple(failures)[:MAX_FAILURES],
        notes=tuple(notes),
        output="\n".join(part.output for part in parts if part.output),
        running=next((part.running for part in parts if part.running), ""),
        cases=tuple(case for part in ran for case in part.cases)[:MAX_CASES],
        tests={"collected": collected, "passed": passed},
    )
    flaky = {test: how for part in ran for test, how in part.flaky.items()}
    return _with_flaky(observation, flaky) if criterion.retries and not error else observation


def _added(tallies: Sequence[Tally]) -> tuple[Counter[str], list[Failure]]:
    """Add up what is of single files, and count once what several may have seen."""
    counts: Counter[str] = Counter()
    shared: dict[str, Counter[str]] = {}
    failures: list[Failure] = []
    told: set[tuple[object, ...]] = set()
    for tally in tallies:
        counts.update(tally.counts)
        for outcome, seen in tally.shared.items():
            shared[outcome] = shared.get(outcome, Counter()) | Counter(seen)
        failures += [failure for failure in tally.failures if _told(failure) not in told]
        told.update(map(_told, tally.failures))
    for outcome, seen in shared.items():
        counts[outcome] += seen.total()
    return counts, failures


def _told(failure: Failure) -> tuple[object, ...]:
    return failure.id, failure.outcome, failure.message, failure.path, failure.line


def retried(failures: Sequence[Failure], counts: Mapping[str, int]) -> list[str]:
    """Return the failed tests that may be run again: all, or none where they are too many."""
    failed = [failure.id for failure in failures if failure.outcome == "failed"]
    too_many = len(failed) > MOST_RETRIED or len(failed) < counts.get("failed", 0)
    return [] if too_many else failed


def _with_flaky(seen: Observation, passed_again: Mapping[str, str]) -> Observation:
    """Count the tests that passed when they were run again as flaky, and say so."""
    flaky = {t: passed_again[t] for t in retried(seen.failures, seen.counts) if t in passed_again}
    if not flaky:
        return seen
    counts = {**seen.counts, "flaky": len(flaky)}
    counts["failed"] -= len(flaky)
    counts["passed"] = counts.get("passed", 0) + len(flaky)
    failures = [
        msgspec.structs.replace(f, outcome="flaky", message=f"{flaky[f.id]}; at first: {f.message}")
        if f.id in flaky and f.outcome == "failed"
        else f
        for f in seen.failures
    ]
    passed = {**seen.tests["passed"], **{t: seen.tests["collected"].get(t, "") for t in flaky}}
    return msgspec.structs.replace(
        seen,
        counts=counts,
        failures=tuple(failures),
        notes=(*seen.notes, *(f"flaky: {test}" for test in flaky)),
        cases=tuple(
            msgspec.structs.replace(c, outcome="flaky") if c.id in flaky else c for c in seen.cases
        ),
        tests={**seen.tests, "passed": passed},
    )
