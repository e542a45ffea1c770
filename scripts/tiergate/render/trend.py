"""How the cells of a decision went over their latest runs: bars, and the same in words."""

from __future__ import annotations

from typing import Any

from tiergate.render.formats import Rendering

RUNS = 20
"""Of each cell that are shown, the latest."""
_BAR = 10
_HEIGHT = 30
_TONES = {"pass": "pass", "fail": "red", "error": "red"}


def trends(rendering: Rendering) -> list[dict[str, Any]]:
    """Return a row for each cell that has at least one recorded run; the latest run last.

    What a shard recorded of a cell is only a part of it, and is left out.
    """
    rows = []
    for name in dict.fromkeys(cell.cell.name for cell in rendering.cells):
        runs = [
            (run.started, run.commit, record)
            for run in rendering.history
            if (record := run.cells.get(name)) is not None and not run.shard
        ][-RUNS:]
        if not runs:
            continue
        longest = max(record.seconds for _, _, record in runs) or 1.0
        bars = []
        for number, (started, commit, record) in enumerate(runs):
            height = max(2.0, record.seconds / longest * _HEIGHT)
            when = started[:16].replace("T", " ")
            bars.append(
                {
                    "x": number * _BAR,
                    "y": round(_HEIGHT - height, 1),
                    "height": round(height, 1),
                    "tone": _TONES.get(record.status, "mild"),
                    "title": f"{when} {commit[:12]}: {record.status}, {record.seconds:.1f} s",
                }
            )
        statuses = [record.status for _, _, record in runs]
        counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
        rows.append(
            {
                "cell": name,
                "bars": bars,
                "width": RUNS * _BAR,
                "words": f"{counts}; the latest {statuses[-1]}",
                "latest": f"{runs[-1][2].seconds:.1f}",
                "longest": f"{longest:.1f}",
            }
        )
    return rows
