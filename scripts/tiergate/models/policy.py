"""What a policy says of the pickles in a model file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from tiergate.models import allowed, files, pickles
from tiergate.models.archives import Found

Policy = Literal["none", "weights-only", "scan"]


@dataclass(frozen=True)
class Breach:
    """Something in a file that the policy does not take."""

    rule: str
    where: str
    message: str


@dataclass(frozen=True)
class Examined:
    """What a file is, and what in it the policy does not take."""

    model: bool
    """Whether it is a model, by its name or by its content."""
    breaches: tuple[Breach, ...] = field(default_factory=tuple)
    absent: bool = False
    """Whether it, or something in it, only points to a content that is not here."""


def examine(path: Path, name: str, policy: Policy) -> Examined:
    """Look at a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return examine_stream(stream, name, policy)


def examine_stream(stream: IO[bytes], name: str, policy: Policy) -> Examined:
    """Look at an open file, which can be read in any order."""
    found = list(files.examine(stream, name))
    judged = (_judge(one, policy) for one in found)
    return Examined(
        model=bool(found) or files.is_model(name),
        breaches=tuple(breach for breach in judged if breach is not None),
        absent=any(one.kind == "absent" for one in found),
    )


def _judge(found: Found, policy: Policy) -> Breach | None:
    if found.kind == "absent":
        return None
    if found.kind == "unreadable":
        message = f"{found.message}; what cannot be read cannot be trusted: write the tensors as "
        return Breach(
            "unreadable-model-file", found.where, f"{message}safetensors, or leave the file out"
        )
    if found.kind == "program":
        message = f"{found.message}; keep tensors in safetensors files"
        return Breach("not-weights-only", found.where, message)
    assert found.stream is not None  # it is a pickle
    seen = found.stream
    if policy == "none":
        message = "a pickle: reading it can run code; keep tensors in safetensors files"
        return Breach("pickle", found.where, message)
    if seen.loads_weights_only:
        return None
    bad, harmless = pickles.dangerous(seen.imports)
    if bad:
        message = f"loading it without weights_only=True runs {pickles.shown(bad)}"
        return Breach("dangerous-import", found.where, message)
    unknown = seen.imports - harmless
    if policy == "scan":
        if not unknown:
            return None
        message = f"loading it runs {pickles.shown(unknown)}, which nobody knows to be harmless"
        return Breach("unknown-import", found.where, message)
    refused = seen.imports - allowed.GLOBALS
    what = f"imports {pickles.shown(refused)}" if refused else "uses opcodes that it refuses"
    return Breach(
        "not-weights-only",
        found.where,
        f"torch.load(weights_only=True) would not take it: it {what}; save a state_dict of "
        "tensors, or safetensors",
    )
