"""``tiergate protect``: make the gate a required check."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.github.protection import Change, Wanted
    from tiergate.github.target import Target


@click.command(
    "protect",
    epilog=options.examples(
        "protect",
        ("octo/transformer", "show what would change, ask, and do it"),
        ("octo/transformer --merge-queue --code-owner-review --yes", "the whole protection"),
        ("octo/transformer --dry-run", "print the request's body, for gh api --input -"),
        exits=(
            "the rule is in force",
            "it was declined",
            "GitHub refused, or the command line is wrong",
            "GitHub could not be asked",
        ),
    ),
)
@click.argument("repository", metavar="OWNER/REPO")
@click.option("--branch", default="", help="The branch to protect.  [default: the default branch]")
@click.option(
    "--check", default="gate", show_default=True, help="The check's name: that of the last job."
)
@click.option("--classic", is_flag=True, help="Use the branch's classic protection, no ruleset.")
@click.option("--merge-queue", is_flag=True, help="Merge through a queue, each entry judged.")
@click.option(
    "--code-owner-review",
    is_flag=True,
    help="Require a review by code owners; without it a change can rewrite its workflow.",
)
@click.option(
    "--strict/--no-strict",
    default=None,
    help="Whether a branch must be up to date before it is merged.  [default: as it is; in a new "
    "ruleset, yes unless there is a merge queue]",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print the request's body.")
def command(
    repository: str,
    branch: str,
    check: str,
    classic: bool,
    merge_queue: bool,
    code_owner_review: bool,
    strict: bool | None,
    yes: bool,
    dry_run: bool,
) -> int:
    """Make a check required on GitHub, so that a red gate blocks the merge.

    Adds what is missing to a ruleset named tiergate, and leaves all other rules, checks and
    settings as they are; run twice, it changes nothing. The token comes from GITHUB_TOKEN or
    GH_TOKEN, the server from GITHUB_API_URL.
    """
    from tiergate.errors import ExitCode, UserError
    from tiergate.github import protection
    from tiergate.github.client import Client, understood
    from tiergate.github.target import Target

    if classic and merge_queue:
        raise UserError("--merge-queue is a matter of rulesets; leave out --classic")
    if dry_run and yes:
        raise UserError("--dry-run changes nothing, --yes does; give one")
    with understood():
        target = Target(Client(), repository, branch)
        wanted = protection.Wanted(
            branch=target.branch,
            default=target.default,
            check=check,
            app=target.actions_app,
            merge_queue=merge_queue,
            code_owner_review=code_owner_review,
            strict=strict,
        )
        change = _classic(target, wanted) if classic else _ruleset(target, wanted)
        if change is None or not change.needed:
            _say(f"{check!r} is required on {target.branch} already: nothing to change")
            _say_owners(target)
            return ExitCode.PASSED
        _say(f"{change.method} {change.path}")
        _say(_diff(change))
        if dry_run:
            click.echo(json.dumps(change.after, indent=2))
            _say(f"to send it: … | gh api --method {change.method} {change.path[1:]} --input -")
            _say_owners(target)
            return ExitCode.PASSED
        if not yes and not _agreed():
            _say("nothing was changed")
            return ExitCode.FAILED
        target.client.send(change.method, change.path, change.after)
        if not _in_force(target, wanted, classic=classic):
            _say(f"GitHub took the request, but {check!r} is not required on {target.branch} now")
            return ExitCode.NOT_EVALUATED
        _say(f"{target.name}: the check {check!r} is required on {target.branch} from now on")
        _say_owners(target)
        return ExitCode.PASSED


def _ruleset(target: Target, wanted: Wanted) -> Change | None:
    """Return what to change; None where the rules in force demand everything already."""
    from tiergate.errors import NotEvaluatedError
    from tiergate.github import protection

    rules = protection.rules_in_force(target.client, target.name, target.branch)
    checks = protection.required_checks(rules)
    _say(f"{target.name}, branch {target.branch}; required now by rulesets:")
    for name, app in checks:
        _say(f"  {name}" + (f" (app {app})" if app is not None else " (reported by any app)"))
    if not checks:
        _say("  no check")
    if protection.satisfied(rules, wanted):
        return None
    existing = protection.rulesets(target.client, target.name)
    change = protection.ruleset_change(existing, target.name, wanted)
    if not change.needed:
        raise NotEvaluatedError(
            f"the ruleset {protection.RULESET!r} demands all of it, but GitHub does not list it "
            f"among the rules of {target.branch}; look at the repository's rules, or try again"
        )
    return change


def _classic(target: Target, wanted: Wanted) -> Change:
    from tiergate.github import protection

    return protection.classic_change(
        protection.classic_protection(target.client, target.name, target.branch),
        target.name,
        wanted,
    )


def _in_force(target: Target, wanted: Wanted, *, classic: bool) -> bool:
    """Ask GitHub again: its answer to the request is no evidence."""
    from tiergate.github import protection

    if classic:
        return not _classic(target, wanted).needed
    rules = protection.rules_in_force(target.client, target.name, target.branch)
    return protection.satisfied(rules, wanted)


def _agreed() -> bool:
    from tiergate.errors import UserError

    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on: give --yes, or look with --dry-run")
    return click.confirm("Change it so?", err=True)


def _diff(change: Change) -> str:
    """Return the change as a unified diff of the request's body."""
    import difflib

    from tiergate.render.text import printable

    before, after = (
        json.dumps(body, indent=2, sort_keys=True).splitlines() if body is not None else []
        for body in (change.before, change.after)
    )
    lines = difflib.unified_diff(before, after, "in force", "wanted", lineterm="", n=4)
    return printable("\n".join(lines))


def _say_owners(target: Target) -> None:
    """Say what of the judge no code owner must review, and the lines that mend it."""
    from tiergate.github import codeowners

    missing = target.owner_gaps()
    owners = target.owners
    place = owners.path if owners else codeowners.PLACES[0]
    if not missing:
        _say(f"{place} covers {', '.join(target.judging)}")
        return
    _say(f"warning: what judges can be changed without its owners; add to the end of {place}:")
    for line in codeowners.lines_to_add(missing, owners.rules if owners else [], target.owner):
        _say(f"  {line}")


def _say(text: str) -> None:
    """Tell the person; standard output is for the request's body."""
    from tiergate.render.text import printable

    click.echo(printable(text), err=True)
