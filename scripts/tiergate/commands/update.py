"""``tiergate update``: take over new numbers after a deliberate change."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tiergate.baseline import Comparison, Tests
    from tiergate.checkers import Context, Observation
    from tiergate.expectation import Bound, Outcomes

_SHOWN = 40


@click.command(
    "update",
    epilog=options.examples(
        "update",
        ("ISS-003", "show the old and the new numbers, and the tests gained and lost"),
        ("ISS-003 --apply", "write the new numbers into the spec"),
        ("collection --since v1.2", "compare the tests with another commit"),
        exits=(
            "the numbers are right, or were written",
            "a change was shown or refused",
            options.WRONG,
            options.UNABLE,
        ),
    ),
)
@click.argument("criterion_id", metavar="ID", shell_complete=options.criterion_ids)
@click.option("--apply", is_flag=True, help="Write the spec; without it the change is shown.")
@options.spec
@options.repo
@options.python
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where it is evaluated.  [default: the criterion's first device]",
)
@click.option(
    "--since",
    metavar="REF",
    help="The commit whose tests are compared.  [default: the last one that changed the spec]",
)
def command(
    criterion_id: str,
    apply: bool,
    spec_path: Path | None,
    repo: Path,
    python: str | None,
    device: str | None,
    since: str | None,
) -> int:
    """Take over the numbers of a criterion after a deliberate change.

    Evaluates the criterion, shows which tests were gained and lost since the spec was last
    changed, and rewrites the numbers of its `expect` in place: comments and layout stay. Only
    counts of what passed or was collected are taken over. A criterion that fails for another
    reason, such as a failed test, is refused: the gate would only hide it.
    """
    from tiergate import candidate, checkers, expect_file, spec
    from tiergate.environment import usable_cpus
    from tiergate.errors import ExitCode, UserError
    from tiergate.interruption import cancelled_by_signals
    from tiergate.repository import Repository
    from tiergate.verdict import write_atomically

    path = options.spec_of(spec_path, repo)
    gate = spec.load(path)
    criterion = gate.criterion(criterion_id)
    where = device or criterion.devices[0]
    if where not in criterion.devices:
        raise UserError(f"--device {where}: {criterion.id} is not judged there")
    repository = Repository(repo)
    interpreter = candidate.find_python(python, repository.root)
    checker = checkers.get(criterion.uses)
    outcomes = checker.outcomes(criterion.parameters)
    with cancelled_by_signals() as cancellation:
        judged = candidate.Candidate(interpreter, repository, gate, usable_cpus(), cancellation)
        context = checkers.Context(
            criterion, judged, "cuda" if where == "cuda" else "cpu", lambda _: None
        )
        seen = checker.observe(criterion.parameters, context)
        if seen.error:
            click.echo(f"{criterion.id}: could not be evaluated: {seen.error}", err=True)
            return ExitCode.NOT_EVALUATED
        _tell_tests(seen, context, path, since)
    if refused := _refused(criterion.expect, seen.counts, outcomes):
        click.echo(f"{criterion.id}: refused: {'; '.join(refused)}", err=True)
        for failure in seen.failures[:5]:
            click.echo(f"  {options.line(f'{failure.outcome}: {failure.id}')}", err=True)
        click.echo("mend that first, or waive it; numbers cannot make it right", err=True)
        return ExitCode.FAILED
    bounds = _new_bounds(criterion.expect, seen.counts, outcomes)
    if not bounds:
        click.echo(f"{criterion.id}: the numbers are right")
        return ExitCode.PASSED
    for name, bound in bounds.items():
        click.echo(f"{criterion.id}: {name}: {criterion.expect[name]} → {bound}")
    before = path.read_bytes()
    after = expect_file.rewrite(before, path, criterion.id, bounds)
    if apply:
        mode = path.stat().st_mode
        write_atomically(path, after)
        path.chmod(mode)
        click.echo(f"{path}: written")
        return ExitCode.PASSED
    lines = difflib.unified_diff(
        before.decode("utf-8-sig").splitlines(),
        after.decode("utf-8-sig").splitlines(),
        f"a/{path.name}",
        f"b/{path.name}",
        n=1,
        lineterm="",
    )
    click.echo("\n".join(lines))
    click.echo("nothing was written; --apply writes it", err=True)
    return ExitCode.FAILED


def _refused(
    expect: Mapping[str, Bound], counts: Mapping[str, int], outcomes: Outcomes
) -> list[str]:
    """Say what is wrong beyond the numbers that may be taken over."""
    from tiergate import expectation

    wrong = [
        str(mismatch)
        for mismatch in expectation.mismatches(expect, counts, outcomes)
        if mismatch.outcome not in expect
        or (mismatch.outcome not in outcomes.free and mismatch.observed > mismatch.expected.value)
    ]
    wrong += [f"no {name} at all" for name in outcomes.required if not counts.get(name)]
    return wrong


def _new_bounds(
    expect: Mapping[str, Bound], counts: Mapping[str, int], outcomes: Outcomes
) -> dict[str, Bound]:
    """Return the numbers that differ: counts as they are now, and fewer of what is held at most."""
    import msgspec

    return {
        name: msgspec.structs.replace(bound, value=counts.get(name, 0))
        for name, bound in expect.items()
        if not bound.base
        and counts.get(name, 0) != bound.value
        and (name in outcomes.free or not bound.at_least)
    }


def _tell_tests(seen: Observation, context: Context, path: Path, since: str | None) -> None:
    """Print the tests gained, lost and renamed since a commit, where they can be known."""
    from tiergate import base, baseline
    from tiergate.errors import UserError

    head = seen.tests.get("collected")
    if head is None:
        return
    ref = since or _last_change(path, context)
    if not ref:
        click.echo("tests gained and lost: unknown: the spec is not committed yet", err=True)
        return
    with base.checkout(context.candidate.repository, ref) as there:
        before = baseline.collect(there, context)
    if before.problem:
        problem = f"commit {there.commit[:12]} does not collect: {before.problem}"
        if since:
            raise UserError(problem)
        click.echo(f"tests gained and lost: unknown: {problem}", err=True)
        return
    click.echo(f"since commit {there.commit[:12]}:")
    _tell_difference(baseline.compare(before.tests, head), before.tests, head)


def _tell_difference(found: Comparison, before: Tests, head: Tests) -> None:
    renamed = {new for _, new in found.renamed}
    gained = [test for test in head if test not in before and test not in renamed]
    for sign, tests in (("+", gained), ("-", list(found.vanished))):
        for test in tests[:_SHOWN]:
            click.echo(f"  {sign} {options.line(test)}")
        if len(tests) > _SHOWN:
            click.echo(f"  {sign} and {len(tests) - _SHOWN} more")
    for old, new in found.renamed[:_SHOWN]:
        click.echo(f"  ~ {options.line(old)} → {options.line(new)}")
    if not (gained or found.vanished or found.renamed):
        click.echo("  no test was gained or lost")


def _last_change(path: Path, context: Context) -> str:
    """Return the last commit that changed the spec: its numbers were true then."""
    from tiergate.repository import git

    repository = context.candidate.repository
    if not repository.is_git:
        return ""
    name = str(path.resolve())
    return git(repository.root, "log", "-1", "--format=%H", "--", name).decode().strip()
