"""``command``: a program exits with the expected code."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from tiergate import processes
from tiergate.checkers import Context, Observation
from tiergate.errors import NotEvaluatedError
from tiergate.expectation import Outcomes

Argument = Annotated[str, Meta(min_length=1)]


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``command``."""

    run: Annotated[
        list[Argument],
        Meta(
            min_length=1,
            description="Program and arguments, without a shell; `{python}` is the candidate's.",
            examples=[["{python}", "-m", "mypy", "src"]],
        ),
    ]


def outcomes(parameters: With) -> Outcomes:
    """The exit code alone; zero unless expected otherwise."""
    del parameters
    return Outcomes(strict=("exit-code",), default={"exit-code": 0})


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Refuse a shell line in the place of arguments, and options that swallow a failure."""
    program = parameters.run[0]
    if len(parameters.run) == 1 and " " in program:
        yield ("run", 0), f"no shell reads this; write {program.split()!r} as a list"
    for index, argument in enumerate(parameters.run):
        if argument in {"||", "&&", "|", ";", ">", "2>&1"}:
            yield ("run", index), f"{argument!r} means nothing without a shell; use uses: script"


def observe(parameters: With, context: Context) -> Observation:
    """Run the program at the repository's root, in the candidate's environment."""
    candidate = context.candidate
    try:
        done = processes.run(
            expand(parameters.run, context),
            cwd=candidate.repository.root,
            env=candidate.environment(context.device),
            timeout=context.criterion.timeout,
            cancellation=candidate.cancellation,
            merge_stderr=True,
        )
    except NotEvaluatedError as error:
        return Observation(error=str(error))
    output = done.stdout.decode(errors="replace")
    if done.cancelled:
        return Observation(error=f"cancelled: {candidate.cancellation.reason}", output=output)
    if done.timed_out:
        return Observation(error=f"timed out after {context.criterion.timeout:g} s", output=output)
    if done.returncode < 0:
        return Observation(error=f"ended by {done.ending}", output=output)
    said = f"exit code {done.returncode}"
    return Observation(counts={"exit-code": done.returncode}, summary=said, output=output)


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the command itself."""
    return [shlex.join(expand(parameters.run, context))]


def expand(arguments: list[str], context: Context) -> list[str]:
    """Put the candidate's interpreter in the place of ``{python}``."""
    return [argument.replace("{python}", str(context.candidate.python)) for argument in arguments]
