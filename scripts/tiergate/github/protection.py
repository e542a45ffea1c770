"""What makes a check required: rulesets and classic protection, what is in force, what to send.

A change starts from what GitHub has and adds what is missing: rules, checks and settings that
somebody else made stay as they are.
"""

from __future__ import annotations

import copy
import fnmatch
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tiergate.errors import UserError
from tiergate.github.client import Client, RefusedError

RULESET = "tiergate"

# What GitHub takes for a ruleset; the rest of what it shows is about it.
_RULESET_KEYS = ("name", "target", "enforcement", "bypass_actors", "conditions", "rules")

_MERGE_QUEUE = {
    "type": "merge_queue",
    "parameters": {
        "check_response_timeout_minutes": 180,
        # Each entry must pass by itself: HEADGREEN would let a red one in behind a green one.
        "grouping_strategy": "ALLGREEN",
        "max_entries_to_build": 5,
        "max_entries_to_merge": 5,
        "merge_method": "MERGE",
        "min_entries_to_merge": 1,
        "min_entries_to_merge_wait_minutes": 5,
    },
}
_REVIEW = {
    "type": "pull_request",
    "parameters": {
        "dismiss_stale_reviews_on_push": True,
        "require_code_owner_review": True,
        "require_last_push_approval": False,
        "required_approving_review_count": 1,
        "required_review_thread_resolution": False,
    },
}


@dataclass(frozen=True)
class Wanted:
    """What is to be in force on a branch."""

    branch: str
    default: bool
    """Whether it is the repository's default branch."""
    check: str
    app: int
    """The id of GitHub Actions: no other app, and no token, can report the check in its place."""
    merge_queue: bool = False
    code_owner_review: bool = False
    strict: bool | None = None
    """Whether a branch must be up to date; None leaves what is there, and for a new ruleset asks
    for it unless a merge queue tests the merged state anyway."""


@dataclass(frozen=True)
class Change:
    """A request: what is there, as the same request would say it, and what is to be there."""

    method: str
    path: str
    before: dict[str, Any] | None
    after: dict[str, Any]

    @property
    def needed(self) -> bool:
        """Whether anything would be another."""
        return self.before != self.after


def rules_in_force(client: Client, repository: str, branch: str) -> list[dict[str, Any]]:
    """Return the rules of active rulesets, the organisation's too, that hold for a branch."""
    return client.pages(f"/repos/{repository}/rules/branches/{quote(branch, safe='')}")


def required_checks(rules: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    """Return each required check, and the app that must report it or None."""
    return [
        (check["context"], check.get("integration_id"))
        for rule in rules
        if rule.get("type") == "required_status_checks"
        for check in rule["parameters"]["required_status_checks"]
    ]


def satisfied(rules: list[dict[str, Any]], wanted: Wanted) -> bool:
    """Tell whether the rules in force demand all that is wanted already."""
    checks = [r for r in rules if r.get("type") == "required_status_checks"]
    strict = any(r["parameters"]["strict_required_status_checks_policy"] for r in checks)
    reviews = [r for r in rules if r.get("type") == "pull_request"]
    return (
        (wanted.check, wanted.app) in required_checks(rules)
        and (wanted.strict is None or wanted.strict == strict)
        and (not wanted.merge_queue or any(r.get("type") == "merge_queue" for r in rules))
        and (
            not wanted.code_owner_review
            or any(r["parameters"]["require_code_owner_review"] for r in reviews)
        )
    )


def rulesets(client: Client, repository: str) -> list[dict[str, Any]]:
    """Return the repository's own rulesets for branches, in whole."""
    path = f"/repos/{repository}/rulesets"
    return [
        client.get(f"{path}/{found['id']}")
        for found in client.pages(path, includes_parents="false")
        if found.get("target", "branch") == "branch"
    ]


def ruleset_change(existing: list[dict[str, Any]], repository: str, wanted: Wanted) -> Change:
    """Return the request that makes, or completes, the ruleset of the name ``tiergate``."""
    path = f"/repos/{repository}/rulesets"
    ours = next((r for r in existing if r["name"] == RULESET), None)
    if ours is None:
        reference = "~DEFAULT_BRANCH" if wanted.default else f"refs/heads/{wanted.branch}"
        new: dict[str, Any] = {
            "name": RULESET,
            "target": "branch",
            "enforcement": "active",
            "bypass_actors": [],
            "conditions": {"ref_name": {"include": [reference], "exclude": []}},
            "rules": [{"type": "deletion"}, {"type": "non_fast_forward"}],
        }
        _complete(new["rules"], wanted, strict=not wanted.merge_queue)
        return Change("POST", path, None, new)
    before = {key: ours[key] for key in _RULESET_KEYS if key in ours}
    after = copy.deepcopy(before)
    after["enforcement"] = "active"
    names = after.setdefault("conditions", {}).setdefault("ref_name", {})
    if not covers(after, wanted.branch, default=wanted.default):
        names.setdefault("exclude", [])
        if _named(names["exclude"], wanted.branch, default=wanted.default):
            raise UserError(
                f"the ruleset {RULESET!r} excludes the branch {wanted.branch}: "
                f"{', '.join(names['exclude'])}; take it out of the exclusions"
            )
        reference = "~DEFAULT_BRANCH" if wanted.default else f"refs/heads/{wanted.branch}"
        names["include"] = [*names.get("include", []), reference]
    _complete(after.setdefault("rules", []), wanted, strict=False)
    return Change("PUT", f"{path}/{ours['id']}", before, after)


def covers(ruleset: dict[str, Any], branch: str, *, default: bool) -> bool:
    """Tell whether a ruleset's conditions hold for a branch."""
    names = (ruleset.get("conditions") or {}).get("ref_name") or {}
    return _named(names.get("include", []), branch, default=default) and not _named(
        names.get("exclude", []), branch, default=default
    )


def _named(patterns: list[str], branch: str, *, default: bool) -> bool:
    reference = f"refs/heads/{branch}"
    return any(
        pattern == "~ALL"
        or (pattern == "~DEFAULT_BRANCH" and default)
        or fnmatch.fnmatchcase(reference, pattern)
        for pattern in patterns
    )


def _complete(rules: list[dict[str, Any]], wanted: Wanted, *, strict: bool) -> None:
    """Add to a ruleset's rules what is wanted and not there."""
    checks = _rule(
        rules,
        {
            "type": "required_status_checks",
            "parameters": {
                "required_status_checks": [],
                "strict_required_status_checks_policy": strict,
            },
        },
    )["parameters"]
    if wanted.strict is not None:
        checks["strict_required_status_checks_policy"] = wanted.strict
    checks["required_status_checks"] = _with_check(
        checks["required_status_checks"], "integration_id", wanted
    )
    if wanted.merge_queue:
        _rule(rules, _MERGE_QUEUE)
    if wanted.code_owner_review:
        _rule(rules, _REVIEW)["parameters"]["require_code_owner_review"] = True


def _rule(rules: list[dict[str, Any]], default: dict[str, Any]) -> dict[str, Any]:
    """Return the rule of a type, added as ``default`` where there is none."""
    for rule in rules:
        if rule["type"] == default["type"]:
            return rule
    rules.append(copy.deepcopy(default))
    return rules[-1]


def _with_check(checks: list[dict[str, Any]], app_key: str, wanted: Wanted) -> list[dict[str, Any]]:
    """Return the checks with the wanted one, reported by its app; the others as they are."""
    check = {"context": wanted.check, app_key: wanted.app}
    if not any(known["context"] == wanted.check for known in checks):
        return [*checks, check]
    return [check if known["context"] == wanted.check else known for known in checks]


def classic_change(existing: dict[str, Any] | None, repository: str, wanted: Wanted) -> Change:
    """Return the request that adds the check to a branch's classic protection.

    Args:
        existing: the protection as GitHub shows it, or None for an unprotected branch.
        repository: ``OWNER/REPO``.
        wanted: what is to be in force; a merge queue is not a matter of it.
    """
    path = f"/repos/{repository}/branches/{quote(wanted.branch, safe='')}/protection"
    before = classic_body(existing) if existing is not None else None
    after = copy.deepcopy(before) or {
        "required_status_checks": None,
        "enforce_admins": True,
        "required_pull_request_reviews": None,
        "restrictions": None,
    }
    checks = after["required_status_checks"] or {"strict": True, "contexts": [], "checks": []}
    if wanted.strict is not None:
        checks["strict"] = wanted.strict
    checks["checks"] = _with_check(checks["checks"], "app_id", wanted)
    after["required_status_checks"] = checks
    if wanted.code_owner_review:
        reviews = after["required_pull_request_reviews"] or {
            "dismiss_stale_reviews": True,
            "required_approving_review_count": 1,
        }
        after["required_pull_request_reviews"] = {**reviews, "require_code_owner_reviews": True}
    return Change("PUT", path, before, after)


def classic_body(protection: dict[str, Any]) -> dict[str, Any]:
    """Return the request that would leave a classic protection as it is."""
    checks = protection.get("required_status_checks")
    reviews = protection.get("required_pull_request_reviews")
    restrictions = protection.get("restrictions")
    body: dict[str, Any] = {
        "required_status_checks": checks and _classic_checks(checks),
        "enforce_admins": _enabled(protection, "enforce_admins"),
        "required_pull_request_reviews": reviews and _classic_reviews(reviews),
        "restrictions": restrictions and _actors(restrictions),
    }
    switches = (
        "required_linear_history", "allow_force_pushes", "allow_deletions", "block_creations",
        "required_conversation_resolution", "lock_branch", "allow_fork_syncing",
    )  # fmt: skip
    body |= {name: _enabled(protection, name) for name in switches if name in protection}
    return body


def _classic_checks(checks: dict[str, Any]) -> dict[str, Any]:
    known = checks.get("checks") or [{"context": name} for name in checks.get("contexts", [])]
    return {
        "strict": bool(checks.get("strict")),
        "contexts": [],  # demanded, and deprecated in favour of `checks`
        # None is how GitHub shows that any app may report it, -1 how it is told so.
        "checks": [
            {"context": check["context"], "app_id": -1 if app is None else app}
            for check in known
            for app in [check.get("app_id")]
        ],
    }


def _classic_reviews(reviews: dict[str, Any]) -> dict[str, Any]:
    switches = (
        "dismiss_stale_reviews", "require_code_owner_reviews", "required_approving_review_count",
        "require_last_push_approval",
    )  # fmt: skip
    lists = ("dismissal_restrictions", "bypass_pull_request_allowances")
    body = {name: reviews[name] for name in switches if name in reviews}
    return body | {name: _actors(reviews[name]) for name in lists if name in reviews}


def _actors(lists: dict[str, Any]) -> dict[str, list[str]]:
    return {
        "users": [user["login"] for user in lists.get("users", [])],
        "teams": [team["slug"] for team in lists.get("teams", [])],
        "apps": [app["slug"] for app in lists.get("apps", [])],
    }


def _enabled(protection: dict[str, Any], name: str) -> bool:
    return bool((protection.get(name) or {}).get("enabled"))


def classic_protection(client: Client, repository: str, branch: str) -> dict[str, Any] | None:
    """Return a branch's classic protection, or None where it has none.

    Raises:
        RefusedError: GitHub does not say that: the token may not see it, or there is no branch.
    """
    place = quote(branch, safe="")
    try:
        found: dict[str, Any] = client.get(f"/repos/{repository}/branches/{place}/protection")
    except RefusedError as error:
        # What is hidden is "Not Found" as well; only these words say that there is nothing.
        if error.status == 404 and "Branch not protected" in str(error):
            return None
        raise
    return found
