"""Records of a pytest session → counts and evidence; shared by ``pytest`` and ``collection``."""

from __future__ import annotations

import fnmatch
import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import msgspec

from tiergate.candidate import ProbeResult, Record
from tiergate.checkers import Context, Observation
from tiergate.verdict import Case, Failure

MAX_FAILURES = 200
MAX_CASES = 50_000
_DETAILED_FAILURES = 50

_OK, _INTERRUPTED, _INTERNAL_ERROR, _USAGE_ERROR, _NO_TESTS = 0, 2, 3, 4, 5


@dataclass
class Session:
    """What a session collected and what came of it."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    collected: list[str] = field(default_factory=list)
    selected: list[str] = field(default_factory=list)
    bodies: dict[str, str] = field(default_factory=dict)
    """Of every collected test: id → digest of its body."""
    passed: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    seen_paths: set[str] = field(default_factory=set)
    file_patterns: list[str] = field(default_factory=list)
    running: str = ""


def run_session(
    context: Context, paths: list[str], arguments: Iterable[str]
) -> tuple[ProbeResult, Session]:
    """Run pytest on ``paths`` in the candidate's interpreter."""
    root = context.candidate.repository.root

    def on_record(record: Record) -> None:
        if record["event"] == "start":
            context.progress(record["id"])
        elif record["event"] == "selected":
            context.expect_tests(len(record["ids"]))

    result = context.candidate.run_job(
        "session",
        context.device,
        context.criterion.timeout,
        {
            "arguments": [
                "-p",
                "no:cacheprovider",
                "-o",
                "addopts=",
                f"--rootdir={root}",
                "--color=no",
                "--no-header",
                "-q",
                *arguments,
                *paths,
            ]
        },
        on_record,
    )
    session = read_session(result)
    doubt_foreign(session, paths)
    return result, session


def read_session(result: ProbeResult) -> Session:
    """Count what the records say; the terminal output is never read."""
    session = Session()
    tests: dict[str, list[Record]] = {}
    for record in result.records:
        event = record["event"]
        if event == "phase":
            tests.setdefault(record["id"], []).append(record)
        elif event == "start":
            session.running = record["id"]
        elif event == "finish":
            session.running = ""
        elif event == "doubt":
            session.counts[record["outcome"]] += 1
            _add_failure(session, record["outcome"], record)
        else:
            _read_collection(session, record)
    session.counts["collected"] = len(session.collected)
    session.counts["warnings"] = len(result.of("warning"))
    for phases in tests.values():
        _count_test(session, phases)
    session.cases = [_case(test, phases) for test, phases in tests.items()][:MAX_CASES]
    if result.of("selected"):
        added = list((Counter(session.selected) - Counter(session.collected)).elements())
        session.counts["suspect"] += len(added)
        for test in added:
            _add_failure(session, "suspect", {"id": test, "message": "run, but never collected"})
        dropped = list((Counter(session.collected) - Counter(session.selected)).elements())
        session.counts["deselected"] = len(dropped)
        for test in dropped:
            _add_failure(session, "deselected", {"id": test, "message": "collected, but dropped"})
    return session


def doubt_foreign(session: Session, paths: Iterable[str]) -> None:
    """Doubt the tests that were collected from elsewhere than ``paths``: they must not count."""
    wanted = [posixpath.normpath(path) for path in paths]
    for test in session.collected:
        if not any(_is_at(test, path) for path in wanted):
            message = f"collected from outside of {', '.join(wanted)}"
            session.counts["suspect"] += 1
            _add_failure(session, "suspect", {"id": test, "message": message})


def _is_at(test: str, path: str) -> bool:
    """Tell whether a test's id lies at, or below, a path or another id."""
    return path in {".", test} or test.startswith((f"{path}/", f"{path}::", f"{path}["))


def _read_collection(session: Session, record: Record) -> None:
    event = record["event"]
    if event == "session":
        session.file_patterns = list(record["file_patterns"])
    elif event == "item":
        session.collected.append(record["id"])
        session.bodies[record["id"]] = record["body"]
        session.seen_paths.add(record["path"])
    elif event == "selected":
        session.selected = list(record["ids"])
    elif event in {"collect-passed", "collect-failed", "collect-skipped"}:
        session.seen_paths.add(record["id"].split("::")[0])
        if event != "collect-passed":
            outcome = "errors" if event == "collect-failed" else "skipped"
            session.counts[outcome] += 1
            _add_failure(session, outcome, record)


def _count_test(session: Session, phases: list[Record]) -> None:
    """Count one test the way that pytest's own summary does, but a second run as a rerun."""
    calls = 0
    for record in phases:
        outcome = _outcome(record)
        if outcome == "":
            continue
        if record["when"] == "call" and outcome in {"passed", "xpassed"} and not record["subtest"]:
            calls += 1
            if calls > 1:
                outcome = "rerun"
        if record["subtest"] and outcome == "passed":
            continue
        session.counts[outcome] += 1
        if outcome == "passed":
            session.passed.append(record["id"])
        else:
            _add_failure(session, outcome, _unmasked(record))


def _case(test: str, phases: list[Record]) -> Case:
    """Return a test's worst outcome and the time that all its phases took."""
    outcomes = [outcome for record in phases if (outcome := _outcome(record))]
    worst = next((o for o in outcomes if o not in {"passed", "rerun"}), "passed")
    if not outcomes:
        worst = "errors"  # it never came to a call
    return Case(test, worst, round(sum(record["seconds"] for record in phases), 4))


def _unmasked(record: Record) -> Record:
    """Say of a report that contradicts what the probe saw in what way."""
    if record.get("raised"):
        message = f"reported as passed, but its {record['when']} raised {record['raised']}"
        return {**record, "message": message}
    if record.get("unrun"):
        return {**record, "message": "reported as passed, but its body never ran"}
    return record


def _outcome(record: Record) -> str:
    outcome, when = record["outcome"], record["when"]
    if record.get("raised"):
        return "failed" if when == "call" else "errors"
    if record.get("unrun"):
        return "suspect"
    if outcome == "passed":
        if when != "call":
            return ""
        return "xpassed" if record["xfail"] else "passed"
    if outcome == "skipped":
        return "xfailed" if record["xfail"] else "skipped"
    if outcome == "failed":
        return "failed" if when == "call" else "errors"
    return "rerun" if outcome == "rerun" else "errors"


def _add_failure(session: Session, outcome: str, record: Record) -> None:
    if len(session.failures) >= MAX_FAILURES:
        return
    detailed = len(session.failures) < _DETAILED_FAILURES
    session.failures.append(
        Failure(
            id=record["id"],
            outcome=outcome,
            message=record.get("message", ""),
            details=record.get("details", "") if detailed else "",
            path=record.get("path", ""),
            line=record.get("line"),
        )
    )


def problem_of(result: ProbeResult, session: Session, *, collect_only: bool) -> str:
    """Say why a session cannot be judged, or return an empty string."""
    if unusable := result.of("unusable"):
        return str(unusable[0]["reason"])
    if result.problem:
        where = f" while {session.running} was running" if session.running else ""
        return f"the test session {result.problem}{where}"
    if not result.of("session"):
        return f"pytest never started a session (exit status {result.status})"
    if result.status == _INTERNAL_ERROR:
        return "pytest stopped with an internal error"
    if result.status == _USAGE_ERROR and not session.counts["errors"]:
        return "pytest did not accept its arguments"
    if result.status == _INTERRUPTED and not session.counts["errors"]:
        return "the test session was interrupted from inside"
    red = session.counts["failed"] + session.counts["errors"]
    if not collect_only and not red:
        # The teardown is what every test ends with, whatever its outcome.
        ended = {record["id"] for record in result.of("phase") if record["when"] == "teardown"}
        unended = [test for test in session.selected if test not in ended]
        if unended:
            return (
                f"{len(unended)} of {len(session.selected)} selected tests never reported "
                f"an outcome, the first: {unended[0]}"
            )
    if result.status not in {_OK, _NO_TESTS} and not red:
        return f"pytest ended with exit status {result.status}, but no failure was reported"
    return ""


def observation(
    result: ProbeResult, session: Session, context: Context, *, collect_only: bool
) -> Observation:
    """Return what a session amounts to."""
    error = problem_of(result, session, collect_only=collect_only)
    repository = context.candidate.repository
    if not error and (outside := [path for path in session.seen_paths if repository.leaves(path)]):
        error = f"a symbolic link leads out of the repository: {min(outside)}"
    notes = []
    if result.left_behind:
        notes.append(f"{result.left_behind} processes were left running and have been ended")
    if not error and not collect_only and context.device == "cuda":
        used = sum(record["allocations"] for record in result.of("cuda"))
        if used == 0:
            error = "no test used the CUDA device: nothing was ever allocated on it"
        notes.append(f"{used} allocations on the CUDA device")
    return Observation(
        counts=dict(session.counts),
        error=error,
        failures=tuple(session.failures),
        notes=tuple(notes),
        output=result.output,
        running=session.running,
        cases=tuple(session.cases),
        tests={
            "collected": session.bodies,
            "passed": {test: session.bodies.get(test, "") for test in session.passed},
        },
    )


def with_ignored(seen: Observation, session: Session, context: Context) -> Observation:
    """Count as ``ignored`` the test files of the repository that pytest never visited.

    Pytest's own names of test files count whatever the configuration says.
    """
    paths = msgspec.to_builtins(context.criterion.parameters)["paths"]
    patterns = ["test_*.py", "*_test.py", *session.file_patterns]
    ignored = [
        name
        for name in context.candidate.repository.files_under(paths)
        if name not in session.seen_paths and _is_test_file(name, patterns)
    ]
    failures = [
        Failure(id=name, outcome="ignored", message="a test file that was never collected")
        for name in ignored
    ]
    return replace(
        seen,
        counts={**seen.counts, "ignored": len(ignored)},
        failures=(*seen.failures, *failures)[:MAX_FAILURES],
    )


def _is_test_file(name: str, patterns: list[str]) -> bool:
    path = PurePosixPath(name)
    return path.suffix == ".py" and any(
        fnmatch.fnmatch(name if "/" in pattern else path.name, pattern) for pattern in patterns
    )


def absent(context: Context, paths: list[str]) -> Observation | None:
    """Return the observation for paths that are missing or lead out of the repository."""
    repository = context.candidate.repository
    files = [path.split("::")[0] for path in paths]
    if escaping := [path for path in files if repository.leaves(path)]:
        return Observation(error=f"a symbolic link leads out of the repository: {escaping[0]}")
    if twins := repository.twins(files):
        return Observation(error=twins[0])
    missing = [path for path in files if not (repository.root / path).exists()]
    if not missing:
        return None
    failures = [Failure(id=path, outcome="errors", message="does not exist") for path in missing]
    return Observation(counts={"errors": len(missing)}, failures=tuple(failures))
