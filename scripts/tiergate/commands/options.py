"""Options that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tiergate.cache import Cache

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def criterion_ids(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a criterion's id from the spec that the command line names."""
    del parameter
    from click.shell_completion import CompletionItem

    from tiergate import spec
    from tiergate.errors import UserError

    repo = Path(context.params.get("repo") or ".")
    try:
        gate = spec.load(spec_of(context.params.get("spec_path"), repo))
    except UserError:
        return []  # a shell has no place for the message
    return [
        CompletionItem(criterion.id, help=criterion.name)
        for criterion in gate.criteria
        if criterion.id.startswith(incomplete)
    ]


WRONG = "the spec or the command line is wrong"
UNABLE = "something could not be evaluated: a crash, a timeout, no device"


def examples(name: str, *lines: tuple[str, str], exits: Sequence[str] = ()) -> str:
    """Return the end of a command's help: examples, and what its exit codes mean.

    Args:
        name: the command.
        lines: what is behind ``tiergate name``, and what it does.
        exits: the meanings of the exit codes from 0; empty for one that it never has.
    """
    shown = [f"  {f'tiergate {name} {words}'.rstrip()}\n      {what}" for words, what in lines]
    parts = ["\b\nExamples:\n" + "\n".join(shown)]
    codes = [f"  {code}  {meaning}" for code, meaning in enumerate(exits) if meaning]
    if codes:
        parts.append("\b\nExit codes:\n" + "\n".join(codes))
    return "\n\n".join(parts)


spec = click.option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path),
    help="The spec.  [default: gate.yaml of the repository]",
)
repo = click.option(
    "--repo",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="The repository to judge.  [default: the current folder]",
)
python = click.option(
    "--python",
    metavar="PATH",
    help="The candidate's interpreter.  [default: the active environment's, or .venv's]",
)


base = click.option(
    "--base",
    "base_ref",
    metavar="REF",
    help="Compare with this commit, and take the spec from it: the branch to merge into.",
)
allow_weakening = click.option(
    "--allow-weakening",
    is_flag=True,
    help="Let a head pass that weakens the base's spec; the report shows how.",
)
shard_plan = click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The plan of shards, from `tiergate plan --shards`.",
)


def histories(text: str) -> Callable[[_Decorated], _Decorated]:
    """Return the option that names files with recorded runs; ``text`` says what for."""
    return click.option(
        "--history",
        "histories",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help=text,
    )


isolation = click.option(
    "--isolation",
    type=click.Choice(["fork", "process"]),
    default="fork" if sys.platform.startswith("linux") else "process",
    show_default=True,
    help="fork: one interpreter imports torch, numpy and pytest, and forks a process for each "
    "cell; process: each cell gets a fresh interpreter. Cells on CUDA always do.",
)
cache = click.option(
    "--cache/--no-cache",
    default=None,
    help="Answer cells from the cache whose inputs are what they were when they last passed.  "
    "[default: yes, but not under CI]",
)


@contextmanager
def opened_cache(directory: Path, *, asked: bool | None) -> Iterator[Cache | None]:
    """Yield the cache of verdicts, or None where none is wanted.

    Args:
        directory: where it lies for a user without a folder for caches.
        asked: what ``--cache`` or ``--no-cache`` said.
    """
    from tiergate import cache_cells
    from tiergate.cache import Cache

    path = cache_cells.place(os.environ, directory, asked=asked)
    if path is None:
        yield None
        return
    kept = Cache(path, lambda text: click.echo(f"tiergate: {text}", err=True))
    try:
        yield kept
    finally:
        kept.close()


def _words(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    del context, parameter
    words = (word for value in values for word in value.replace(",", " ").split())
    return tuple(dict.fromkeys(words))


def _devices(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    words = _words(context, parameter, values)
    for word in words:
        if word not in {"cpu", "cuda"}:
            raise click.BadParameter(f"{word!r} is not one of 'cpu', 'cuda'.")
    return words


only = click.option(
    "--only",
    metavar="ID[,ID…]",
    multiple=True,
    callback=_words,
    shell_complete=criterion_ids,
    help="Only this criterion; repeatable. No tier is decided then.",
)
devices = click.option(
    "--device",
    "devices",
    metavar="[cpu|cuda][,…]",
    multiple=True,
    callback=_devices,
    help="Only this leg; repeatable.  [default: every leg of the spec]",
)


def spec_of(spec_path: Path | None, repo: Path) -> Path:
    """Return which spec to read."""
    return spec_path if spec_path is not None else repo / "gate.yaml"


def line(text: str) -> str:
    """Return text that candidate code may have written, as one harmless line."""
    from tiergate.render.text import one_line

    return one_line(text)
