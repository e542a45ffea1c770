"""``imports``: a module imports, from this repository, and has these names."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tiergate.checkers import Context, Observation
from tiergate.expectation import Outcomes
from tiergate.reproduce import python_command
from tiergate.verdict import Failure

_DOTTED = r"^[^\W\d]\w*(\.[^\W\d]\w*)*$"


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``imports``."""

    module: Annotated[
        str,
        Meta(pattern=_DOTTED, description="The module's dotted name.", examples=["shop.prices"]),
    ]
    names: Annotated[
        list[Annotated[str, Meta(pattern=r"^[^\W\d]\w*$")]],
        Meta(
            description="What `from module import …` must find.", examples=[["total", "discount"]]
        ),
    ] = []
    origin: Annotated[
        Literal["repository", "anywhere"],
        Meta(
            description="Whether the module must be a file of the repository.",
            examples=["anywhere"],
        ),
    ] = "repository"


def outcomes(parameters: With) -> Outcomes:
    """Names found and missing; an import that fails, or finds another copy, is an error."""
    del parameters
    return Outcomes(strict=("missing", "errors"), free=("found",), default={"missing": 0})


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Refuse a name that is listed twice."""
    for index, name in enumerate(parameters.names):
        if name in parameters.names[:index]:
            yield ("names", index), f"{name!r} is listed twice"


def observe(parameters: With, context: Context) -> Observation:
    """Import the module in the candidate's interpreter and look for each name."""
    result = context.candidate.run_job(
        "imports",
        context.device,
        context.criterion.timeout,
        {"module": parameters.module, "names": parameters.names},
    )
    if result.problem:
        return Observation(error=f"the import {result.problem}", output=result.output)
    if failed := result.of("import-failed"):
        failure = Failure(
            id=parameters.module,
            outcome="errors",
            message=failed[0]["error"],
            details=failed[0]["traceback"],
        )
        counts = {"errors": 1, "missing": len(parameters.names), "found": 0}
        return Observation(counts=counts, failures=(failure,), output=result.output)
    failures = [
        Failure(id=f"{parameters.module}.{record['name']}", outcome="missing", message=problem)
        for record in result.of("name")
        if (problem := record["problem"])
    ]
    answered = {record["name"] for record in result.of("name")}
    if answered != set(parameters.names):
        return Observation(error="the probe did not answer for every name", output=result.output)
    missing = len(failures)
    imported = result.of("imported")[0]
    wrong_origin = _wrong_origin(parameters, imported["origin"], context)
    if not imported["genuine"]:
        wrong_origin = f"{parameters.module} put something else in its place in sys.modules"
    if wrong_origin:
        failures.append(Failure(id=parameters.module, outcome="errors", message=wrong_origin))
    return Observation(
        counts={
            "found": len(parameters.names) - missing,
            "missing": missing,
            "errors": 1 if wrong_origin else 0,
        },
        summary="" if parameters.names else "imported",
        failures=tuple(failures),
        output=result.output,
    )


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain import."""
    names = ", ".join(parameters.names)
    code = f"from {parameters.module} import {names}" if names else f"import {parameters.module}"
    return [python_command(context, "-c", code)]


def _wrong_origin(parameters: With, origin: str | None, context: Context) -> str:
    if parameters.origin == "anywhere":
        return ""
    if origin is None:
        return (
            f"{parameters.module} is a folder without __init__.py, not a module of the repository"
        )
    repository = context.candidate.repository
    # Not merely below its folder: an environment with an installed copy may lie there too.
    if Path(origin).is_absolute():
        relative = os.path.relpath(os.path.realpath(origin), repository.root)
        if relative in repository.files:
            return ""
    return f"{parameters.module} was imported from {origin}, which is no file of the repository"
