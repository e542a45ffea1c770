"""Progress as text for a terminal, and as a Markdown table between two markers of a file."""

from __future__ import annotations

import re
import sys

from tiergate.errors import UserError
from tiergate.progress import CellProgress, Progress, Sighting, TierProgress
from tiergate.render import fold
from tiergate.render.markdown import inline
from tiergate.render.text import one_line

BEGIN = "<!-- tiergate status: begin -->"
END = "<!-- tiergate status: end -->"

_MARKS = {"holds": "✓", "waived": "~", "does not hold": "✗", "unknown": "?"}
_ROW = re.compile(
    r"^\| `(?P<cell>[^`|]+@[a-z]+)` \| [✓~✗?] (?P<state>[a-z ]+) \| `(?P<since>[0-9a-f]{12,64})` \|"
)


def tier_line(tier: TierProgress) -> str:
    """Say where a tier stands, and what it unlocks."""
    if tier.complete:
        return f"{tier.gate} complete" + (f" → {tier.next}" if tier.next else "")
    return f"{tier.gate}: {tier.holds} of {tier.cells} hold"


def text(progress: Progress, columns: int = sys.maxsize) -> str:
    """Return lines for a terminal of so many columns."""
    lines = [_as_of(progress)]
    room = max((len(_name(cell)) for cell in progress.cells), default=0)
    for tier in progress.tiers:
        lines += ["", tier_line(tier)]
        for cell in progress.cells:
            if cell.tier == tier.gate:
                lines += _cell(cell, room, columns)
    if progress.tasks:
        lines += ["", "open tasks, in the order in which they can be done"]
    for task in progress.tasks:
        # A task without a name of its own has that of its criterion.
        about = [c for c in task.criteria if [c] != [task.task]] + [task.owner] * bool(task.owner)
        what = f" ({one_line(', '.join(about))})" if about else ""
        hint = f": {one_line(task.hint)}" if task.hint else ""
        lines += fold.words(f"  {task.wave}. ", f"{one_line(task.task)}{what}{hint}", columns)
    for note in progress.notes:
        lines += fold.words("note: ", one_line(note), columns)
    return "\n".join(lines)


def _as_of(progress: Progress) -> str:
    if not progress.commit:
        return "as of: unknown (no report of this spec, or not of a commit)"
    dirty = ", with uncommitted changes" if progress.dirty else ""
    return f"as of commit {progress.commit[:12]}{dirty}"


def _name(cell: CellProgress) -> str:
    return one_line(f"{cell.criterion}@{cell.device}")


def _cell(cell: CellProgress, room: int, columns: int) -> list[str]:
    more = [f"since {cell.since[:12] or 'unknown'}"] if cell.state in {"holds", "waived"} else []
    more += [f"waived until {cell.waived_until}"] if cell.waived_until else []
    more += [one_line(cell.summary)[:100]] if cell.state in {"does not hold", "unknown"} else []
    begin = f"  {_MARKS[cell.state]} {cell.state:<14} {_name(cell):<{room}}  "
    return fold.words(begin, ", ".join(more), columns)


def markdown(progress: Progress) -> str:
    """Return the table and the open tasks."""
    lines = ["", "; ".join(f"**{inline(tier_line(t))}**" for t in progress.tiers)]
    lines[-1] += f", {_as_of(progress)}."
    lines += [
        "",
        "| criterion | state | holds since | defined so since | waived until | owner |",
        "|---|---|---|---|---|---|",
    ]
    for cell in progress.cells:
        columns = [
            f"`{cell.criterion}@{cell.device}`",
            f"{_MARKS[cell.state]} {cell.state}",
            f"`{cell.since[:12]}`" if cell.since else _unknown(cell),
            f"`{cell.defined_since[:12]}`" if cell.defined_since else "unknown",
            cell.waived_until,
            inline(cell.owner),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    if progress.tasks:
        lines += ["", "| order | task | owner | mends |", "|---|---|---|---|"]
    lines += [
        f"| {t.wave} | {inline(t.task)} | {inline(t.owner)} | {', '.join(t.criteria)} |"
        for t in progress.tasks
    ]
    lines += ["", *(f"Note: {inline(note)}." for note in progress.notes)] if progress.notes else []
    return "\n".join([*lines, ""])


def _unknown(cell: CellProgress) -> str:
    return "unknown" if cell.state in {"holds", "waived"} else ""


def between_markers(document: str, table: str, name: str) -> str:
    """Return the document with the table between its markers; an empty one gets them.

    Raises:
        UserError: the document has no markers, or not one of each in their order.
    """
    if not document.strip():
        return f"{BEGIN}\n{table}\n{END}\n"
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise UserError(f"{name}: needs one line {BEGIN} and one line {END}; nothing was written")
    before, rest = document.split(BEGIN)
    if END not in rest:
        raise UserError(f"{name}: the end marker stands before the begin marker")
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def recorded(document: str) -> list[Sighting]:
    """Return what a table of before says of cells that hold, and since which commit."""
    inside = document.partition(BEGIN)[2].partition(END)[0]
    rows = (_ROW.match(line) for line in inside.splitlines())
    # Before every report: a later failure ends the row all the same.
    return [Sighting(row["cell"], "", row["since"], passed=True) for row in rows if row]
