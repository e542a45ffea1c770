"""``collection``: the whole suite collects without an error, and no test file is left out."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from tiergate.checkers import Context, Observation, pytest_session
from tiergate.expectation import Outcomes
from tiergate.fields import Device, RepositoryPath
from tiergate.reproduce import python_command
from tiergate.sessions import assembling, running
from tiergate.spec import Criterion
from tiergate.verdict import Part


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``collection``."""

    paths: Annotated[
        list[RepositoryPath],
        Meta(min_length=1, description="Where the suite is.", examples=[["tests"]]),
    ] = msgspec.field(default_factory=lambda: ["tests"])
    args: Annotated[
        list[str],
        Meta(
            description="Further pytest arguments, such as --import-mode=importlib.",
            examples=[["--import-mode=importlib"]],
        ),
    ] = []


def outcomes(parameters: With) -> Outcomes:
    """``ignored`` counts test files of the repository that the collection never visited."""
    del parameters
    return Outcomes(
        strict=(
            "errors",
            "skipped",
            "deselected",
            "ignored",
            "vanished",
            *pytest_session.DOUBTS,
        ),
        free=("collected", "warnings"),
        required=("collected",),
        by_id=("collected",),
    )


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Refuse arguments that would change what is judged."""
    return pytest_session.refuse_arguments(parameters.args)


def observe(parameters: With, context: Context) -> Observation:
    """Collect everything below the paths and compare it with the files that are there."""
    seen = part(parameters, context)
    return assemble(parameters, [seen], context.criterion, context.device)


def part(parameters: With, context: Context) -> Part:
    """Collect the share's files."""
    if (missing := running.absent(context, parameters.paths)) is not None:
        return missing
    result, session = running.run_session(
        context,
        parameters.paths,
        [*parameters.args, "--collect-only", "--continue-on-collection-errors"],
        plain=True,
    )
    return running.part(result, session, context, collect_only=True)


def assemble(
    parameters: With, parts: Sequence[Part], criterion: Criterion, device: Device
) -> Observation:
    """Put the parts together."""
    del parameters
    return assembling.assemble(parts, criterion, device, collect_only=True)


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain pytest command."""
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "--collect-only", "-q"]
    return [python_command(context, *arguments, *parameters.args, *parameters.paths)]
