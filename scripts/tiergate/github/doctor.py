"""Would a red gate block a merge on GitHub? Each way in which it would not is a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tiergate.diagnosis import Line
from tiergate.errors import UserError
from tiergate.github import codeowners, protection, workflows
from tiergate.github.client import RefusedError, UnreachableError
from tiergate.github.target import Target

_PATH_FILTERS = ("paths", "paths-ignore")
_PUSHES = {"opened", "synchronize", "reopened"}


def examine(target: Target, check: str) -> list[Line]:
    """Look at everything that lets a red check be merged.

    Args:
        target: the branch into which is merged.
        check: the check's name.

    Raises:
        UserError: GitHub cannot be asked at all.
    """
    found = _Found(target, check)
    lines: list[Line] = []
    for part in (found.requirement, found.workflow, found.bypasses, found.reviews):
        lines += _examined(part)
    return lines


def _examined(part: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """Yield what a part finds; what GitHub does not show is unknown, and no pass."""
    try:
        yield from part()
    except (RefusedError, UnreachableError) as error:
        yield Line("unknown", part.__name__, str(error))


class _Found:
    def __init__(self, target: Target, check: str) -> None:
        self.target = target
        self.check = check
        self.protect = f"tiergate protect {target.name}" + (
            "" if target.default else f" --branch {target.branch}"
        )
        if check != "gate":
            self.protect += f" --check {check}"
        self.rules = protection.rules_in_force(target.client, target.name, target.branch)
        self.queue = any(rule.get("type") == "merge_queue" for rule in self.rules)
        self.requiring = [
            rule
            for rule in self.rules
            if any(name == check for name, _ in protection.required_checks([rule]))
        ]

    def requirement(self) -> Iterator[Line]:
        """Is the check required, and can nobody but GitHub Actions report it?"""
        classic, seen = self._classic()
        required = protection.required_checks(self.rules)
        if classic is not None:
            checks = classic["required_status_checks"] or {"checks": []}
            required += [
                (known["context"], None if known["app_id"] == -1 else known["app_id"])
                for known in checks["checks"]
            ]
        apps = [app for name, app in required if name == self.check]
        if not apps:
            yield from self._not_required(sorted({name for name, _ in required}), seen)
            return
        yield Line("ok", "required", f"{self.check!r} is required on {self.target.branch}")
        actions = self.target.actions_app
        if actions in apps:
            yield Line("ok", "reporter", f"only GitHub Actions (app {actions}) can report it")
        elif None in apps:
            yield Line(
                "problem",
                "reporter",
                "any app or token that may write statuses can report it as green",
                self.protect,
            )
        else:
            yield Line(
                "problem",
                "reporter",
                f"it must be reported by app {apps[0]}, which is not GitHub Actions ({actions})",
                self.protect,
            )
        strict = any(
            rule["parameters"]["strict_required_status_checks_policy"] for rule in self.requiring
        ) or bool(classic and (classic["required_status_checks"] or {}).get("strict"))
        if self.queue:
            yield Line("ok", "merged state", "the merge queue judges what will be merged")
        elif strict:
            yield Line("ok", "merged state", "a branch must be up to date before it is merged")
        else:
            yield Line(
                "note",
                "merged state",
                "a green check may be of an older base: two good changes can merge into a bad one",
                f"{self.protect} --strict, or --merge-queue",
            )

    def _classic(self) -> tuple[dict[str, Any] | None, bool]:
        """Return the classic protection, and whether it could be seen."""
        target = self.target
        try:
            found = protection.classic_protection(target.client, target.name, target.branch)
        except RefusedError:
            return None, False
        return (protection.classic_body(found) if found else None), True

    def _not_required(self, others: list[str], seen: bool) -> Iterator[Line]:
        inactive = [
            ruleset
            for ruleset in protection.rulesets(self.target.client, self.target.name)
            if ruleset["enforcement"] != "active"
            and any(n == self.check for n, _ in protection.required_checks(ruleset["rules"]))
        ]
        for ruleset in inactive:
            yield Line(
                "problem",
                "required",
                f"the ruleset {ruleset['name']!r} requires {self.check!r}, but its enforcement is "
                f"{ruleset['enforcement']!r}: it blocks nothing",
                self.protect,
            )
        if inactive:
            return
        named = f"; required are: {', '.join(others)}" if others else "; no check is"
        if seen:
            text = f"{self.check!r} is not required on {self.target.branch}{named}"
            yield Line("problem", "required", text, self.protect)
        else:
            yield Line(
                "unknown",
                "required",
                f"no ruleset requires {self.check!r}, and this token may not see whether the "
                "classic protection does",
                "use a token with the permission 'Administration: read'",
            )

    def workflow(self) -> Iterator[Line]:
        """Does exactly one workflow report the check, for every change, and never as skipped?"""
        reporting = []
        all_checks: list[str] = []
        files, cut = self.target.tree
        for path in files:
            folder, _, name = path.rpartition("/")
            if f"{folder}/" != workflows.FOLDER or not name.endswith((".yml", ".yaml")):
                continue
            try:
                workflow = workflows.parse(path, self.target.text(path) or "")
            except UserError as error:
                yield Line("unknown", "workflow", str(error))
                continue
            all_checks += workflow.checks
            if workflow.job(self.check) is not None:
                reporting.append(workflow)
        if cut:
            yield Line("unknown", "workflow", "GitHub cut the list of the repository's files short")
        if not reporting:
            yield Line(
                "problem",
                "workflow",
                f"no workflow has a job that reports as {self.check!r}; there are: "
                f"{', '.join(all_checks) or 'none'}",
                "a merge waits for ever: name the job so, or require the name that it has",
            )
            return
        if len(reporting) > 1:
            yield Line(
                "problem",
                "workflow",
                f"{' and '.join(w.path for w in reporting)} each have a job that reports as "
                f"{self.check!r}: a green one can stand for a red one",
                "rename all but one",
            )
        for workflow in reporting:
            yield from self._triggers(workflow)
            yield from self._job(workflow)

    def _triggers(self, workflow: workflows.Workflow) -> Iterator[Line]:
        before = len(problems := [])
        events = workflow.events
        if "pull_request_target" in events:
            problems.append(
                Line(
                    "problem",
                    "workflow",
                    f"{workflow.path} runs on pull_request_target, with the rights of the base",
                    "run it on pull_request",
                )
            )
        if "pull_request" not in events:
            problems.append(
                Line(
                    "problem",
                    "workflow",
                    f"{workflow.path} does not run on pull_request",
                    "add `pull_request:` to its `on:`",
                )
            )
        filters = events.get("pull_request") or {}
        if named := [name for name in _PATH_FILTERS if name in filters]:
            problems.append(
                Line(
                    "problem",
                    "workflow",
                    f"{workflow.path} has the filter {', '.join(named)}: a pull request outside "
                    "of it waits for ever for the check, and people learn to go around it",
                    "judge every change",
                )
            )
        if "types" in filters and not set(filters["types"]) >= _PUSHES:
            lacking = ", ".join(sorted(_PUSHES - set(filters["types"])))
            problems.append(
                Line(
                    "problem",
                    "workflow",
                    f"{workflow.path} does not run on the pull request types {lacking}",
                    "add them, or leave out `types:`",
                )
            )
        if self.queue and "merge_group" not in events:
            problems.append(
                Line(
                    "problem",
                    "merge queue",
                    f"{workflow.path} does not run on merge_group: every entry of the queue waits "
                    "for a check that never comes",
                    "add `merge_group:` to its `on:`",
                )
            )
        yield from problems
        if len(problems) == before:
            yield Line("ok", "workflow", f"{workflow.path} runs for every change")

    def _job(self, workflow: workflows.Workflow) -> Iterator[Line]:
        job = workflow.job(self.check)
        assert job is not None
        condition = str(job.get("if", "")).replace("${{", "").replace("}}", "").strip()
        if job.get("continue-on-error", "false") != "false":
            yield Line(
                "problem",
                "job",
                f"the job {self.check!r} has continue-on-error: its failure counts as a success",
                "take it out",
            )
        if condition not in {"", "always()"} or (job.get("needs") and not condition):
            yield Line(
                "problem",
                "job",
                f"the job {self.check!r} can be skipped"
                + (f" (if: {condition})" if condition else " when a job that it needs fails")
                + ", and skipped counts as a success",
                "write `if: always()`, and let its steps fail unless all is well",
            )
        else:
            yield Line("ok", "job", f"the job {self.check!r} cannot be skipped")

    def bypasses(self) -> Iterator[Line]:
        """May anybody merge although the check is red?"""
        target = self.target
        for rule in self.requiring:
            identity, source = rule.get("ruleset_id"), rule.get("ruleset_source", "")
            if rule.get("ruleset_source_type", "Repository") != "Repository":
                yield Line(
                    "note",
                    "bypass",
                    f"the ruleset is of the organisation {source}: look there who may bypass it",
                )
                continue
            ruleset = target.client.get(f"{target.path}/rulesets/{identity}")
            if "bypass_actors" not in ruleset:
                yield Line(
                    "unknown",
                    "bypass",
                    f"this token may not see who may bypass the ruleset {ruleset['name']!r}",
                    "use a token with the permission 'Administration: write'",
                )
            elif actors := ruleset["bypass_actors"]:
                named = ", ".join(
                    f"{a['actor_type']} {a.get('actor_id') or ''}".strip()
                    + f" ({a.get('bypass_mode', 'always')})"
                    for a in actors
                )
                yield Line(
                    "problem",
                    "bypass",
                    f"may merge past the ruleset {ruleset['name']!r}: {named}",
                    "empty its bypass list",
                )
            else:
                yield Line("ok", "bypass", f"nobody may bypass the ruleset {ruleset['name']!r}")
        classic, _ = self._classic()
        checks = (classic or {}).get("required_status_checks") or {"checks": []}
        if classic and any(c["context"] == self.check for c in checks["checks"]):
            if classic["enforce_admins"]:
                yield Line("ok", "administrators", "the classic protection holds for them too")
            elif not self.requiring:
                yield Line(
                    "problem",
                    "administrators",
                    "are exempt from the classic protection: they can merge a red gate",
                    "enable 'Do not allow bypassing the above settings'",
                )

    def reviews(self) -> Iterator[Line]:
        """Can a change to the judge, or to its workflow, be merged without its owners?"""
        classic, _ = self._classic()
        asked = any(
            rule["parameters"]["require_code_owner_review"]
            for rule in self.rules
            if rule.get("type") == "pull_request"
        ) or bool(
            ((classic or {}).get("required_pull_request_reviews") or {}).get(
                "require_code_owner_reviews"
            )
        )
        if asked:
            yield Line("ok", "code owners", "their review is required")
        else:
            yield Line(
                "problem",
                "code owners",
                "their review is not required: a pull request runs its own copy of the workflow, "
                f"and one that rewrites it reports {self.check!r} as green",
                f"{self.protect} --code-owner-review",
            )
        yield from self._owners()

    def _owners(self) -> Iterator[Line]:
        target = self.target
        owners = target.owners
        place = owners.path if owners else codeowners.PLACES[0]
        missing = target.owner_gaps()
        if missing:
            parts = ", ".join(
                f"{gap.part} ({gap.path}" + (f", by line {gap.line})" if gap.line else ")")
                for gap in missing
            )
            lines = codeowners.lines_to_add(missing, owners.rules if owners else [], target.owner)
            yield Line(
                "problem",
                "CODEOWNERS",
                f"{place} {'does not cover' if owners else 'is missing; unowned'}: {parts}",
                f"add to its end: {'; '.join(' '.join(line.split()) for line in lines)}",
            )
        else:
            covered = ", ".join(target.judging)
            yield Line("ok", "CODEOWNERS", f"{place} covers {covered}")
        errors = target.client.find(f"{target.path}/codeowners/errors", ref=target.branch)
        for error in (errors or {}).get("errors", []):
            yield Line(
                "problem",
                "CODEOWNERS",
                f"{error['path']}:{error['line']}: {error['kind']}",
                str(error.get("suggestion") or "an owner must exist and may write"),
            )
