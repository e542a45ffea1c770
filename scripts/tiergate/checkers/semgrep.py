"""``semgrep``: the tool's own rules find nothing, in files that were all really analysed.

Semgrep drops files silently in many ways. Here the repository's own inventory says which files
there are; every one of them must compile, must be scanned and must give no error, and a canary
with known findings proves in the same run that the rules are alive. Suppression comments and
ignore files count for nothing.

What semgrep cannot express of ``unsafe-torch-load``, such as the flow through names, is decided by
a resolver over Python's own syntax tree (``tiergate.loads``). It runs in the judge, where nothing
of the candidate's can change its answer; a file that the judge's Python cannot parse is an error.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from tiergate.checkers import Context, Observation
from tiergate.expectation import Outcomes
from tiergate.fields import RepositoryPath
from tiergate.reproduce import shown_path
from tiergate.scanning import rules
from tiergate.scanning.request import Request
from tiergate.suggest import did_you_mean

if TYPE_CHECKING:
    from tiergate.loads.scan import Place
    from tiergate.python_files import Inventory


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``semgrep``."""

    rules: Annotated[
        list[str],
        Meta(
            min_length=1,
            description="Rules of the tool; `unsafe-deserialization` stands for all that begin so.",
            examples=[["unsafe-torch-load"]],
        ),
    ]
    paths: Annotated[
        list[RepositoryPath],
        Meta(min_length=1, description="Files or folders to scan.", examples=[["src"]]),
    ]
    engine: Annotated[
        Literal["fast", "default"],
        Meta(
            description="`fast` starts semgrep's core directly, where the installation has one.",
            examples=["default"],
        ),
    ] = "fast"
    policy: Annotated[
        Literal["explicit", "floor-2.6"],
        Meta(
            description="`explicit`: weights_only=True at every torch.load; `floor-2.6`: it may be "
            "left out where the project declares torch>=2.6.",
            examples=["floor-2.6"],
        ),
    ] = "explicit"


def outcomes(parameters: With) -> Outcomes:
    """Findings; how many files were scanned may be expected as well."""
    del parameters
    return Outcomes(strict=("findings",), free=("scanned",), default={"findings": 0})


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Refuse rules that the tool does not have."""
    for index, rule in enumerate(parameters.rules):
        if not rules.chosen_rules([rule]):
            hint = did_you_mean(rule, rules.known_rules() | rules.GROUPS)
            yield ("rules", index), f"unknown rule {rule[:80]!r}{hint}"
    if parameters.policy != "explicit" and rules.RESOLVED not in parameters.rules:
        yield (
            ("policy",),
            f"{parameters.policy!r} speaks of the rule {rules.RESOLVED}, which is not here",
        )


def observe(parameters: With, context: Context) -> Observation:
    """Take the inventory, compile every file, scan, and compare what was scanned."""
    from tiergate.scanning.answers import Answers  # noqa: PLC0415 - only where it scans

    request = _request(parameters)
    answers = Answers(request, context.candidate)
    known = answers.get()
    if known is not None:
        return known
    from tiergate.scanning import observing  # noqa: PLC0415 - slow, and only where it is new

    return observing.observe(request, context, answers)


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain semgrep command, with the same rules and nothing ignored."""
    from tiergate.scanning import engines  # noqa: PLC0415 - only where it scans

    root = context.candidate.repository.root
    chosen = [rules.RULES / f"{rule}.yaml" for rule in rules.chosen_rules(parameters.rules)]
    configs = [f"--config={shown_path(rule, root)}" for rule in chosen]
    flags = ["--metrics=off", "--disable-version-check", "--disable-nosem", "--no-git-ignore"]
    flags += ["--x-ignore-semgrepignore-files", "--strict", "--error"]
    command = [
        shown_path(engines.default(), root),
        "scan",
        *configs,
        *flags,
        "--",
        *parameters.paths,
    ]
    return [shlex.join(command)]


def places(
    parameters: With, context: Context
) -> tuple[Inventory, dict[str, list[Place]], list[str]]:
    """Return what the resolver alone sees, by file, and what cannot be read."""
    from tiergate.scanning import observing  # noqa: PLC0415 - only where it scans

    return observing.places(_request(parameters), context.candidate.repository)


def _request(parameters: With) -> Request:
    chosen = rules.chosen_rules(parameters.rules)
    return Request(chosen, parameters.paths, parameters.engine, parameters.policy)
