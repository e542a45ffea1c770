"""Judges one call of ``torch.load``: safe, unsafe, or unproven, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from tiergate.loads.values import Constant, Loader, Partial, Values

Verdict = Literal["safe", "unsafe", "unproven"]
Policy = Literal["explicit", "floor-2.6"]

_PICKLE_MODULE = 2
"""Its place among the positional arguments of torch.load."""


class Arguments(msgspec.Struct, frozen=True):
    """What a call gives: how many positional arguments, and which keywords."""

    positional: int
    keywords: Mapping[str, Values]
    complete: bool
    """False where a ``**mapping`` of unknown content is given."""


class Judgement(msgspec.Struct, frozen=True):
    """What is to be said of a call."""

    verdict: Verdict
    message: str = ""


SAFE = Judgement("safe")


def judge(function: Loader | Partial, given: Arguments, policy: Policy) -> Judgement:
    """Judge a call: safe only if ``weights_only`` is provably the literal True there."""
    merged = dict(given.keywords)
    positional, complete, overridable = given.positional, given.complete, False
    if isinstance(function, Partial):
        overridable = not given.complete and "weights_only" not in given.keywords
        merged = {**dict(function.keywords), **merged}
        positional += function.positional
        complete = complete and function.complete
        function = function.function
    if function.never_safe:
        return Judgement("unsafe", "a private function of torch that unpickles without a check")
    if merged.get("pickle_module") == frozenset({Constant("NoneType", None)}):
        del merged["pickle_module"]  # as if it were left out
    if "pickle_module" in merged or positional > _PICKLE_MODULE:
        return Judgement("unsafe", "it is given a pickle_module of its own; leave it out")
    if "weights_only" not in merged:
        if not complete:
            return Judgement(
                "unproven",
                "weights_only may be in a **mapping whose content is not known here; write "
                "weights_only=True at the call itself",
            )
        if policy == "floor-2.6":
            return SAFE
        return Judgement("unsafe", "weights_only is not given; write weights_only=True at the call")
    values = merged["weights_only"]
    if values == frozenset({Constant("bool", True)}) and not overridable:
        return SAFE
    if overridable:
        return Judgement(
            "unproven",
            "a **mapping whose content is not known here may take weights_only=True back",
        )
    wrong = sorted(repr(v.value) for v in values if isinstance(v, Constant) and v.value is not True)
    if wrong:
        said = "is" if len(values) == 1 else "can be"
        return Judgement("unsafe", f"weights_only {said} {' or '.join(wrong)}; write True")
    return Judgement(
        "unproven",
        "weights_only is not provably True: its value comes from outside this place. The literal "
        "True at the call proves it, or a name of this file that is only ever bound to True",
    )
