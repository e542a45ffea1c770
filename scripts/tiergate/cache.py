"""Verdicts kept on a laptop: a SQLite file in the user's cache that several runs may share."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from tiergate.cache_facts import Fact
from tiergate.verdict import Verdict

MOST_BYTES = 64 * 1024 * 1024
MOST_DAYS = 30
_EACH = 4
"""Answers to the same question that are kept: a branch that is gone back to has its own."""
_BUSY_SECONDS = 5.0
_TOUCH_SECONDS = 3600
_VERSION = 2
_DOCUMENTS = 64
"""Files that were read, of all repositories."""

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, root TEXT NOT NULL, cell TEXT NOT NULL, question TEXT NOT NULL,
    used INTEGER NOT NULL, digest BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_cell ON answers (root, cell, question);
CREATE TABLE IF NOT EXISTS environments (
    python TEXT PRIMARY KEY, digest BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS documents (
    key TEXT PRIMARY KEY, used INTEGER NOT NULL, digest BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS told (
    root TEXT NOT NULL, cell TEXT NOT NULL, what TEXT NOT NULL, moment TEXT NOT NULL,
    reasons TEXT NOT NULL, PRIMARY KEY (root, cell, what)
);
"""

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True):
    """A verdict, and everything that it depended on."""

    verdict: Verdict
    at: str
    """When the run began that gave it, UTC."""
    tree: str
    """Which state of the repository that run judged."""
    parts: dict[str, str]
    """What it depended on besides files, by name: the question."""
    inventory: list[str]
    """The repository's files, by name."""
    files: dict[str, Fact]
    folders: dict[str, Fact]
    asked: dict[str, Fact] = {}
    """Of which it was only asked whether they are there."""


class Environment(msgspec.Struct, frozen=True):
    """What the candidate's interpreter said of itself, and how it is told to be the same."""

    values: dict[str, str]
    folders: list[str]
    """Where it imports from."""
    signature: str
    device: str = ""
    """A digest of the device and its driver, where there was one."""
    proof: dict[str, str] = {}


class Cache:
    """The file, opened at its first use; whatever is wrong with it only costs time.

    Args:
        path: where it is.
        say: is told of a file that was damaged, or cannot be used.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self.say = say
        self._connection: sqlite3.Connection | None = None
        self._unusable = False

    def answers(
        self, root: str, cell: str, question: str | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """Yield what is known of a cell, latest use first: all, or what answers a question.

        Each is read when it is asked for: mostly the first one holds.
        """

        def find(connection: sqlite3.Connection) -> list[int]:
            rows = connection.execute(
                "SELECT id FROM answers WHERE root = ? AND cell = ? "
                "AND question = coalesce(?, question) ORDER BY used DESC, id DESC",
                (root, cell, question),
            ).fetchall()
            return [number for (number,) in rows]

        def read(connection: sqlite3.Connection, number: int) -> Answer | None:
            row = connection.execute(
                "SELECT digest, payload FROM answers WHERE id = ?", (number,)
            ).fetchone()
            return _decode(row[0], row[1], Answer) if row else None

        nothing: list[int] = []
        for number in self._with(find, nothing):
            answer = self._with(partial(read, number=number), None)
            if answer is not None:
                yield number, answer

    def touch(self, numbers: list[int]) -> None:
        """Tell that answers were used; written once an hour at most."""
        now = int(time.time())

        def write(connection: sqlite3.Connection) -> None:
            marks = ",".join("?" * len(numbers))
            old = connection.execute(
                f"SELECT count(*) FROM answers WHERE id IN ({marks}) AND used < ?",  # noqa: S608
                (*numbers, now - _TOUCH_SECONDS),
            ).fetchone()
            if old[0]:
                with connection:
                    connection.execute(
                        f"UPDATE answers SET used = ? WHERE id IN ({marks})",  # noqa: S608
                        (now, *numbers),
                    )

        if numbers:
            self._with(write, None)

    def put(self, root: str, cell: str, question: str, answer: Answer) -> None:
        """Keep an answer, and drop the oldest of its kind."""
        payload = msgspec.json.encode(answer)

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(
                    "INSERT INTO answers (root, cell, question, used, digest, payload) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (root, cell, question, int(time.time()), _digest(payload), payload),
                )
                same = (root, cell, question)
                connection.execute(
                    "DELETE FROM answers WHERE root = ? AND cell = ? AND question = ? AND id "
                    "NOT IN (SELECT id FROM answers WHERE root = ? AND cell = ? AND "
                    "question = ? ORDER BY used DESC, id DESC LIMIT ?)",
                    (*same, *same, _EACH),
                )
            self._prune(connection)

        self._with(write, None)

    def replace(self, number: int, answer: Answer) -> None:
        """Write an answer again: its files were touched, but are what they were."""
        payload = msgspec.json.encode(answer)

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(
                    "UPDATE answers SET used = ?, digest = ?, payload = ? WHERE id = ?",
                    (int(time.time()), _digest(payload), payload, number),
                )

        self._with(write, None)

    def environment(self, python: str) -> Environment | None:
        """Return what an interpreter said of itself."""

        def read(connection: sqlite3.Connection) -> Environment | None:
            row = connection.execute(
                "SELECT digest, payload FROM environments WHERE python = ?", (python,)
            ).fetchone()
            return _decode(row[0], row[1], Environment) if row else None

        return self._with(read, None)

    def put_environment(self, python: str, environment: Environment) -> None:
        """Keep what an interpreter said of itself."""
        payload = msgspec.json.encode(environment)

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(
                    "INSERT OR REPLACE INTO environments VALUES (?, ?, ?)",
                    (python, _digest(payload), payload),
                )

        self._with(write, None)

    def document(self, key: str, read: Callable[[], T], kind: type[T]) -> T:
        """Return what reading a file gave; read it where that is not known.

        Args:
            key: a digest of the file's content, and of what reads it.
            read: reads it.
            kind: what it gives.
        """

        def find(connection: sqlite3.Connection) -> T | None:
            row = connection.execute(
                "SELECT digest, payload FROM documents WHERE key = ?", (key,)
            ).fetchone()
            return _decode(row[0], row[1], kind) if row else None

        known = self._with(find, None)
        if known is not None:
            return known
        value = read()
        payload = msgspec.json.encode(value)

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(
                    "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)",
                    (key, time.time_ns(), _digest(payload), payload),
                )
                connection.execute(
                    "DELETE FROM documents WHERE key NOT IN "
                    "(SELECT key FROM documents ORDER BY used DESC LIMIT ?)",
                    (_DOCUMENTS,),
                )

        self._with(write, None)
        return value

    def tell(self, root: str, cell: str, what: str, moment: str, reasons: list[str]) -> None:
        """Remember why a cell was evaluated again, or why its answer was not kept."""

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(
                    "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?)",
                    (root, cell, what, moment, "\n".join(reasons)),
                )

        self._with(write, None)

    def told(self, root: str, cell: str, what: str) -> tuple[str, list[str]]:
        """Return what was remembered last, and when: empty where nothing was."""

        def read(connection: sqlite3.Connection) -> tuple[str, list[str]]:
            row = connection.execute(
                "SELECT moment, reasons FROM told WHERE root = ? AND cell = ? AND what = ?",
                (root, cell, what),
            ).fetchone()
            return (row[0], row[1].split("\n")) if row else ("", [])

        nothing: tuple[str, list[str]] = ("", [])
        return self._with(read, nothing)

    def cells(self, root: str) -> list[tuple[str, int, int, int]]:
        """Return, for each cell of a repository: answers, bytes, seconds since 1970 of last use."""

        def read(connection: sqlite3.Connection) -> list[tuple[str, int, int, int]]:
            return connection.execute(
                "SELECT cell, count(*), sum(length(payload)), max(used) FROM answers "
                "WHERE root = ? GROUP BY cell ORDER BY cell",
                (root,),
            ).fetchall()

        return self._with(read, [])

    def clear(self, root: str | None) -> int:
        """Forget the answers of a repository, or all; return how many there were."""

        def write(connection: sqlite3.Connection) -> int:
            with connection:
                gone = connection.execute(
                    "DELETE FROM answers WHERE root = coalesce(?, root)", (root,)
                ).rowcount
                connection.execute("DELETE FROM told WHERE root = coalesce(?, root)", (root,))
                if root is None:
                    connection.execute("DELETE FROM environments")
                    connection.execute("DELETE FROM documents")
            connection.execute("VACUUM")
            return gone

        return self._with(write, 0)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Forget what was not used for long, and the least used beyond the limit of bytes."""
        with connection:
            connection.execute(
                "DELETE FROM answers WHERE used < ?", (int(time.time()) - MOST_DAYS * 86400,)
            )
            connection.execute(
                "DELETE FROM answers WHERE id IN (SELECT id FROM (SELECT id, sum(length(payload)) "
                "OVER (ORDER BY used DESC, id DESC) AS bytes FROM answers) WHERE bytes > ?)",
                (MOST_BYTES,),
            )

    def _with(self, do: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Use the file; one that is damaged is made anew, one that cannot be used is left alone."""
        for attempt in (1, 2):
            if self._unusable:
                return otherwise
            try:
                return do(self._open())
            except (sqlite3.OperationalError, OSError) as error:
                self._unusable = True
                self.close()
                self.say(f"the verdict cache {self.path} cannot be used: {error}")
            except (sqlite3.DatabaseError, msgspec.DecodeError, _DamagedError):
                self.close()
                with contextlib.suppress(OSError):
                    for path in _files(self.path):
                        path.unlink(missing_ok=True)
                self._unusable = attempt == 2
                self.say(f"the verdict cache {self.path} was damaged; it is made anew")
        return otherwise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self.path.touch(mode=0o600)
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            self._connection = connection
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise _DamagedError
            if version == 0:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"{_TABLES}PRAGMA user_version = {_VERSION};")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.isolation_level = "IMMEDIATE"
        return self._connection


class _DamagedError(Exception):
    """What is in the file is not what was written."""


def _files(path: Path) -> Iterator[Path]:
    for suffix in ("", "-wal", "-shm"):
        yield path.with_name(path.name + suffix)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()


def _decode(digest: bytes, payload: bytes, kind: type[T]) -> T:
    if not isinstance(payload, bytes) or _digest(payload) != digest:
        raise _DamagedError
    return msgspec.json.decode(payload, type=kind)
