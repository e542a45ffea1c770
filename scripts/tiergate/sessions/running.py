"""Runs a session, or a shard's share of it, and says what it observed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container, Iterable
from os.path import normpath
from pathlib import PurePosixPath

import msgspec

from tiergate.candidate import ProbeResult, Record
from tiergate.checkers import Context
from tiergate.sessions import records
from tiergate.sessions.files import TEST_FILES, is_test_file
from tiergate.sessions.records import Session
from tiergate.verdict import Failure, Part, Tally

_MANY_FILES = 10
"""So many test files are worth a process that rewrites them."""

_SEPARATOR = re.compile(r"(?=/|::|\[)")
"""What may follow a path or an id in the id of a test below it."""


def run_session(
    context: Context, paths: list[str], arguments: Iterable[str], *, plain: bool = False
) -> tuple[ProbeResult, Session]:
    """Run pytest on ``paths`` in the candidate's interpreter; only the context's share of them.

    Args:
        context: the criterion, and where it is evaluated.
        paths: files, folders and node ids.
        arguments: further ones of pytest.
        plain: whether no test is run and no body of one compared with that of one that was: then
            test files are compiled as they stand, which is quicker than to rewrite assertions.
    """
    root = context.candidate.repository.root
    values: dict[str, object] = {"plain": plain}
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
        [] if plain else _rewritten(context, paths),
    )
    session = records.read_session(result)
    doubt_foreign(session, paths)
    if context.timings is not None:
        records.keep_timings(context.timings, result)
    return result, session


def _rewritten(context: Context, paths: list[str]) -> list[str]:
    """Return what pytest will rewrite of ``paths``, in its order, where that is a lot."""
    files = [
        name
        for name in context.candidate.repository.files_under(paths)
        if is_test_file(name, TEST_FILES) and (context.share is None or context.share.owns(name))
    ]
    return sorted(files, key=PurePosixPath) if len(files) >= _MANY_FILES else []


def doubt_foreign(session: Session, paths: Iterable[str]) -> None:
    """Doubt the tests that were collected from elsewhere than ``paths``: they must not count."""
    wanted = dict.fromkeys(posixpath.normpath(path) for path in paths)
    for test in session.collected:
        if not _is_at(test, wanted):
            message = f"collected from outside of {', '.join(wanted)}"
            session.collection.add("suspect", {"id": test, "message": message})


def _is_at(test: str, wanted: Container[str]) -> bool:
    """Tell whether a test's id is, or lies at or below, one of the paths and ids."""
    return (
        test in wanted
        or "." in wanted
        or any(test[: separator.start()] in wanted for separator in _SEPARATOR.finditer(test))
    )


def part(result: ProbeResult, session: Session, context: Context, *, collect_only: bool) -> Part:
    """Return what a session observed of the context's share of the criterion."""
    error = records.problem_of(result, session, collect_only=collect_only) or _strange(
        session, context
    )
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
        stopped=result.status == records.INTERRUPTED,
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


def absent(context: Context, paths: list[str]) -> Part | None:
    """Return the part for paths that are missing or lead out of the repository."""
    repository = context.candidate.repository
    files = [path.split("::")[0] for path in paths]
    none = Part(criterion=context.criterion.id, device=context.device)
    if escaping := [path for path in files if repository.leaves(path)]:
        error = f"a symbolic link leads out of the repository: {escaping[0]}"
        return msgspec.structs.replace(none, error=error)
    if unsure := [*repository.twins(files), *repository.withheld(files)]:
        return msgspec.structs.replace(none, error=unsure[0])
    missing = [path for path in files if not (repository.root / path).exists()]
    if not missing:
        return None
    failures = [Failure(id=path, outcome="errors", message="does not exist") for path in missing]
    found = Tally(counts={"errors": len(missing)}, failures=failures)
    return msgspec.structs.replace(none, collection=found)
