"""How one spec differs from another, and which differences weaken the gate. Pure.

What cannot be shown to be at least as strong counts as weaker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tiergate import checkers
from tiergate.expectation import Bound, Outcomes
from tiergate.spec import Criterion, Spec
from tiergate.verdict import Change

# Parameters of which more is stricter.
_GROWING = frozenset({"paths", "rules", "names"})
# Parameters whose other value is the weaker one.
_WEAKER_VALUE = {"collect-only": True, "origin": "anywhere"}
_NEUTRAL = frozenset({"engine"})


def compare(base: Spec, head: Spec) -> list[Change]:
    """Return every difference that decides what passes, from the base's spec to the head's."""
    changes = [*_settings(base, head), *_waivers(base, head)]
    after = {criterion.id: criterion for criterion in head.criteria}
    tiers = {c.id: i for i, tier in enumerate(head.tiers) for c in tier.criteria}
    for index, tier in enumerate(base.tiers):
        for old in tier.criteria:
            new = after.pop(old.id, None)
            if new is None:
                changes.append(_weaker(old.id, "criterion removed"))
                continue
            changes += _criterion(old, new)
            if tiers[old.id] > index:
                changes.append(_weaker(old.id, "moved to a later tier"))
    changes += [Change(added, "criterion added", weakening=False) for added in after]
    return changes


def deciding(base: Spec, head: Spec | None, *, allow_weakening: bool) -> Spec:
    """Return the spec that decides: the base's, with what the head strengthens.

    Criteria that the head adds or strengthens are taken from the head, and waivers that it removes
    are gone; a criterion that it weakens stays as the base has it. Where weakening is allowed, the
    head's spec decides alone. The result goes by the base's digest.
    """
    if head is None:
        return base
    if allow_weakening:
        return replace(head, digest=base.digest, path=base.path, base=base.base)
    weakened = weakened_criteria(base, head)
    new = {c.id: c for c in head.criteria if c.id not in weakened}
    tiers = []
    for index, tier in enumerate(base.tiers):
        kept = [new.pop(c.id, c) for c in tier.criteria]
        added = head.tiers[index].criteria if index < len(head.tiers) else ()
        known = {c.id for c in base.criteria}
        kept += [new.pop(c.id) for c in added if c.id in new and c.id not in known]
        tiers.append(replace(tier, criteria=tuple(kept)))
    known = {c.id for tier in tiers for c in tier.criteria}
    for tier in head.tiers[len(base.tiers) :]:
        rest = tuple(c for c in tier.criteria if c.id not in known)
        if rest:
            tiers.append(replace(tier, criteria=rest))
    devices = tuple(dict.fromkeys((*base.devices, *head.devices)))
    waivers = tuple(waiver for waiver in base.waivers if waiver in head.waivers)
    return replace(base, tiers=tuple(tiers), devices=devices, waivers=waivers)


def weakened_criteria(base: Spec, head: Spec) -> frozenset[str]:
    """Return the ids of the criteria that both have and that the head weakens."""
    both = {c.id for c in base.criteria} & {c.id for c in head.criteria}
    return frozenset(c.where for c in compare(base, head) if c.weakening and c.where in both)


def _weaker(where: str, message: str) -> Change:
    return Change(where, message, weakening=True)


def _settings(base: Spec, head: Spec) -> Iterator[Change]:
    for device in base.devices:
        if device not in head.devices:
            yield _weaker("devices", f"{device} leg removed")
    for name in ("pythonpath", "env", "pass_env"):
        if getattr(base, name) != getattr(head, name):
            yield _weaker(name.replace("_", "-"), "changed: other code or settings are judged")


def _waivers(base: Spec, head: Spec) -> Iterator[Change]:
    for waiver in head.waivers:
        if waiver not in base.waivers:
            yield _weaker("waivers", f"added: {waiver.what}, until {waiver.expires}")
    for waiver in base.waivers:
        if waiver not in head.waivers:
            yield Change("waivers", f"removed: {waiver.what}", weakening=False)


def _criterion(old: Criterion, new: Criterion) -> Iterator[Change]:
    if old.uses != new.uses:
        yield _weaker(old.id, f"uses {new.uses} instead of {old.uses}")
        return
    for device in old.devices:
        if device not in new.devices:
            yield _weaker(old.id, f"no longer judged on {device}")
    for device in new.devices:
        if device not in old.devices:
            yield Change(old.id, f"also judged on {device}", weakening=False)
    if new.retries != old.retries:
        more = new.retries > old.retries
        yield Change(old.id, f"retries {old.retries} → {new.retries}", weakening=more)
    if new.flaky != old.flaky:
        yield Change(old.id, f"flaky {old.flaky} → {new.flaky}", weakening=new.flaky == "warn")
    yield from _parameters(old, new)
    yield from _expectation(old, new)


def _parameters(old: Criterion, new: Criterion) -> Iterator[Change]:
    before: Mapping[str, Any] = msgspec.to_builtins(old.parameters)
    after: Mapping[str, Any] = msgspec.to_builtins(new.parameters)
    for key in dict.fromkeys((*before, *after)):
        was, is_ = before.get(key), after.get(key)
        if was == is_ or key in _NEUTRAL:
            continue
        if key in _GROWING and isinstance(was, list) and isinstance(is_, list):
            for item in was:
                if item not in is_:
                    yield _weaker(old.id, f"{key}: {item} removed")
            for item in is_:
                if item not in was:
                    yield Change(old.id, f"{key}: {item} added", weakening=False)
        elif key in _WEAKER_VALUE:
            yield Change(old.id, f"{key}: {was} → {is_}", weakening=is_ == _WEAKER_VALUE[key])
        else:
            yield _weaker(old.id, f"{key} changed")


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
