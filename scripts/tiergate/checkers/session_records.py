"""Records of a pytest session → counts and evidence; shared by ``pytest`` and ``collection``."""

from __future__ import annotations

import fnmatch
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os.path import normpath
from pathlib import PurePosixPath

import msgspec

from tiergate.candidate import ProbeResult, Record
from tiergate.checkers import Context, Observation, Timings
from tiergate.fields import Device
from tiergate.spec import Criterion
from tiergate.verdict import Case, Failure, Part, Tally

MAX_FAILURES = 200
MAX_CASES = 50_000
# More failures than this are no flake; and a command line takes only so many ids.
MOST_RETRIED = 100
TEST_FILES = ("test_*.py", "*_test.py")
"""Pytest's own names of test files, which count whatever the configuration says."""
_DETAILED_FAILURES = 50
_SILENT = frozenset({"passed", "warnings"})

# A phase of a test, or all of a test that just passed: setup, call and teardown, in this order.
_OF_A_TEST = frozenset({"phase", "passed"})

_OK, _INTERRUPTED, _INTERNAL_ERROR, _USAGE_ERROR, _NO_TESTS = 0, 2, 3, 4, 5


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


def run_session(
    context: Context, paths: list[str], arguments: Iterable[str]
) -> tuple[ProbeResult, Session]:
    """Run pytest on ``paths`` in the candidate's interpreter; only the context's share of them."""
    root = context.candidate.repository.root
    values: dict[str, object] = {}
    if share := context.share:
        # A folder is walked as ever, and the files of others are left out; pytest takes a file
        # that it is given whatever any hook says.
        paths = [p for p in paths if "::" in p or (root / p).is_dir() or share.owns(normpath(p))]
        chosen = {"mine": sorted(share.mine), "others": sorted(share.others), "rest": share.rest}
        values["share"] = chosen

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
            ],
            **values,
        },
        on_record,
    )
    session = read_session(result)
    doubt_foreign(session, paths)
    if context.timings is not None:
        _keep_timings(context.timings, result)
    return result, session


def _keep_timings(timings: Timings, result: ProbeResult) -> None:
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


def doubt_foreign(session: Session, paths: Iterable[str]) -> None:
    """Doubt the tests that were collected from elsewhere than ``paths``: they must not count."""
    wanted = [posixpath.normpath(path) for path in paths]
    for test in session.collected:
        if not any(_is_at(test, path) for path in wanted):
            message = f"collected from outside of {', '.join(wanted)}"
            session.collection.add("suspect", {"id": test, "message": message})


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


def part(result: ProbeResult, session: Session, context: Context, *, collect_only: bool) -> Part:
    """Return what a session observed of the context's share of the criterion."""
    error = problem_of(result, session, collect_only=collect_only) or _strange(session, context)
    notes = []
    if result.left_behind:
        notes.append(f"{result.left_behind} processes were left running and have been ended")
    if not error:
        for name in _ignored(session, context):
            record = {"id": name, "message": "a test file that was never collected"}
            session.collection.add("ignored", record)
    return Part(
        criterion=context.criterion.id,
        device=context.device,
        error=error,
        collection=session.collection.tally(),
        run=session.run.tally(),
        stopped=result.status == _INTERRUPTED,
        collected=session.bodies,
        passed=session.passed,
        cases=session.cases,
        files=sorted(session.seen_paths),
        allocations=sum(record["allocations"] for record in result.of("cuda")),
        notes=notes,
        output=result.output,
        running=session.running,
    )


def _strange(session: Session, context: Context) -> str:
    """Say that a session reached what is not the repository's, or not this shard's."""
    repository = context.candidate.repository
    if outside := [path for path in session.seen_paths if repository.leaves(path)]:
        return f"a symbolic link leads out of the repository: {min(outside)}"
    share = context.share
    if share is not None:
        strange = [test for test in session.bodies if not share.owns(test.split("::")[0])]
        if strange:
            return f"{strange[0]} was collected, although its file is another shard's"
    return ""


def _ignored(session: Session, context: Context) -> list[str]:
    """Return the test files of the repository, or of the share, that pytest never visited."""
    paths = msgspec.to_builtins(context.criterion.parameters)["paths"]
    patterns = [*TEST_FILES, *session.file_patterns]
    share = context.share
    return [
        name
        for name in context.candidate.repository.files_under(paths)
        if name not in session.seen_paths
        and is_test_file(name, patterns)
        and (share is None or share.owns(name))
    ]


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


def is_test_file(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a file's name, or its path, matches one of the patterns."""
    path = PurePosixPath(name)
    return path.suffix == ".py" and any(
        fnmatch.fnmatch(name if "/" in pattern else path.name, pattern) for pattern in patterns
    )


def absent(context: Context, paths: list[str]) -> Part | None:
    """Return the part for paths that are missing or lead out of the repository."""
    repository = context.candidate.repository
    files = [path.split("::")[0] for path in paths]
    none = Part(criterion=context.criterion.id, device=context.device)
    if escaping := [path for path in files if repository.leaves(path)]:
        error = f"a symbolic link leads out of the repository: {escaping[0]}"
        return msgspec.structs.replace(none, error=error)
    if twins := repository.twins(files):
        return msgspec.structs.replace(none, error=twins[0])
    missing = [path for path in files if not (repository.root / path).exists()]
    if not missing:
        return None
    failures = [Failure(id=path, outcome="errors", message="does not exist") for path in missing]
    found = Tally(counts={"errors": len(missing)}, failures=failures)
    return msgspec.structs.replace(none, collection=found)
