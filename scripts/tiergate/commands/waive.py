"""``tiergate waive``: write a waiver into the spec, its comments and layout kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.verdict import Finding


@click.command(
    "waive",
    epilog=options.examples(
        "waive",
        ("ISS-004 --reason vendored --owner sec", "the whole verdict, for 30 days"),
        (
            "ISS-004 --finding src/a.py:12 --reason vendored --owner sec",
            "one finding alone",
        ),
        exits=("it was written", "", options.WRONG + ", or there is no such finding"),
    ),
)
@click.argument("criterion_id", metavar="ID", shell_complete=options.criterion_ids)
@options.spec
@options.repo
@click.option("--reason", required=True, help="Why this is acceptable for now.")
@click.option("--owner", required=True, help="Who sees to it that it ends.")
@click.option(
    "--days",
    type=click.IntRange(1, 90),
    metavar="NUMBER",
    default=30,
    show_default=True,
    help="How long it counts from today, UTC.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Only the cell on this device.")
@click.option(
    "--finding",
    "place",
    metavar="FILE:LINE",
    help="Only the finding there, as the report has it; the whole verdict by default.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="The report with the finding.  [default: .tiergate/report.json of the repository]",
)
def command(
    criterion_id: str,
    spec_path: Path | None,
    repo: Path,
    reason: str,
    owner: str,
    days: int,
    device: str | None,
    place: str | None,
    report: Path | None,
) -> int:
    """Add a waiver for a criterion, or for one of its findings, to the spec.

    The gate lists it in every decision, warns before it ends, and fails when it has expired or
    matches nothing any more.
    """
    from datetime import datetime, timedelta, timezone

    from tiergate import spec, waiver_file
    from tiergate.errors import UserError
    from tiergate.verdict import write_atomically

    path = options.spec_of(spec_path, repo)
    criterion = spec.load(path).criterion(criterion_id)
    if not (reason.strip() and owner.strip()):
        raise UserError("--reason and --owner must say something")
    entry: dict[str, object] = {"criterion": criterion.id}
    if device:
        entry["device"] = device
    if place:
        found = _finding(criterion.id, place, report or repo / ".tiergate" / "report.json")
        entry["finding"] = {
            "rule": found.rule,
            "path": found.path,
            "fingerprint": found.fingerprint,
        }
    expires = datetime.now(timezone.utc).date() + timedelta(days=days)
    entry |= {"reason": reason.strip(), "owner": owner.strip(), "expires": expires.isoformat()}
    before = path.read_bytes()
    after = waiver_file.add(before, entry)
    # Never leave a spec behind that cannot be read.
    try:
        added = len(spec.parse(after, path).waivers) - len(spec.parse(before, path).waivers)
    except spec.SpecError:
        added = 0
    if added != 1:
        raise UserError(
            f"{path}: cannot add a waiver to this layout; write `waivers:` in block style by hand"
        )
    write_atomically(path, after)
    click.echo(f"{path}: waived {criterion.id} until {expires} (owner: {owner})")
    return 0


def _finding(criterion_id: str, place: str, report_path: Path) -> Finding:
    from tiergate import verdict
    from tiergate.errors import UserError

    name, _, line = place.rpartition(":")
    findings = [
        finding
        for judged in verdict.read(report_path).verdicts
        if judged.criterion == criterion_id
        for finding in judged.evidence.findings
    ]
    here = [f for f in findings if f.path == name and str(f.line) == line]
    if len({finding.fingerprint for finding in here}) != 1:
        places = ", ".join(f"{finding.path}:{finding.line}" for finding in findings[:10])
        raise UserError(
            f"--finding {place}: {'no' if not here else 'more than one'} finding of {criterion_id} "
            f"there in {report_path}; it has: {places or 'none'}"
        )
    return here[0]
