"""``pytest``: test files give exactly these outcomes, or collect exactly so many tests."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from tiergate.checkers import Context, Observation
from tiergate.expectation import Outcomes
from tiergate.fields import Device, RepositoryPath
from tiergate.reproduce import python_command
from tiergate.sessions import assembling, records, running
from tiergate.spec import Criterion
from tiergate.verdict import Part

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
    seen = part(parameters, context)
    return assemble(parameters, [seen], context.criterion, context.device)


def part(parameters: With, context: Context) -> Part:
    """Run, or collect, the share's tests; what failed is run again where the criterion says so."""
    if (missing := running.absent(context, parameters.paths)) is not None:
        return missing
    arguments = [*parameters.args, "--collect-only"] if parameters.collect_only else parameters.args
    result, session = running.run_session(
        context, parameters.paths, ["--tb=short", *arguments], plain=parameters.collect_only
    )
    seen = running.part(result, session, context, collect_only=parameters.collect_only)
    if context.criterion.retries and not parameters.collect_only and not seen.error:
        return msgspec.structs.replace(seen, flaky=_retry(seen, parameters, context))
    return seen


def assemble(
    parameters: With, parts: Sequence[Part], criterion: Criterion, device: Device
) -> Observation:
    """Put the parts together."""
    collect_only = parameters.collect_only
    return assembling.assemble(parts, criterion, device, collect_only=collect_only)


def _retry(seen: Part, parameters: With, context: Context) -> dict[str, str]:
    """Run the failed tests again, by themselves; return those that pass now, and when."""
    failed = assembling.retried(seen.run.failures, seen.run.counts)
    alone = msgspec.structs.replace(context, timings=None)
    flaky: dict[str, str] = {}
    for attempt in range(1, context.criterion.retries + 1):
        left = [test for test in failed if test not in flaky]
        if not left:
            break
        result, session = running.run_session(alone, left, ["--tb=short", *parameters.args])
        if not records.problem_of(result, session, collect_only=False):
            flaky |= {
                test: f"passed when it was run again, attempt {attempt + 1}"
                for test in session.passed
                if test in left
            }
    if context.timings is not None:
        for test in flaky:
            context.timings.tests[test] = ("flaky", context.timings.tests[test][1])
    return flaky


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain pytest command."""
    collect = ["--collect-only", "-q"] if parameters.collect_only else []
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", *collect]
    return [python_command(context, *arguments, *parameters.args, *parameters.paths)]
