"""How one spec differs from another, and which differences weaken the gate. Pure.

What cannot be shown to be at least as strong counts as weaker; so does a field that is not known
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from tiergate import drift_criteria
from tiergate.spec import Spec, Tier
from tiergate.verdict import Change
from tiergate.waivers import Waiver


def compare(base: Spec, head: Spec) -> list[Change]:
    """Return every difference that decides what passes, from the base's spec to the head's."""
    changes: list[Change] = []
    for name in Spec.__struct_fields__:
        if name in SETTINGS:
            changes += SETTINGS[name](base, head)
        elif getattr(base, name) != getattr(head, name):
            changes.append(_weaker(name.replace("_", "-"), "changed"))
    return changes


def deciding(base: Spec, head: Spec | None, *, allow_weakening: bool) -> Spec:
    """Return the spec that decides: the base's, with what the head strengthens.

    Criteria that the head adds or strengthens are taken from the head, and waivers that it removes
    or shortens are so; a criterion that it weakens stays as the base has it. Where weakening is
    allowed, the head's spec decides alone. The result goes by the base's digest.
    """
    if head is None:
        return base
    if allow_weakening:
        return msgspec.structs.replace(head, digest=base.digest, path=base.path, base=base.base)
    weakened = weakened_criteria(base, head)
    new = {c.id: c for c in head.criteria if c.id not in weakened}
    tiers = []
    for index, tier in enumerate(base.tiers):
        kept = [new.pop(c.id, c) for c in tier.criteria]
        added = head.tiers[index].criteria if index < len(head.tiers) else ()
        known = {c.id for c in base.criteria}
        kept += [new.pop(c.id) for c in added if c.id in new and c.id not in known]
        tiers.append(msgspec.structs.replace(tier, criteria=tuple(kept)))
    known = {c.id for tier in tiers for c in tier.criteria}
    for tier in head.tiers[len(base.tiers) :]:
        rest = tuple(c for c in tier.criteria if c.id not in known)
        if rest:
            tiers.append(msgspec.structs.replace(tier, criteria=rest))
    devices = tuple(dict.fromkeys((*base.devices, *head.devices)))
    waivers = tuple(w for w in head.waivers if _is_covered(w, base.waivers))
    return msgspec.structs.replace(base, tiers=tuple(tiers), devices=devices, waivers=waivers)


def weakened_criteria(base: Spec, head: Spec) -> frozenset[str]:
    """Return the ids of the criteria that both have and that the head weakens."""
    both = {c.id for c in base.criteria} & {c.id for c in head.criteria}
    return frozenset(c.where for c in compare(base, head) if c.weakening and c.where in both)


def _weaker(where: str, message: str) -> Change:
    return Change(where, message, weakening=True)


def _stronger(where: str, message: str) -> Change:
    return Change(where, message, weakening=False)


def _neutral(base: Spec, head: Spec) -> Iterator[Change]:
    del base, head
    yield from ()


def _devices(base: Spec, head: Spec) -> Iterator[Change]:
    for device in base.devices:
        if device not in head.devices:
            yield _weaker("devices", f"{device} leg removed")
    for device in head.devices:
        if device not in base.devices:
            yield _stronger("devices", f"{device} leg added")


def _judged(name: str) -> Callable[[Spec, Spec], Iterator[Change]]:
    def compared(base: Spec, head: Spec) -> Iterator[Change]:
        if getattr(base, name) != getattr(head, name):
            yield _weaker(name.replace("_", "-"), "changed: other code or settings are judged")

    return compared


def _waivers(base: Spec, head: Spec) -> Iterator[Change]:
    for waiver in head.waivers:
        if waiver in base.waivers:
            continue
        if _is_covered(waiver, base.waivers):
            yield _stronger("waivers", f"narrowed: {waiver.what}, until {waiver.expires}")
        else:
            yield _weaker("waivers", f"added: {waiver.what}, until {waiver.expires}")
    for waiver in base.waivers:
        if not _is_covered(waiver, head.waivers):
            yield _stronger("waivers", f"removed: {waiver.what}, until {waiver.expires}")


def _is_covered(waiver: Waiver, by: tuple[Waiver, ...]) -> bool:
    """Tell whether one of the waivers accepts all that this one does, as long as this one does."""
    return any(
        other.criterion == waiver.criterion
        and other.device in {None, waiver.device}
        and other.finding in {None, waiver.finding}
        and other.expires >= waiver.expires
        for other in by
    )


def _tiers(base: Spec, head: Spec) -> Iterator[Change]:
    after = {criterion.id: criterion for criterion in head.criteria}
    place = {c.id: i for i, tier in enumerate(head.tiers) for c in tier.criteria}
    for index, tier in enumerate(base.tiers):
        for old in tier.criteria:
            new = after.pop(old.id, None)
            if new is None:
                yield _weaker(old.id, "criterion removed")
                continue
            yield from drift_criteria.compare(old, new)
            if place[old.id] > index:
                yield _weaker(old.id, "moved to a later tier")
        if index < len(head.tiers):
            yield from _tier(tier, head.tiers[index])
    for added in after:
        yield _stronger(added, "criterion added")


def _tier(old: Tier, new: Tier) -> Iterator[Change]:
    for name in Tier.__struct_fields__:
        if name not in OF_TIERS and getattr(old, name) != getattr(new, name):
            yield _weaker(old.gate, f"{name.replace('_', '-')} changed")


SETTINGS: Mapping[str, Callable[[Spec, Spec], Iterator[Change]]] = {
    "path": _neutral,
    "digest": _neutral,
    "base": _neutral,
    "devices": _devices,
    "pythonpath": _judged("pythonpath"),
    "env": _judged("env"),
    "pass_env": _judged("pass_env"),
    "waivers": _waivers,
    "tiers": _tiers,
}
"""What compares each field of a spec."""

OF_TIERS: Mapping[str, Any] = {
    "gate": "a label",
    "next": "a label",
    "remedy": "says who mends it, and decides nothing",
    "criteria": "compared one by one, over all tiers",
}
"""Fields of a tier that need no comparison of their own, and why."""
