"""``tiergate init``: a first gate for a repository that has none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.candidate import Isolation
    from tiergate.repository import Repository
    from tiergate.start.gate_file import Waived
    from tiergate.start.judge_source import Package, Uses
    from tiergate.start.measure import Measured
    from tiergate.start.survey import Survey
    from tiergate.verdict import Part, Verdict

_MOST_FINDINGS = 25
"""Findings that are waived one by one; of more, the whole criterion is."""


@click.command(
    "init",
    epilog=options.examples(
        "init",
        ("--python .venv/bin/python", "look, measure, and write the files"),
        ("--dry-run", "print the files and write none"),
        ("--waive-failing --owner @acme/ml", "accept for 30 days what does not hold today"),
        ("--uses OWNER/tiergate@v1", "a workflow that uses the action"),
        exits=(
            "the written gate passes at once",
            "a criterion does not hold today; it is named, with the reason",
            options.WRONG + ", or there is nothing to hold",
            options.UNABLE,
        ),
    ),
)
@options.repo
@options.python
@click.option("--dry-run", is_flag=True, help="Print what would be written; write nothing.")
@click.option(
    "--owner",
    metavar="NAME",
    help="Who answers for the criteria and the waivers; with an @, also for CODEOWNERS.",
)
@click.option(
    "--waive-failing",
    is_flag=True,
    help="Record a waiver for each criterion that does not hold today; needs --owner.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 90),
    metavar="NUMBER",
    default=30,
    show_default=True,
    help="How long these waivers count from today, UTC.",
)
@click.option(
    "--judge",
    default="",
    metavar="PACKAGE",
    help="What the workflow installs the judge from, as pip takes it: git+https://…, a wheel, a "
    "release.  [default: where this one was installed from]",
)
@click.option(
    "--uses",
    default="",
    metavar="OWNER/REPO@REF",
    help="Let the workflow use the action there, or with the path of a workflow that workflow.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    metavar="SECONDS",
    default=600,
    show_default=True,
    help="For each criterion, now and in the spec.",
)
@options.isolation
def command(
    repo: Path,
    python: str | None,
    dry_run: bool,
    owner: str | None,
    waive_failing: bool,
    days: int,
    judge: str,
    uses: str,
    timeout: float,
    isolation: Isolation,
) -> int:
    """Look at a repository, measure it, and write its first gate.

    Finds packages, tests, docstring examples, calls of torch.load and model files; runs them once
    in the candidate's interpreter for true numbers; writes gate.yaml with its JSON schema, a
    workflow for GitHub and CODEOWNERS lines. A file that is there already is never changed.
    """
    from tiergate import candidate
    from tiergate.environment import usable_cpus
    from tiergate.errors import ExitCode, UserError
    from tiergate.interruption import cancelled_by_signals
    from tiergate.repository import Repository
    from tiergate.start import gate_file, judge_source, measure, survey
    from tiergate.start.drafts import drafts as drafts_of

    target = repo / "gate.yaml"
    if target.exists() and not dry_run:
        raise UserError(
            f"{target}: is there already, and init never overwrites; `tiergate run` judges by it, "
            "`tiergate init --dry-run` prints what a first gate would be"
        )
    if waive_failing and not (owner or "").strip():
        raise UserError("--waive-failing: say with --owner NAME who sees to it that it ends")
    source = judge_source.chosen(judge, uses)
    repository = Repository(repo)
    seen = survey.survey(repository)
    if not (seen.projects or seen.sources or seen.models):
        raise UserError(
            f"{repository.root}: no package, test, notebook or model file to hold; "
            "add code first, or write gate.yaml by hand (`tiergate schema` describes it)"
        )
    interpreter = candidate.find_python(python, repository.root)
    _tell_survey(seen, repository, interpreter)
    jobs = max(1, min(usable_cpus(), len(drafts_of(seen, has_pytest=True))))
    with (
        cancelled_by_signals() as cancellation,
        candidate.warmed(
            measure.candidate_of(interpreter, repository, seen.roots, cancellation, jobs=jobs),
            "cpu",
            isolation,
        ) as judged,
    ):
        has_pytest = measure.has_pytest(judged)
        drafts = drafts_of(seen, has_pytest=has_pytest)
        if not has_pytest and _tests(seen):
            click.echo(
                f"note: {interpreter} has no pytest, so no test can be counted: "
                f"{interpreter} -m pip install pytest",
                err=True,
            )
        if not drafts:
            raise UserError(f"{repository.root}: nothing here that could be held without pytest")
        text = gate_file.render(seen, drafts, timeout=timeout, has_pytest=has_pytest)
        measured = measure.measure(drafts, text, judged, jobs=jobs, listener=_Listener())
    failing = [m for m in measured if m.problem]
    waived = _waivers(failing, (owner or "").strip(), days) if waive_failing else []
    text = gate_file.render(
        seen,
        [m.draft for m in measured],
        timeout=timeout,
        has_pytest=has_pytest,
        owner=owner or "",
        waivers=waived,
    )
    _tell_measured(measured, waived=waive_failing)
    _write(_files(repository, seen, text, owner or "", source), repo, source, dry_run=dry_run)
    if failing and not waive_failing:
        click.echo(
            f"\n{len(failing)} of {len(measured)} criteria do not hold today: mend them, or run "
            "init again with --waive-failing --owner NAME, or `tiergate waive ID`.",
            err=True,
        )
        return ExitCode.FAILED
    words = f" --python {python}" if python else ""
    if not dry_run:
        click.echo(f"\nnext: tiergate run{words}, then commit what was written", err=True)
    return ExitCode.PASSED


class _Listener:
    """Tells a person who waits what is measured."""

    def started(self, cell: str) -> None:
        """Say that a measurement began."""
        click.echo(f"  measuring {cell.rpartition('@')[0]} …", err=True)

    def progress(self, cell: str, what: str) -> None:
        """Stay silent about single tests."""

    def expected(self, cell: str, tests: int) -> None:
        """Stay silent about their number."""

    def finished(self, verdict: Verdict) -> None:
        """Stay silent: the numbers come together."""

    def observed(self, part: Part) -> None:
        """Stay silent: nothing is measured in parts."""


def _tests(seen: Survey) -> int:
    """Return how many files have tests, for pytest or for unittest alone."""
    return len(seen.test_files) + sum(len(p.unittest_only) for p in seen.projects)


def _tell_survey(seen: Survey, repository: Repository, interpreter: Path) -> None:
    from tiergate.start import drafts

    modules = [module.name for project in seen.projects for module in project.modules]
    tests = _tests(seen)
    rows = [
        ("modules", ", ".join(modules[:6]) + (" …" if len(modules) > 6 else "") or "none"),
        ("test files", str(tests)),
        (
            "torch.load",
            f"called in {len(seen.loads)} file{'s' * (len(seen.loads) != 1)}"
            if seen.loads
            else "no call",
        ),
        ("model files", str(len(seen.models))),
        ("interpreter", str(interpreter)),
    ]
    for name, value in rows:
        click.echo(f"  {name:<14} {value}", err=True)
    if len(modules) > drafts.MOST_IMPORTS:
        click.echo(
            f"note: the imports of {drafts.MOST_IMPORTS} of {len(modules)} modules are held; add "
            "the others that matter",
            err=True,
        )
    if not tests:
        click.echo("note: no tests found; gate.yaml shows how to add them", err=True)
    if not repository.is_git:
        click.echo(
            "note: not a git repository: the gate works, but cannot compare with a base; git init",
            err=True,
        )
    for folder in seen.environments:
        click.echo(
            f"note: {folder} is a virtual environment that belongs to the repository: add it to "
            ".gitignore",
            err=True,
        )


def _tell_measured(measured: list[Measured], *, waived: bool) -> None:
    from tiergate.render.text import one_line

    click.echo("", err=True)
    for one in measured:
        if one.problem:
            word = "waived" if waived else "does not hold"
            click.echo(f"  {one.draft.id:<24} {word}: {one_line(one.problem)[:200]}", err=True)
            for failure in one.verdict.evidence.failures[:3]:
                said = one_line(f"{failure.id}: {failure.message}")[:160]
                click.echo(f"    {failure.outcome}: {said}", err=True)
            for finding in one.verdict.evidence.findings[:3]:
                said = one_line(f"{finding.path}:{finding.line}: {finding.message}")[:160]
                click.echo(f"    {said}", err=True)
        else:
            counted = one.verdict.evidence.observed
            said = ", ".join(f"{number} {outcome}" for outcome, number in counted.items())
            click.echo(f"  {one.draft.id:<24} holds{': ' * bool(said)}{said}", err=True)


def _waivers(failing: list[Measured], owner: str, days: int) -> list[Waived]:
    from datetime import datetime, timedelta, timezone

    from tiergate.start.gate_file import Waived

    expires = (datetime.now(timezone.utc).date() + timedelta(days=days)).isoformat()
    made = []
    for one in failing:
        evidence, name = one.verdict.evidence, one.draft.id
        findings = evidence.findings
        if evidence.mismatches == ["findings"] and len(findings) <= _MOST_FINDINGS:
            reason = "there when the gate was written"
            for found in findings:
                about = {
                    "rule": found.rule,
                    "path": found.path,
                    "fingerprint": found.fingerprint,
                }
                made.append(Waived(name, reason, owner, expires, about))
        else:
            reason = f"so when the gate was written: {one.problem[:200]}"
            made.append(Waived(name, reason, owner, expires))
    return made


def _files(
    repository: Repository, seen: Survey, text: str, owner: str, source: Package | Uses
) -> dict[str, str]:
    from tiergate import schema
    from tiergate.start import gate_file, github_files

    document = json.dumps(schema.gate_schema(), indent=1, ensure_ascii=False)
    files = {
        "gate.yaml": text,
        gate_file.SCHEMA_NAME: f"{document}\n",
        github_files.WORKFLOW: github_files.workflow(
            repository, [p.folder for p in seen.projects], source
        ),
    }
    if owner.startswith("@"):
        place = next(
            (p for p in github_files.OWNERS_PLACES if (repository.root / p).exists()),
            github_files.OWNERS_PLACES[0],
        )
        files[place] = github_files.owner_lines(owner, "gate.yaml")
    return files


def _write(files: dict[str, str], repo: Path, source: Package | Uses, *, dry_run: bool) -> None:
    """Write the files that are not there yet; print the lines for code owners that are."""
    from tiergate.render import fold
    from tiergate.start import gate_file, github_files
    from tiergate.verdict import write_atomically

    click.echo("", err=True)
    for name, text in files.items():
        path = repo / name
        if dry_run:
            if name != gate_file.SCHEMA_NAME:
                click.echo(f"# --- {name}\n{text}")
        elif path.exists():
            click.echo(f"kept {path}: it is there already", err=True)
            if path.name == "CODEOWNERS":
                click.echo(f"  it may want these lines:\n{text}".rstrip(), err=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
            click.echo(f"wrote {path}", err=True)
            if name == github_files.WORKFLOW:
                lines = fold.words("  ", _source(source), fold.columns(sys.stderr))
                click.echo("\n".join(lines), err=True)


def _source(source: Package | Uses) -> str:
    """Say where the workflow gets the judge from."""
    from tiergate.start.judge_source import Package

    if not isinstance(source, Package):
        return f"it uses {source.name}; pin it by commit"
    if source.requirement:
        return f"it installs {source.requirement}"
    return (
        "it is red until TIERGATE in it names what pip installs the judge from, such as "
        f"git+https://…: {source.why_unknown}"
    )
