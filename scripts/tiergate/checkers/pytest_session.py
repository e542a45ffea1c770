"""``pytest``: test files give exactly these outcomes, or collect exactly so many tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

from tiergate.checkers import Context, Observation, session_records
from tiergate.expectation import Outcomes
from tiergate.fields import RepositoryPath
from tiergate.reproduce import python_command

DOUBTS = ("suspect", "overrides", "shadowed")
"""What casts doubt on the other outcomes: tests that do not test, hooks that decide, names that
are defined twice."""

_NOT_PASSED = (
    "failed",
    "errors",
    "skipped",
    "xfailed",
    "xpassed",
    "deselected",
    "ignored",
    "rerun",
    "flaky",
    "vanished",
    *DOUBTS,
)
# More failures than this are no flake; and a command line takes only so many ids.
_MOST_RETRIED = 100

# They would change what the criterion means, or who counts.
_REFUSED_ARGUMENTS = (
    "--co",
    "--collect-only",
    "--collectonly",
    "--config-file",
    "--override-ini",
    "--rootdir",
)
_REFUSED_SHORT = ("-c", "-o", "-p")  # also with the value in the same word, as in -pno:mark


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Parameters of ``pytest``."""

    paths: Annotated[
        list[RepositoryPath],
        Meta(
            min_length=1,
            description="Test files, folders or node ids.",
            examples=[["tests/test_prices.py"]],
        ),
    ]
    collect_only: Annotated[
        bool,
        Meta(
            description="Collect the tests and count them, without running them.", examples=[True]
        ),
    ] = False
    args: Annotated[
        list[str],
        Meta(
            description="Further pytest arguments, such as --import-mode=importlib.",
            examples=[["--import-mode=importlib"]],
        ),
    ] = []


def outcomes(parameters: With) -> Outcomes:
    """Pytest's own outcomes; tests that were collected but dropped count as deselected."""
    if parameters.collect_only:
        return Outcomes(
            strict=("errors", "skipped", "deselected", "ignored", "vanished", *DOUBTS),
            free=("collected", "warnings"),
            required=("collected",),
            by_id=("collected",),
        )
    return Outcomes(
        strict=_NOT_PASSED,
        free=("passed", "collected", "warnings"),
        required=("passed",),
        by_id=("passed", "collected"),
    )


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Refuse arguments that have a place of their own in the spec, or would blind the judge."""
    return refuse_arguments(parameters.args)


def refuse_arguments(arguments: list[str]) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Yield a problem for each argument that is not allowed in ``args:``."""
    for index, argument in enumerate(arguments):
        name = argument.split("=")[0]
        if not argument.startswith("-"):
            yield ("args", index), f"{argument!r} is a path; put it under 'paths'"
        elif name in _REFUSED_ARGUMENTS or argument.startswith(_REFUSED_SHORT):
            yield ("args", index), f"{name!r} would change what is judged; it is not allowed here"


def observe(parameters: With, context: Context) -> Observation:
    """Run, or collect, the tests in the candidate's interpreter."""
    if (missing := session_records.absent(context, parameters.paths)) is not None:
        return missing
    arguments = [*parameters.args, "--collect-only"] if parameters.collect_only else parameters.args
    result, session = session_records.run_session(
        context, parameters.paths, ["--tb=short", *arguments]
    )
    seen = session_records.observation(
        result, session, context, collect_only=parameters.collect_only
    )
    if not seen.error:
        seen = session_records.with_ignored(seen, session, context)
    if context.criterion.retries and not parameters.collect_only and not seen.error:
        return _retry(seen, parameters, context)
    return seen


def _retry(seen: Observation, parameters: With, context: Context) -> Observation:
    """Run the failed tests again, by themselves; those that pass now are flaky, and said so."""
    failed = [failure for failure in seen.failures if failure.outcome == "failed"]
    if not failed or len(failed) > _MOST_RETRIED or len(failed) < seen.counts["failed"]:
        return seen
    flaky: dict[str, str] = {}
    for attempt in range(1, context.criterion.retries + 1):
        left = [failure.id for failure in failed if failure.id not in flaky]
        if not left:
            break
        result, session = session_records.run_session(
            context, left, ["--tb=short", *parameters.args]
        )
        if not session_records.problem_of(result, session, collect_only=False):
            flaky |= {
                test: f"passed when it was run again, attempt {attempt + 1}"
                for test in session.passed
                if test in left
            }
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
    return replace(
        seen,
        counts=counts,
        failures=tuple(failures),
        cases=tuple(
            msgspec.structs.replace(c, outcome="flaky") if c.id in flaky else c for c in seen.cases
        ),
        notes=(*seen.notes, *(f"flaky: {test}" for test in flaky)),
        tests={**seen.tests, "passed": passed},
    )


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain pytest command."""
    collect = ["--collect-only", "-q"] if parameters.collect_only else []
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", *collect]
    return [python_command(context, *arguments, *parameters.args, *parameters.paths)]
