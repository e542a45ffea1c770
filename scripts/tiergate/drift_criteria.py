"""How one criterion differs from another of the same id. Pure.

What cannot be shown to be at least as strong counts as weaker; so does a field, or a parameter of a
checker, that is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tiergate import checkers
from tiergate.expectation import Bound, Expectation, Outcomes
from tiergate.prove import declared
from tiergate.prove.declared import ProofEntry
from tiergate.spec import Criterion
from tiergate.verdict import Change


def compare(old: Criterion, new: Criterion) -> Iterator[Change]:
    """Yield every difference that decides what passes."""
    if old.uses != new.uses:
        yield _weaker(old, f"uses {new.uses} instead of {old.uses}")
        return
    for name in Criterion.__struct_fields__:
        if name in FIELDS:
            yield from FIELDS[name](old, new)
        elif getattr(old, name) != getattr(new, name):
            yield _weaker(old, f"{name.replace('_', '-')} changed")


def _weaker(of: Criterion, message: str) -> Change:
    return Change(of.id, message, weakening=True)


def _stronger(of: Criterion, message: str) -> Change:
    return Change(of.id, message, weakening=False)


def _neutral(old: Criterion, new: Criterion) -> Iterator[Change]:
    del old, new
    yield from ()


def _devices(old: Criterion, new: Criterion) -> Iterator[Change]:
    for device in old.devices:
        if device not in new.devices:
            yield _weaker(old, f"no longer judged on {device}")
    for device in new.devices:
        if device not in old.devices:
            yield _stronger(old, f"also judged on {device}")


def _needs(old: Criterion, new: Criterion) -> Iterator[Change]:
    for need in old.needs:
        if need not in new.needs:
            yield _weaker(old, f"no longer needs {need}")
    for need in new.needs:
        if need not in old.needs:
            yield _stronger(old, f"also needs {need}")


def _at_most(name: str) -> Callable[[Criterion, Criterion], Iterator[Change]]:
    """Compare a number of which more lets more pass."""

    def compared(old: Criterion, new: Criterion) -> Iterator[Change]:
        was, is_ = getattr(old, name), getattr(new, name)
        if was != is_:
            yield Change(old.id, f"{name} {was:g} → {is_:g}", weakening=is_ > was)

    return compared


def _flaky(old: Criterion, new: Criterion) -> Iterator[Change]:
    if new.flaky != old.flaky:
        yield Change(old.id, f"flaky {old.flaky} → {new.flaky}", weakening=new.flaky != "fail")


def _parameters(old: Criterion, new: Criterion) -> Iterator[Change]:
    before: Mapping[str, Any] = msgspec.to_builtins(old.parameters)
    after: Mapping[str, Any] = msgspec.to_builtins(new.parameters)
    for key in dict.fromkeys((*before, *after)):
        was, is_ = before.get(key), after.get(key)
        if was == is_ or (old.uses, key) in NEUTRAL:
            continue
        if (old.uses, key) in GROWING and isinstance(was, list) and isinstance(is_, list):
            yield from (_weaker(old, f"{key}: {item} removed") for item in was if item not in is_)
            yield from (_stronger(old, f"{key}: {item} added") for item in is_ if item not in was)
        elif (ladder := LADDERS.get((old.uses, key))) and {was, is_} <= set(ladder):
            weaker = ladder.index(is_) > ladder.index(was)
            yield Change(old.id, f"{key}: {_shown(was)} → {_shown(is_)}", weakening=weaker)
        else:
            yield _weaker(old, f"{key} changed")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _expectation(old: Criterion, new: Criterion) -> Iterator[Change]:
    outcomes = checkers.get(old.uses).outcomes(new.parameters)
    for name in dict.fromkeys((*old.expect, *new.expect)):
        was, is_ = old.expect.get(name), new.expect.get(name)
        strict = name in outcomes.strict
        if strict:  # a strict outcome that is not named must be zero
            was, is_ = was or Bound(0), is_ or Bound(0)
        if was != is_:
            weaker = not _at_least_as_strong(was, is_, name, outcomes)
            text = f"expects {name} {is_ or 'anything'} instead of {was or 'anything'}"
            yield Change(old.id, text, weakening=weaker)


def _at_least_as_strong(
    was: Bound | None, is_: Bound | None, name: str, outcomes: Outcomes
) -> bool:
    if is_ is None:
        return False
    if was is None:
        return True
    if outcomes.open:
        return False
    if name in outcomes.strict:  # fewer is better, and only an exact number bounds from above
        return not is_.at_least and not was.at_least and is_.value <= was.value
    if was.base or is_.base:
        return was.at_least and not was.base and was.value == 0
    if not was.at_least and is_.at_least:
        return False  # an exact number also says that nothing was added unseen
    return is_.value >= was.value


def _proofs(old: Criterion, new: Criterion) -> Iterator[Change]:
    """Compare by name; a proof that got another name and is the same otherwise counts for it."""
    after = {proof.name: proof for proof in new.proofs}
    kept = {proof.name for proof in old.proofs} & after.keys()
    anonymous = [_unnamed(proof) for proof in new.proofs if proof.name not in kept]
    for proof in old.proofs:
        if proof.name in kept:
            yield from _proof(old, new, proof, after[proof.name])
        elif _unnamed(proof) not in anonymous:
            yield _weaker(old, f"proof removed: {proof.name}")
    before = [_unnamed(proof) for proof in old.proofs]
    for proof in new.proofs:
        if proof.name not in kept and _unnamed(proof) not in before:
            yield _stronger(old, f"proof added: {proof.name}")


def _unnamed(proof: ProofEntry) -> ProofEntry:
    return msgspec.structs.replace(proof, name="")


def _proof(old: Criterion, new: Criterion, was: ProofEntry, is_: ProofEntry) -> Iterator[Change]:
    for name in ProofEntry.__struct_fields__:
        before, after = getattr(was, name), getattr(is_, name)
        if before != after:
            demands_more = PROOFS.get(name)
            stronger = demands_more is not None and demands_more(was, is_, new)
            yield Change(old.id, f"proof {was.name}: other {name}", weakening=not stronger)


def _demands_more(was: ProofEntry, is_: ProofEntry, of: Criterion) -> bool:
    """Tell whether all that is accepted as proof now was accepted before."""
    before, after = declared.bounds(was), declared.bounds(is_)
    if before is None or after is None:
        return before is None
    outcomes = checkers.get(of.uses).outcomes(of.parameters)
    return all(
        _is_within(_bound(after, name, outcomes), _bound(before, name, outcomes))
        for name in {*before, *after, *outcomes.strict}
    )


def _bound(expected: Expectation, name: str, outcomes: Outcomes) -> Bound:
    anything = Bound(0, at_least=True)
    return expected.get(name, Bound(0) if name in outcomes.strict else anything)


def _is_within(inner: Bound, outer: Bound) -> bool:
    if outer.at_least:
        return inner.value >= outer.value
    return inner == outer


def _names_more(was: ProofEntry, is_: ProofEntry, of: Criterion) -> bool:
    del of
    return was.evidence in is_.evidence


FIELDS: Mapping[str, Callable[[Criterion, Criterion], Iterator[Change]]] = {
    "id": _neutral,
    "uses": _neutral,  # compared before all else
    "name": _neutral,
    "remedy": _neutral,
    "mark": _neutral,
    "gpu_memory": _neutral,
    "devices": _devices,
    "needs": _needs,
    "timeout": _at_most("timeout"),
    "retries": _at_most("retries"),
    "flaky": _flaky,
    "parameters": _parameters,
    "expect": _expectation,
    "proofs": _proofs,
}
"""What compares each field of a criterion."""

NEUTRAL = frozenset({("semgrep", "engine")})
"""Parameters that decide nothing."""

GROWING = frozenset(
    {
        ("imports", "names"),
        ("pytest", "paths"),
        ("collection", "paths"),
        ("semgrep", "rules"),
        ("semgrep", "paths"),
        ("checkpoints", "paths"),
    }
)
"""Lists of which more is stricter."""

LADDERS: Mapping[tuple[str, str], Sequence[Any]] = {
    ("pytest", "collect-only"): (False, True),
    ("imports", "origin"): ("repository", "anywhere"),
    ("semgrep", "policy"): ("explicit", "floor-2.6"),
    ("checkpoints", "policy"): ("none", "weights-only", "scan"),
}
"""Parameters with values from the strictest to the laxest."""

PROOFS: Mapping[str, Callable[[ProofEntry, ProofEntry, Criterion], bool]] = {
    "expect": _demands_more,
    "evidence": _names_more,
}
"""What tells of two different values of a proof's field whether the second demands more."""
