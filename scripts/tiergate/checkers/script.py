"""``script``: any executable; the criterion as JSON on its stdin, a verdict as JSON on its stdout.

Input: ``{"criterion", "name", "device", "repository", "python", "parameters"}``.
Output: ``{"status": "pass" | "fail" | "error", "summary": text, "observed": {outcome: count},
"failures": [...], "findings": [...], "notes": [...]}``; all but ``status`` may be left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tiergate import processes
from tiergate.checkers import Context, Observation
from tiergate.checkers.command import Argument, expand
from tiergate.errors import NotEvaluatedError
from tiergate.expectation import Outcomes
from tiergate.verdict import Failure, Finding

_OUTPUT_LIMIT = 4 * 1024 * 1024


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``script``."""

    run: Annotated[
        list[Argument],
        Meta(
            min_length=1,
            description="Program and arguments, without a shell; `{python}` is the candidate's.",
            examples=[["./tools/check_licences.py"]],
        ),
    ]
    parameters: Annotated[
        dict[str, Any],
        Meta(description="Given to the script as they are.", examples=[{"allowed": ["MIT"]}]),
    ] = {}


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a script writes."""

    status: Literal["pass", "fail", "error"]
    summary: str = ""
    observed: dict[str, Annotated[int, Meta(ge=0)]] = {}
    failures: list[Failure] = []
    findings: list[Finding] = []
    notes: list[str] = []


def outcomes(parameters: With) -> Outcomes:
    """Whatever the script observes; ``expect:`` is compared on top of the script's own word."""
    del parameters
    return Outcomes(open=True)


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Nothing beyond the types."""
    del parameters
    return ()


def observe(parameters: With, context: Context) -> Observation:
    """Run the script at the repository's root, in the candidate's environment."""
    candidate = context.candidate
    try:
        done = processes.run(
            expand(parameters.run, context),
            cwd=candidate.repository.root,
            env=candidate.environment(context.device),
            timeout=context.criterion.timeout,
            cancellation=candidate.cancellation,
            stdin=question(parameters, context),
            output_limit=_OUTPUT_LIMIT,
        )
    except NotEvaluatedError as error:
        return Observation(error=str(error))
    shown = "\n".join(
        part.decode(errors="replace") for part in (done.stdout[:65_536], done.stderr) if part
    )
    problem = ""
    if done.cancelled:
        problem = f"cancelled: {candidate.cancellation.reason}"
    elif done.timed_out:
        problem = f"timed out after {context.criterion.timeout:g} s"
    elif done.returncode != 0:
        problem = f"the script ended with {done.ending}; a verdict counts only with exit code 0"
    if problem:
        return Observation(error=problem, output=shown)
    try:
        answer = msgspec.json.decode(done.stdout, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = done.stdout.decode(errors="replace")[:200]
        return Observation(
            error=f"the script's output is not a verdict: {error}; it wrote {text!r}", output=shown
        )
    if answer.status == "error":
        return Observation(
            error=answer.summary or "the script says that it could not evaluate", output=shown
        )
    return Observation(
        counts=answer.observed,
        claim=answer.status,
        summary=answer.summary,
        failures=tuple(answer.failures),
        findings=tuple(answer.findings),
        notes=tuple(answer.notes),
        output=done.stderr.decode(errors="replace"),
    )


def question(parameters: With, context: Context) -> bytes:
    """Return what the script reads on its standard input."""
    return msgspec.json.encode(
        {
            "criterion": context.criterion.id,
            "name": context.criterion.name,
            "device": context.device,
            "repository": str(context.candidate.repository.root),
            "python": str(context.candidate.python),
            "parameters": parameters.parameters,
        }
    )


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return a shell line that asks the script the same question."""
    asked = question(parameters, context).decode()
    # Not echo: the one of many a shell reads backslashes.
    return [f"printf %s {shlex.quote(asked)} | {shlex.join(expand(parameters.run, context))}"]
