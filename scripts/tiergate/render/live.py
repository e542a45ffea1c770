"""The cells while they are judged, for a person at a terminal: drawn in place by rich."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text as Styled

from tiergate.render.text import MARKS, one_line
from tiergate.verdict import Part, Verdict

_STYLES = {"pass": "green", "fail": "bold red", "error": "bold red"}
_ROWS_LEFT_OUT = 4
"""Lines of the terminal that are not for cells."""


class _Row:
    """One cell."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began: float | None = None
        self.tests = 0
        self.seen = 0
        self.what = ""
        self.verdict: Verdict | None = None


class LiveTable:
    """A listener that draws every cell: its time, the tests so far and the one that is running.

    It leaves nothing behind: the decision is printed after it.

    Args:
        cells: the names of the cells, in the order of the plan.
        console: where it is drawn; by default standard output.
    """

    def __init__(self, cells: Sequence[str], console: Console | None = None) -> None:
        self._rows = {name: _Row(name) for name in cells}
        self._lock = threading.Lock()
        self._console = console or Console(highlight=False)
        self._live = Live(
            console=self._console,
            refresh_per_second=8,
            transient=True,
            get_renderable=self.draw,
            # What others print must not be taken apart on its way.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveTable:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear what was drawn."""
        self._live.stop()

    def started(self, cell: str) -> None:
        """Begin to count the cell's time."""
        with self._lock:
            self._row(cell).began = time.monotonic()

    def expected(self, cell: str, tests: int) -> None:
        """Draw a bar over so many tests."""
        with self._lock:
            row = self._row(cell)
            row.tests, row.seen = tests, 0

    def progress(self, cell: str, what: str) -> None:
        """Show the test that begins; those before it are done."""
        with self._lock:
            row = self._row(cell)
            row.seen += bool(row.what)
            row.what = one_line(what)

    def observed(self, part: Part) -> None:
        """Show that a shard's part of a cell is evaluated: it has no verdict yet."""
        with self._lock:
            self._row(part.cell).what = "its part is evaluated"

    def finished(self, verdict: Verdict) -> None:
        """Show the verdict."""
        with self._lock:
            self._row(verdict.cell).verdict = verdict

    def _row(self, cell: str) -> _Row:
        return self._rows.setdefault(cell, _Row(cell))

    def draw(self) -> ConsoleRenderable:
        """Return the table as it is now; what is red or running stays when there is no room."""
        with self._lock:
            rows = list(self._rows.values())
        room = max(3, self._console.height - _ROWS_LEFT_OUT)
        shown = rows
        if len(rows) > room:
            kept = sorted(rows, key=_rank)[:room]
            shown = [row for row in rows if row in kept]
        table = Table.grid(padding=(0, 1), expand=True)
        # As wide as the widest word, so that nothing moves when a verdict comes.
        table.add_column(no_wrap=True, min_width=9)
        table.add_column(no_wrap=True, max_width=28, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True, min_width=7)
        table.add_column(width=12)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for row in shown:
            table.add_row(*_drawn(row))
        done = sum(row.verdict is not None for row in rows)
        more = f", {len(rows) - len(shown)} not shown" if len(shown) < len(rows) else ""
        table.add_row("", Styled(f"{done} of {len(rows)} cells{more}", "dim"))
        return table


def _rank(row: _Row) -> int:
    if row.verdict is None:
        return 2 if row.began is None else 0
    return 3 if row.verdict.status == "pass" else 1


def _drawn(row: _Row) -> tuple[ConsoleRenderable, ...]:
    name = Styled(one_line(row.name))
    if row.verdict is not None:
        style = _STYLES.get(row.verdict.status, "yellow")
        return (
            Styled(f"{MARKS[row.verdict.status]} {row.verdict.status}", style),
            name,
            Styled(f"{row.verdict.seconds:.1f} s", "dim"),
            Styled(""),
            Styled(one_line(row.verdict.summary), "" if row.verdict.status != "pass" else "dim"),
        )
    if row.began is None:
        return Styled("· waits", "dim"), name, Styled(""), Styled(""), Styled("")
    bar: ConsoleRenderable = Styled("")
    counted = ""
    if row.tests:
        bar = ProgressBar(
            total=row.tests,
            completed=min(row.seen, row.tests),
            width=12,
            complete_style="cyan",
            finished_style="cyan",
        )
        counted = f"{min(row.seen + 1, row.tests)}/{row.tests} "
    elapsed = Styled(f"{time.monotonic() - row.began:.1f} s")
    return Styled("→ runs", "cyan"), name, elapsed, bar, Styled(counted + _nearest(row.what))


def _nearest(test: str) -> str:
    """Return a test's own name before its class and file: what there is no room for is those."""
    names, bracket, parameters = test.partition("[")
    within, colons, name = names.rpartition("::")
    return f"{name}{bracket}{parameters}  {within}" if colons else test
