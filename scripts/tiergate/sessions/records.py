"""Records of a pytest session → what was collected, and what came of it. Pure."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import msgspec

from tiergate.candidate import ProbeResult, Record
from tiergate.checkers import Timings
from tiergate.verdict import Case, Failure, Tally

MAX_FAILURES = 200
MAX_CASES = 50_000
_DETAILED_FAILURES = 50
_SILENT = frozenset({"passed", "warnings"})

# A phase of a test, or all of a test that just passed: setup, call and teardown, in this order.
_OF_A_TEST = frozenset({"phase", "passed"})

_OK, INTERRUPTED, _INTERNAL_ERROR, _USAGE_ERROR, _NO_TESTS = 0, 2, 3, 4, 5


class Counts(msgspec.Struct):
    """What was counted while tests were collected, or while they ran."""

    all: Counter[str] = msgspec.field(default_factory=Counter)
    shared: dict[str, Counter[str]] = {}
    """Of them, those that are of no single file: outcome → what had it → how often."""
    failures: list[Failure] = []

    def add(self, outcome: str, record: Record, what: str = "") -> None:
        """Count an outcome; ``what`` had it, where that is of no single file."""
        self.all[outcome] += 1
        if what:
            self.shared.setdefault(outcome, Counter())[what] += 1
        if outcome not in _SILENT and len(self.failures) < MAX_FAILURES:
            detailed = len(self.failures) < _DETAILED_FAILURES
            self.failures.append(_failure(outcome, record, detailed=detailed))

    def tally(self) -> Tally:
        """Return it as it travels."""
        own = self.all.copy()
        for outcome, shared in self.shared.items():
            own[outcome] -= shared.total()
        return Tally(
            counts={outcome: count for outcome, count in own.items() if count},
            shared={outcome: dict(shared) for outcome, shared in self.shared.items()},
            failures=self.failures,
        )


class Session(msgspec.Struct):
    """What a session collected and what came of it."""

    collection: Counts = msgspec.field(default_factory=Counts)
    run: Counts = msgspec.field(default_factory=Counts)
    collected: list[str] = []
    selected: list[str] = []
    bodies: dict[str, str] = {}
    """Of every collected test: id → digest of its body."""
    passed: list[str] = []
    cases: list[Case] = []
    seen_paths: set[str] = msgspec.field(default_factory=set)
    file_patterns: list[str] = []
    running: str = ""

    @property
    def counts(self) -> Counter[str]:
        """All that was counted."""
        return self.collection.all + self.run.all

    @property
    def failures(self) -> list[Failure]:
        """All that did not hold, as far as it is kept."""
        return [*self.collection.failures, *self.run.failures]


def read_session(result: ProbeResult) -> Session:
    """Count what the records say; the terminal output is never read."""
    session = Session()
    tests: dict[str, list[Record]] = {}
    counts = session.collection
    for record in result.records:
        event = record["event"]
        if event in _OF_A_TEST:
            tests.setdefault(record["id"], []).append(record)
            if event == "passed":
                session.running = ""
        elif event == "start":
            session.running = record["id"]
            counts = session.run
        elif event == "finish":
            session.running = ""
        elif event == "doubt":
            counts.add(record["outcome"], record, _doubted(record))
        elif event == "warning":
            counts.add("warnings", record, "" if record["id"] else _warned(record))
        else:
            _read_collection(session, record)
    session.collection.all["collected"] = len(session.collected)
    for phases in tests.values():
        _count_test(session, phases)
    session.cases = [_case(test, phases) for test, phases in tests.items()][:MAX_CASES]
    if result.of("selected"):
        added = list((Counter(session.selected) - Counter(session.collected)).elements())
        for test in added:
            session.collection.add("suspect", {"id": test, "message": "run, but never collected"})
        dropped = list((Counter(session.collected) - Counter(session.selected)).elements())
        for test in dropped:
            session.collection.add("deselected", {"id": test, "message": "collected, but dropped"})
    return session


def _warned(record: Record) -> str:
    """Name a warning of no test: of what is imported and configured."""
    return f"{record['path']}:{record['line']}: {record['category']}: {record['message']}"


def _doubted(record: Record) -> str:
    """Name a doubt the way that the probe tells it once."""
    message = f": {record['message']}" if record["outcome"] == "suspect" else ""
    return f"{record['path']}:{record['line']}{message}"


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
            # Without a suffix it is a folder, or the session itself.
            of_a_file = PurePosixPath(record["id"].split("::")[0]).suffix
            session.collection.add(outcome, record, "" if of_a_file else record["id"] or "session")


def _count_test(session: Session, phases: list[Record]) -> None:
    """Count one test the way that pytest's own summary does, but a second run as a rerun."""
    calls = 0
    for record in phases:
        outcome = _outcome(record)
        if outcome == "":
            continue
        subtest = record.get("subtest")
        if outcome in {"passed", "xpassed"} and not subtest:
            calls += 1
            if calls > 1:
                outcome = "rerun"
        if subtest and outcome == "passed":
            continue
        session.run.add(outcome, _unmasked(record))
        if outcome == "passed":
            session.passed.append(record["id"])


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
    if record["event"] == "passed":
        return "passed"
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


def _failure(outcome: str, record: Record, *, detailed: bool) -> Failure:
    return Failure(
        id=record["id"],
        outcome=outcome,
        message=record.get("message", ""),
        details=record.get("details", "") if detailed else "",
        path=record.get("path", ""),
        line=record.get("line"),
    )


def keep_timings(timings: Timings, result: ProbeResult) -> None:
    """Add up how long files took, and keep each test's worst outcome of the session."""
    for record in result.records:
        if record["event"] in _OF_A_TEST:
            test, outcome = record["id"], _outcome(record)
            known, seconds = timings.tests.get(test, ("", 0.0))
            worst = outcome if outcome and known in {"", "passed"} else known
            timings.tests[test] = (worst, seconds + record["seconds"])
        elif not record["event"].startswith("collect-") or not record["id"].endswith(".py"):
            continue
        file = record["id"].split("::")[0]
        timings.files[file] = timings.files.get(file, 0.0) + record["seconds"]


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
    if result.status == INTERRUPTED and not session.counts["errors"]:
        return "the test session was interrupted from inside"
    red = session.counts["failed"] + session.counts["errors"]
    if not collect_only and not red:
        # The teardown is what every test ends with, whatever its outcome.
        phases = result.of("phase")
        ended = {record["id"] for record in phases if record["when"] == "teardown"}
        ended.update(record["id"] for record in result.of("passed"))
        unended = [test for test in session.selected if test not in ended]
        if unended:
            return (
                f"{len(unended)} of {len(session.selected)} selected tests never reported "
                f"an outcome, the first: {unended[0]}"
            )
    if result.status not in {_OK, _NO_TESTS} and not red:
        return f"pytest ended with exit status {result.status}, but no failure was reported"
    return ""
