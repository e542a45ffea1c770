"""Waivers: failures that the spec accepts until a date. Pure: today is an argument."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import msgspec

from tiergate.fields import Device
from tiergate.verdict import Finding, Part, Verdict

LONGEST = timedelta(days=90)
SOON = timedelta(days=14)


class Waiver(msgspec.Struct, frozen=True):
    """One entry of ``waivers:``."""

    criterion: str
    reason: str
    owner: str
    expires: date
    """The last day, UTC, on which it counts."""
    device: Device | None = None
    finding: tuple[str, str, str] | None = None
    """Rule, path and fingerprint of the only finding that it accepts."""

    @property
    def what(self) -> str:
        """What it waives, in words."""
        text = self.criterion + (f"@{self.device}" if self.device else "")
        if self.finding:
            rule, path, fingerprint = self.finding
            text += f", {rule} in {path} ({fingerprint})"
        return text

    def covers(self, verdict: Verdict | Part) -> bool:
        """Tell whether it speaks of this cell."""
        return verdict.criterion == self.criterion and self.device in {None, verdict.device}


def fingerprints(findings: Iterable[tuple[str, str, str]]) -> list[str]:
    """Return a fingerprint per finding, given as (rule, path, code).

    The code's white space does not count, nor its line number; equal findings of one file are
    told apart by their order.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    result = []
    for rule, path, code in findings:
        key = (rule, path, " ".join(code.split()))
        text = "\0".join((*key, str(seen[key])))
        seen[key] += 1
        result.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    return result


def apply(verdict: Verdict, waivers: Sequence[Waiver], today: date) -> Verdict:
    """Return the verdict with the waivers that are in force taken into account.

    A waiver of the whole verdict makes ``fail`` and ``error`` ``waived``. Waivers of findings do
    so when they cover every finding and nothing else is wrong.
    """
    if verdict.status not in {"fail", "error"}:
        return verdict
    covering = [w for w in waivers if w.covers(verdict) and in_force(w, today)]
    if accepting := whole(verdict, covering, today):
        return _waived(verdict, accepting[:1])
    accepted = {waiver.finding: waiver for waiver in covering}
    findings = verdict.evidence.findings
    if verdict.status == "fail" and findings and _only_findings_are_wrong(verdict):
        used = [accepted.get(_identity(finding)) for finding in findings]
        known = [waiver for waiver in used if waiver is not None]
        if len(known) == len(used):
            return _waived(verdict, known)
    return verdict


def whole(judged: Verdict | Part, waivers: Sequence[Waiver], today: date) -> list[Waiver]:
    """Return the waivers in force that accept whatever is wrong with a cell."""
    return [w for w in waivers if w.finding is None and w.covers(judged) and in_force(w, today)]


def in_force(waiver: Waiver, today: date) -> bool:
    """Tell whether a waiver counts on this day."""
    return today <= waiver.expires <= today + LONGEST


def problems(waivers: Sequence[Waiver], verdicts: Sequence[Verdict], today: date) -> list[str]:
    """Say which waivers are expired, too long, or match nothing any more.

    A waiver is only missed where its criterion was judged at all.
    """
    result = []
    for waiver in waivers:
        if waiver.expires < today:
            result.append(
                f"the waiver of {waiver.what} expired on {waiver.expires} ({_who(waiver)})"
            )
        elif waiver.expires > today + LONGEST:
            result.append(
                f"the waiver of {waiver.what} lasts until {waiver.expires}, more than "
                f"{LONGEST.days} days ahead ({_who(waiver)})"
            )
        elif _idle(waiver, verdicts):
            result.append(f"the waiver of {waiver.what} matches nothing any more; remove it")
    return result


def expiring(waivers: Sequence[Waiver], today: date) -> list[str]:
    """Say which waivers end within 14 days."""
    return [
        f"the waiver of {waiver.what} expires on {waiver.expires} ({_who(waiver)})"
        for waiver in waivers
        if today <= waiver.expires <= today + SOON
    ]


def _who(waiver: Waiver) -> str:
    return f"owner: {waiver.owner}"


def _identity(finding: Finding) -> tuple[str, str, str]:
    return (finding.rule, finding.path, finding.fingerprint)


def _idle(waiver: Waiver, verdicts: Sequence[Verdict]) -> bool:
    judged = [v for v in verdicts if waiver.covers(v) and v.status != "blocked"]
    return bool(judged) and not any(_matches(waiver, verdict) for verdict in judged)


def _matches(waiver: Waiver, verdict: Verdict) -> bool:
    if waiver.finding is None:
        return verdict.status in {"fail", "error", "waived"}
    return waiver.finding in {_identity(finding) for finding in verdict.evidence.findings}


def _only_findings_are_wrong(verdict: Verdict) -> bool:
    wrong = verdict.evidence.mismatches
    return wrong == ["findings"]


def _waived(verdict: Verdict, by: Sequence[Waiver]) -> Verdict:
    first = by[0]
    note = f"waived until {min(w.expires for w in by)}: {first.reason} ({_who(first)})"
    return msgspec.structs.replace(verdict, status="waived", waiver=note)
