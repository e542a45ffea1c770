"""``tiergate report``: turn reports into what people and machines read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.fields import Device
    from tiergate.render.formats import Rendering
    from tiergate.verdict import Report

# Named here, so that --help need not import the renderers.
FORMATS = (
    "badge", "github", "html", "json", "junit", "markdown", "pr-comment", "sarif", "text",
)  # fmt: skip


@click.command(
    "report",
    epilog=options.examples(
        "report",
        ("--to html .tiergate -o report.html", "the last run, as a page that needs no network"),
        ("--to junit .tiergate/report.json -o junit.xml", "for a CI's list of tests"),
        ("--to sarif reports/ -o tiergate.sarif", "for code scanning"),
        ('--to markdown reports/ >> "$GITHUB_STEP_SUMMARY"', "the job summary of all legs"),
        ("--to pr-comment --post octo/transformer#7", "say it on the pull request"),
        exits=(
            "it was written, whatever the decision says",
            "",
            options.WRONG + ", or GitHub refuses it",
            "it could not be written or posted",
        ),
    ),
)
@click.argument("reports", nargs=-1, metavar="REPORT…", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "format_name",
    type=click.Choice(FORMATS),
    required=True,
    help="What to write.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write, whole or not at all.  [default: standard output]",
)
@options.spec
@options.repo
@click.option(
    "--device",
    "devices",
    type=click.Choice(["cpu", "cuda"]),
    multiple=True,
    help="Expect this leg; repeatable.  [default: the legs of the reports]",
)
@options.histories(
    "For html, show how the cells went in the runs of this file or folder; repeatable.  "
    "[default: this machine's own runs; none in CI]"
)
@options.shard_plan
@options.allow_weakening
@click.option(
    "--post",
    metavar="OWNER/REPO#NUMBER",
    help="Post the pr-comment on this pull request, or replace the one that is there. The token "
    "comes from GITHUB_TOKEN or GH_TOKEN.",
)
@click.option(
    "--post-as",
    metavar="LOGIN",
    help="Whose comment is replaced: the login of the token.  [default: github-actions[bot]]",
)
def command(
    reports: tuple[Path, ...],
    format_name: str,
    output: Path | None,
    spec_path: Path | None,
    repo: Path,
    devices: tuple[Device, ...],
    histories: tuple[Path, ...],
    plan_path: Path | None,
    allow_weakening: bool,
    post: str | None,
    post_as: str | None,
) -> int:
    """Show reports in another format: of one leg, or of all legs together.

    REPORT is a report.json, or a folder in which every one counts; without any it is the
    repository's .tiergate. The spec that the reports were made from must be at hand. This command
    shows and judges nothing: whether the gate passes is for `tiergate decide` to say.
    """
    from tiergate.errors import NotEvaluatedError, UserError
    from tiergate.render import formats
    from tiergate.verdict import write_atomically

    if (post is not None and format_name != "pr-comment") or (post_as and post is None):
        raise UserError("--post belongs to --to pr-comment, and --post-as to --post")
    found = rendering(
        reports or (repo / ".tiergate",),
        options.spec_of(spec_path, repo),
        repo,
        devices,
        plan_path=plan_path,
        allow_weakening=allow_weakening,
    )
    if format_name == "html":
        from dataclasses import replace

        from tiergate.commands.history import known_runs
        from tiergate.repository import Repository

        runs = known_runs(Repository(repo).root, histories)
        found = replace(found, history=tuple(runs))
    data = formats.render(format_name, found).encode("utf-8", "backslashreplace")
    if post is not None:
        _post(post, data.decode(), post_as)
        if output is None:
            return 0
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output.resolve(), data)
    except OSError as error:
        raise NotEvaluatedError(f"-o {output}: cannot write it: {error.strerror}") from None
    return 0


def _post(place: str, body: str, author: str | None) -> None:
    from tiergate.github import comments
    from tiergate.github.client import Client, understood

    repository, number = comments.pull_request(place)
    client = Client(permission=comments.PERMISSION)
    with understood():
        outcome = comments.post(client, repository, number, body, author or comments.ACTIONS)
    click.echo(f"tiergate: {repository}#{number}: the comment is {outcome}", err=True)


def rendering(
    paths: tuple[Path, ...],
    spec_path: Path,
    repo: Path,
    devices: tuple[Device, ...] = (),
    *,
    plan_path: Path | None = None,
    allow_weakening: bool = False,
) -> Rendering:
    """Decide over the reports as they are, of whichever state of the repository they agree on."""
    from datetime import datetime, timezone

    from tiergate import base, decide, shards, spec, verdict
    from tiergate.commands.decide import files
    from tiergate.errors import UserError
    from tiergate.render.formats import Rendering
    from tiergate.repository import Repository

    read: list[Report] = []
    unreadable = []
    for path in files(paths):
        try:
            read.append(verdict.read(path))
        except verdict.ReportError as error:
            unreadable.append(str(error))
    if not read and not unreadable:
        raise UserError(f"{', '.join(map(str, paths))}: no report.json there; make one with run")
    # Without a base in any report there is none to compare with: the gate.yaml at hand decides.
    commit = next((report.base.commit for report in read if report.base), "")
    specs = base.specs(Repository(repo), commit, spec_path) if commit else None
    gate = specs.base if specs else spec.load(spec_path)
    if absent := [device for device in devices if device not in gate.devices]:
        raise UserError(f"--device {absent[0]}: {gate.path} has no such leg")
    # What cannot be read may be of any leg: then all of them are expected.
    legs = devices or (() if unreadable else tuple(dict.fromkeys(r.device for r in read)))
    decision = decide.decide(
        gate,
        read,
        devices=legs or None,
        only=_chosen(read),
        unreadable=unreadable,
        today=datetime.now(timezone.utc).date(),
        base=commit,
        head=specs.head if specs else None,
        allow_weakening=allow_weakening,
        shards=shards.read(plan_path) if plan_path is not None else None,
    )
    return Rendering(decision, tuple(read))


def _chosen(reports: list[Report]) -> frozenset[str] | None:
    """Return the criteria that the reports were made of, where a run chose some."""
    if all(set(report.selected) == set(report.planned) for report in reports):
        return None
    return frozenset(name.partition("@")[0] for report in reports for name in report.selected)
