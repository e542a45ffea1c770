"""What a policy says of the pickles in a model file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiergate.models import allowed, files, pickles

Policy = Literal["none", "weights-only", "scan"]


@dataclass(frozen=True)
class Breach:
    """Something in a file that the policy does not take."""

    rule: str
    where: str
    message: str


def examine(path: Path, name: str, policy: Policy) -> tuple[bool, list[Breach]]:
    """Return whether a file is a model, and what in it the policy does not take.

    Raises:
        OSError: the file cannot be read.
    """
    breaches = []
    matters = files.is_model(name)
    with path.open("rb") as stream:
        for found in files.examine(stream, name):
            matters = True
            breach = _judge(found, policy)
            if breach is not None:
                breaches.append(breach)
    return matters, breaches


def _judge(found: files.Found, policy: Policy) -> Breach | None:
    if found.stream is None or found.data is None:
        return Breach(
            "unreadable-model-file",
            found.where,
            f"{found.message}; what cannot be read cannot be trusted: write the tensors as "
            "safetensors, or leave the file out",
        )
    seen = found.stream
    if policy == "none":
        message = "a pickle: reading it can run code; keep tensors in safetensors files"
        return Breach("pickle", found.where, message)
    if all(pickle.loads_weights_only for pickle in seen.pickles):
        return None
    bad, harmless = pickles.dangerous(found.data)
    found.data.seek(0)
    if bad:
        message = f"loading it without weights_only=True runs {pickles.shown(bad)}"
        return Breach("dangerous-import", found.where, message)
    unknown = seen.imports - harmless - allowed.GLOBALS
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
