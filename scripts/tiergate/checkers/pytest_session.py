"""``pytest``: test files give exactly these outcomes, or collect exactly so many tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from tiergate.checkers import Context, Observation, session_records
from tiergate.expectation import Outcomes
from tiergate.fields import RepositoryPath
from tiergate.reproduce import python_command

_NOT_PASSED = ("failed", "errors", "skipped", "xfailed", "xpassed", "deselected", "rerun")

# They would change what the criterion means, or who counts.
_REFUSED_ARGUMENTS = ("--collect-only", "--co", "-p", "-o", "--override-ini", "--rootdir", "-c")


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Parameters of ``pytest``."""

    paths: Annotated[
        list[RepositoryPath], Meta(min_length=1, description="Test files, folders or node ids.")
    ]
    collect_only: Annotated[
        bool, Meta(description="Collect the tests and count them, without running them.")
    ] = False
    args: Annotated[
        list[str], Meta(description="Further pytest arguments, such as --import-mode=importlib.")
    ] = []


def outcomes(parameters: With) -> Outcomes:
    """Pytest's own outcomes; tests that were collected but dropped count as deselected."""
    if parameters.collect_only:
        return Outcomes(
            strict=("errors", "skipped", "deselected"),
            free=("collected", "warnings"),
            required=("collected",),
        )
    return Outcomes(
        strict=_NOT_PASSED, free=("passed", "collected", "warnings"), required=("passed",)
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
        elif name in _REFUSED_ARGUMENTS:
            yield ("args", index), f"{name!r} would change what is judged; it is not allowed here"


def observe(parameters: With, context: Context) -> Observation:
    """Run, or collect, the tests in the candidate's interpreter."""
    if (missing := session_records.absent(context, parameters.paths)) is not None:
        return missing
    arguments = [*parameters.args, "--collect-only"] if parameters.collect_only else parameters.args
    result, session = session_records.run_session(
        context, parameters.paths, ["--tb=short", *arguments]
    )
    return session_records.observation(
        result, session, context, collect_only=parameters.collect_only
    )


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain pytest command."""
    collect = ["--collect-only", "-q"] if parameters.collect_only else []
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", *collect]
    return [python_command(context, *arguments, *parameters.args, *parameters.paths)]
