"""``tiergate cache``: what is kept of earlier runs, and why a cell is evaluated again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiergate.commands import options

if TYPE_CHECKING:
    from tiergate.cache import Cache
    from tiergate.fields import Device


@click.group(
    "cache",
    epilog=options.examples(
        "cache",
        ("show", "which cells have an answer"),
        ("why ISS-003", "what changed since, so that it is evaluated again"),
        ("clear", "forget the answers of this repository"),
        exits=("it was done", "", options.WRONG, options.UNABLE),
    ),
)
def command() -> None:
    """Look into the verdicts that `tiergate run` answers from, or forget them."""


@command.command("show")
@options.repo
def show(repo: Path) -> int:
    """List the cells of this repository that have an answer."""
    import time

    kept = _cache(repo)
    root = str(repo.resolve())
    for cell, count, size, used in kept.cells(root):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(used))
        number = f"{count} answer{'s' * (count > 1)}"
        click.echo(f"{cell:<20} {number:<10} {size / 1024:8.0f} KiB  last used {when}")
    click.echo(str(kept.path))
    kept.close()
    return 0


@command.command("clear")
@options.repo
@click.option("--all", "everything", is_flag=True, help="The answers of every repository.")
def clear(repo: Path, everything: bool) -> int:
    """Forget the answers of this repository."""
    kept = _cache(repo)
    gone = kept.clear(None if everything else str(repo.resolve()))
    kept.close()
    click.echo(f"{gone} answer{'s' * (gone != 1)} forgotten")
    return 0


@command.command(
    "why",
    short_help="Say why a cell was evaluated again.",
    epilog=options.examples(
        "cache why", ("ISS-003 --device cuda", "what changed since the GPU's leg last passed")
    ),
)
@click.argument("criterion", metavar="CELL")
@options.spec
@options.repo
@options.python
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), metavar="NUMBER", help="As for `tiergate run`.")
def why(
    criterion: str,
    spec_path: Path | None,
    repo: Path,
    python: str | None,
    device: Device,
    jobs: int | None,
) -> int:
    """Say why a cell was evaluated again, by the name of what changed, and why it would be now."""
    from tiergate import candidate, plan, spec
    from tiergate.cache_cells import Session
    from tiergate.environment import usable_cpus
    from tiergate.errors import UserError
    from tiergate.processes import Cancellation
    from tiergate.repository import Repository
    from tiergate.verdict import cell_name

    repository = Repository(repo)
    gate = spec.load(options.spec_of(spec_path, repo))
    name, _, named_device = criterion.partition("@")
    device = {"cpu": "cpu", "cuda": "cuda"}.get(named_device, device)  # type: ignore[assignment]
    gate.criterion(name)
    cells = {cell.name: cell for cell in plan.cells(gate, device)}
    wanted = cell_name(name, device)
    if wanted not in cells:
        raise UserError(f"{name}: not judged on {device!r} by {gate.path}")
    jobs = jobs or min(usable_cpus(), len(cells))
    judged = candidate.Candidate(
        candidate.find_python(python, repository.root),
        repository,
        gate,
        max(1, usable_cpus() // jobs),
        Cancellation(),
    )
    kept = _cache(repo)
    moment, reasons = kept.told(str(repository.root), wanted, "run")
    if moment:
        click.echo(f"evaluated on {moment}, because of")
        _listed(reasons)
        _, refused = kept.told(str(repository.root), wanted, "kept")
        if any(refused):
            click.echo("what came of it was not kept:")
            _listed(refused)
    verdict, now = Session(kept, judged, device).why(cells[wanted], judged)
    kept.close()
    if verdict is not None and verdict.cached is not None:
        click.echo(f"now: answered from the run of {verdict.cached.at}")
    else:
        click.echo("now: it would be evaluated, because of")
        _listed(now)
    return 0


def _listed(reasons: list[str]) -> None:
    from tiergate.render.text import one_line

    for reason in reasons:
        click.echo(f"  {one_line(reason)}")


def _cache(repo: Path) -> Cache:
    from tiergate import cache_cells
    from tiergate.cache import Cache

    path = cache_cells.place(os.environ, repo / ".tiergate", asked=True)
    assert path is not None
    return Cache(path, lambda text: click.echo(f"tiergate: {text}", err=True))
