"""The history of one repository in SQLite, on a laptop."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from tiergate.history import KEPT_BYTES, KEPT_RUNS, RunRecord, packed

Say = Callable[[str], object]
Work = Callable[[sqlite3.Connection], list[RunRecord]]

_BUSY_SECONDS = 10.0


class Database:
    """The runs of one repository in SQLite, safe under concurrent runs.

    Args:
        path: the file; it is made when something is added.
        say: is told what went wrong, in a line.
    """

    def __init__(self, path: Path, say: Say) -> None:
        self._path = path
        self._say = say

    def add(self, runs: Iterable[RunRecord]) -> None:
        """Keep runs, and drop the oldest that are too many."""
        rows = [(run.started, run.device, run.shard, run.commit, packed(run)) for run in runs]

        def write(connection: sqlite3.Connection) -> list[RunRecord]:
            with connection:
                connection.executemany("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?)", rows)
                connection.execute(_DROP_MANY, (KEPT_RUNS,))
                connection.execute(_DROP_LARGE, (KEPT_BYTES,))
            return []

        self._do(write)

    def runs(self) -> list[RunRecord]:
        """Return the runs, the oldest first; none where they cannot be read."""
        return self._do(_all_runs) if self._path.exists() else []

    def _do(self, work: Work) -> list[RunRecord]:
        for attempt in (1, 2):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with _connected(self._path) as connection:
                    return work(connection)
            except sqlite3.OperationalError as error:
                self._say(f"history: {self._path}: {error}; this run is not in it")
                return []
            except (sqlite3.DatabaseError, zlib.error, msgspec.DecodeError) as error:
                if attempt == 2:
                    self._say(f"history: {self._path}: {error}; there is none")
                    return []
                self._say(f"history: {self._path} was damaged ({error}); it is started afresh")
                self._remove()
            except OSError as error:
                self._say(f"history: {self._path}: {error.strerror}; this run is not in it")
                return []
        return []

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    started TEXT, device TEXT, shard TEXT, commit_id TEXT, record BLOB,
    PRIMARY KEY (started, device, shard, commit_id)
) WITHOUT ROWID
"""
_DROP_MANY = """
DELETE FROM runs WHERE (started, device, shard, commit_id) IN (
    SELECT started, device, shard, commit_id FROM (
        SELECT *, row_number() OVER (PARTITION BY device, shard ORDER BY started DESC) AS age
        FROM runs
    ) WHERE age > ?
)
"""
_DROP_LARGE = """
DELETE FROM runs WHERE (started, device, shard, commit_id) IN (
    SELECT started, device, shard, commit_id FROM (
        SELECT *, row_number() OVER newest AS age, sum(length(record)) OVER newest AS size
        FROM runs WINDOW newest AS (ORDER BY started DESC, device, shard)
    ) WHERE size > ? AND age > 1
)
"""


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
        connection.execute(_TABLE)
        yield connection


def _all_runs(connection: sqlite3.Connection) -> list[RunRecord]:
    rows = connection.execute("SELECT record FROM runs ORDER BY started, device, shard")
    return [msgspec.json.decode(zlib.decompress(row), type=RunRecord) for (row,) in rows]
