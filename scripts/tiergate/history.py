"""How long cells, files and tests took, and how they ended: what balances, and never decides.

A run leaves its record beside its report. On a laptop records are kept in SQLite in the user's
cache; elsewhere in one JSON file. What cannot be read or written is said, and is no history.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tiergate.environment import in_ci
from tiergate.verdict import Run, write_atomically

if TYPE_CHECKING:
    from tiergate.splitting import Durations

SCHEMA_VERSION = 1
TIMINGS_NAME = "timings.json"
HISTORY_NAME = "history.json"

KEPT_RUNS = 50
"""Of each device; the oldest go first."""
KEPT_BYTES = 32 * 2**20
"""Of all records, compressed."""
_RECENT = 5
"""What is expected is the median of so many runs."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a history."""


class CellRecord(_Record, frozen=True):
    """How a cell, or a shard's part of it, went."""

    status: str
    """The verdict's; ``part`` where a shard saw only a part."""
    seconds: float
    files: dict[str, float] = {}
    tests: dict[str, tuple[str, float]] = {}
    """Test id → outcome and seconds."""


class RunRecord(_Record, frozen=True, tag_field="kind", tag="tiergate-timings"):
    """One leg's run."""

    schema_version: int
    started: str
    """UTC, ISO 8601."""
    device: str
    commit: str
    tree: str
    """The digest of the state that was judged."""
    cells: dict[str, CellRecord]
    shard: str = ""
    run: Run = Run()


class History(_Record, frozen=True, tag_field="kind", tag="tiergate-history"):
    """Runs, the oldest first."""

    schema_version: int
    runs: list[RunRecord]


class HistoryError(Exception):
    """A history that cannot be read or written; it is said, and decides nothing."""


def durations(runs: Sequence[RunRecord]) -> Durations:
    """Return what cells and files are expected to take: the median of the latest runs."""
    from tiergate.splitting import Durations  # noqa: PLC0415 - not where nothing is evaluated

    cells: dict[str, list[float]] = {}
    files: dict[str, dict[str, list[float]]] = {}
    for run in _together(runs):
        for cell, record in run.cells.items():
            if record.status not in {"blocked", "part"}:
                cells.setdefault(cell, []).append(record.seconds)
            for file, seconds in record.files.items():
                files.setdefault(cell, {}).setdefault(file, []).append(seconds)
    return Durations(
        {cell: _usual(seconds) for cell, seconds in cells.items()},
        {c: {f: _usual(seconds) for f, seconds in found.items()} for c, found in files.items()},
    )


def _usual(seconds: Sequence[float]) -> float:
    from statistics import median  # noqa: PLC0415 - as above

    return round(median(seconds[-_RECENT:]), 3)


def _together(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Put the shards of one run of a workflow together, the oldest run first.

    The overhead of each session but the longest is left out: one piece has it once.
    """
    result: dict[object, RunRecord] = {}
    for number, run in enumerate(sorted(runs, key=lambda run: run.started)):
        key = (run.device, run.commit, run.run) if run.shard and run.run.id else number
        known = result.get(key)
        result[key] = run if known is None else _joined(known, run)
    return list(result.values())


def _joined(one: RunRecord, other: RunRecord) -> RunRecord:
    cells = dict(one.cells)
    for cell, record in other.cells.items():
        known = cells.get(cell)
        if known is None:
            cells[cell] = record
            continue
        files = {**known.files, **record.files}
        overheads = [r.seconds - sum(r.files.values()) for r in (known, record)]
        cells[cell] = CellRecord(
            status="joined" if "part" in {known.status, record.status} else record.status,
            seconds=round(sum(files.values()) + max(*overheads, 0.0), 3),
            files=files,
            tests={**known.tests, **record.tests},
        )
    return msgspec.structs.replace(one, cells=cells)


def whole(runs: Sequence[RunRecord], statuses: Mapping[str, str]) -> list[RunRecord]:
    """Put the shards of a run together to what one leg would have recorded.

    Args:
        runs: of one run of a workflow.
        statuses: how each cell ended, once its parts were judged together.
    """
    return [
        msgspec.structs.replace(
            run,
            shard="",
            cells={
                name: msgspec.structs.replace(cell, status=statuses.get(name, cell.status))
                for name, cell in run.cells.items()
            },
        )
        if run.shard
        else run
        for run in _together(runs)
    ]


def kept(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs that are kept, each once, the oldest first."""
    unique = {(r.started, r.device, r.shard, r.commit, r.run): r for r in runs}
    newest = sorted(unique.values(), key=lambda r: (r.started, r.device, r.shard), reverse=True)
    result: list[RunRecord] = []
    seen: dict[str, set[object]] = {}
    size = 0
    for run in newest:
        group = seen.setdefault(run.device, set())
        group.add((run.commit, run.run) if run.shard and run.run.id else id(run))
        size += len(packed(run))
        if len(group) > KEPT_RUNS or (result and size > KEPT_BYTES):
            break
        result.append(run)
    return result[::-1]


def packed(run: RunRecord) -> bytes:
    """Return a run compressed."""
    return zlib.compress(msgspec.json.encode(run), 1)


def read_files(paths: Iterable[Path]) -> tuple[list[RunRecord], list[str]]:
    """Read histories and single runs from files, or from folders; also say what was unreadable."""
    runs: list[RunRecord] = []
    problems = []
    for path in paths:
        names = (TIMINGS_NAME, HISTORY_NAME)
        found = [f for n in names for f in sorted(path.rglob(n))] if path.is_dir() else [path]
        if not found:
            problems.append(f"{path}: no {TIMINGS_NAME} and no {HISTORY_NAME} in it")
        for file in found:
            try:
                runs += _decode(file.read_bytes(), file)
            except OSError as error:
                problems.append(f"{file}: {error.strerror}")
            except HistoryError as error:
                problems.append(str(error))
    return kept(runs), problems


def _decode(data: bytes, name: Path) -> list[RunRecord]:
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise HistoryError(
                f"{name}: of schema version {version}; this tiergate reads {SCHEMA_VERSION}"
            )
        found = msgspec.json.decode(data, type=RunRecord | History)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HistoryError(f"{name}: not a readable history: {error}") from None
    return found.runs if isinstance(found, History) else [found]


class _Version(msgspec.Struct):
    schema_version: int


def encode(runs: Sequence[RunRecord]) -> bytes:
    """Return the one file of all runs."""
    return msgspec.json.encode(History(SCHEMA_VERSION, kept(runs))) + b"\n"


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        HistoryError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be written: {error.strerror}") from None


def database(root: Path, environment: Mapping[str, str]) -> Path | None:
    """Return the file that keeps a repository's history, or None where none is to be kept.

    In CI it is not: another run would find what the head left there.
    """
    if in_ci(environment):
        return None
    home = environment.get("HOME", "")
    base = environment.get("XDG_CACHE_HOME", "") or (f"{home}/.cache" if home else "")
    if not Path(base).is_absolute():
        return None
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    return Path(base, "tiergate", "history", f"{name}.sqlite")
