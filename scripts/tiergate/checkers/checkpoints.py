"""``checkpoints``: model files in the repository hold nothing that runs code when it is loaded.

Files are told by their content, whatever their name; pickles are read opcode by opcode and never
unpickled. The allow-list, what ``torch.load(weights_only=True)`` takes, comes before any list of
what is dangerous.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from tiergate.checkers import Context, Observation
from tiergate.expectation import Outcomes
from tiergate.fields import RepositoryPath
from tiergate.verdict import Finding

if TYPE_CHECKING:
    from tiergate.repository import Repository

_SHOWN = 20


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``checkpoints``."""

    paths: Annotated[
        list[RepositoryPath],
        Meta(min_length=1, description="Files or folders to examine.", examples=[["."]]),
    ] = msgspec.field(default_factory=lambda: ["."])
    policy: Annotated[
        Literal["none", "weights-only", "scan"],
        Meta(
            description="`none`: no pickle at all; `weights-only`: only what "
            "torch.load(weights_only=True) takes; `scan`: also imports that are known to be "
            "harmless.",
            examples=["none"],
        ),
    ] = "weights-only"


def outcomes(parameters: With) -> Outcomes:
    """Findings; how many files with pickles or tensors were examined may be expected as well."""
    del parameters
    return Outcomes(strict=("findings",), free=("examined",), default={"findings": 0})


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Nothing beyond the types."""
    del parameters
    return ()


def observe(parameters: With, context: Context) -> Observation:
    """Look at the content of every file below the paths."""
    from tiergate.models import canary, policy  # noqa: PLC0415 - only where files are examined

    if overlooked := canary.dead(parameters.policy):
        return Observation(error=f"the examination is not alive: it overlooks {overlooked}")
    repository = context.candidate.repository
    wrong = [f"{p}: does not exist" for p in parameters.paths if not (repository.root / p).exists()]
    wrong += repository.withheld(parameters.paths)
    findings: list[Finding] = []
    examined = 0
    for name in repository.files_under(parameters.paths):
        if context.candidate.cancellation.requested:
            return Observation(error=f"cancelled: {context.candidate.cancellation.reason}")
        if not _is_text(name):
            wrong.append(f"{name!a}: its name is no UTF-8, and no report can hold it: rename it")
            continue
        if problem := _no_file(repository, name):
            wrong.append(f"{name}: {problem}")
            continue
        try:
            seen = policy.examine(repository.root / name, name, parameters.policy)
        except OSError as error:
            wrong.append(f"{name}: cannot be read: {error.strerror or error}")
            continue
        if seen.absent:
            wrong.append(f"{name}: a Git LFS pointer, its content is not here: run `git lfs pull`")
        examined += seen.model
        findings += [Finding(b.rule, name, 1, 1, b.message, b.where) for b in seen.breaches]
    more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return Observation(
        error=f"not examined: {'; '.join(wrong[:_SHOWN])}{more}" if wrong else "",
        counts={"findings": len(findings), "examined": examined},
        findings=tuple(findings),
        notes=(*wrong, f"{examined} model files examined"),
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_file(repository: Repository, name: str) -> str:
    """Say why a path is nothing to read, or return an empty string."""
    if repository.leaves(name):
        return "a symbolic link that leaves the repository"
    try:
        mode = (repository.root / name).stat().st_mode
    except OSError:
        return "a symbolic link to nothing"
    if stat.S_ISDIR(mode):
        return "a nested repository, a submodule or a linked folder"
    return "" if stat.S_ISREG(mode) else "no ordinary file"


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the scanner's own command; it knows no allow-list."""
    del context
    return [f"picklescan --path {shlex.quote(path)}" for path in parameters.paths]
