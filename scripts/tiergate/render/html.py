"""The report as one HTML file: nothing is loaded, and nothing but its own script may run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tiergate.decide import CellDecision
from tiergate.render.formats import UNDECIDED, Rendering
from tiergate.render.text import (
    expected_rows,
    printable,
    remedy_rows,
    says_it_all,
    touched_lines,
)
from tiergate.render.trend import trends
from tiergate.verdict import Failure, Finding, Report, Verdict

_TEMPLATES = Path(__file__).parent / "templates"
_PLACES = 25
_LONGEST = 8_000
_MOST_TESTS = 50_000
_WIDTH = 1000
_ROW = 28
_TONES = {"pass": "pass", "waived": "mild", "blocked": "mild"}


def render(rendering: Rendering) -> str:
    """Return the page."""
    decision = rendering.decision
    css = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    red = [c for c in rendering.cells if c.verdict and c.verdict.status in {"fail", "error"}]
    anchors = {id(cell): f"cell-{number}" for number, cell in enumerate(red, 1)}
    tests = list(_tests(rendering))
    remarks = sorted(decision.remarks, key=lambda remark: not remark.severe)
    page: str = _template().render(
        policy=Markup(_policy(css, script)),  # noqa: S704 - made of digests
        title=rendering.title,
        sentences=[tier.sentence for tier in decision.tiers] or [UNDECIDED],
        conclusion=decision.conclusion,
        overview=_overview(rendering, len(tests)),
        legs=[_leg(report) for report in rendering.reports],
        partial=", ".join(decision.partial[:50]),
        remarks=remarks,
        severe=any(remark.severe for remark in remarks),
        failures=[_failure(cell, cell.verdict) for cell in red if cell.verdict],
        devices=_devices(rendering),
        grid=_grid(rendering, anchors),
        timelines=[chart for report in rendering.reports if (chart := _timeline(report))],
        trends=trends(rendering),
        count=len(tests),
        outcomes=sorted({test[1] for test in tests}),
        data=_json(tests),
        css=Markup(css),  # noqa: S704 - a file of ours
        script=Markup(script),  # noqa: S704 - a file of ours
    )
    return page


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _shown(value) if type(value) is str else value,
    )
    return environment.get_template("report.html")


def _shown(text: str) -> str:
    """Return text without what is invisible or turns the direction of writing."""
    shown = printable(text[:_LONGEST])
    return shown if len(text) <= _LONGEST else shown + " …"


def _policy(css: str, script: str) -> str:
    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src 'sha256-{digest(css)}'; "
        f"script-src 'sha256-{digest(script)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _json(tests: list[tuple[str, str, float, str]]) -> Markup:
    """Return JSON that no HTML parser can take for markup."""
    text = json.dumps(tests, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _overview(rendering: Rendering, tests: int) -> str:
    """Return how many cells there are of each verdict, and how many tests."""
    statuses = [c.verdict.status if c.verdict else "missing" for c in rendering.cells]
    counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
    cells = f"{len(statuses)} cell{'s' * (len(statuses) != 1)}"
    return f"{cells}: {counts}" + (f" · {tests} test{'s' * (tests != 1)}" if tests else "")


def _leg(report: Report) -> str:
    source = report.source
    state = source.commit[:12] or "no commit"
    state += " with uncommitted changes" if source.dirty else ""
    base = f", against {report.base.commit[:12]}" if report.base else ""
    versions = [
        f"{name} {report.environment[key][:40]}"
        for name, key in (("Python", "python"), ("torch", "torch"))
        if report.environment.get(key)
    ]
    started = report.started[:16].replace("T", " ")
    parts = [f"{report.device}: {state}{base}", f"{started} UTC, {report.seconds:.1f} s", *versions]
    return " · ".join(parts)


def _devices(rendering: Rendering) -> list[str]:
    return list(dict.fromkeys(cell.cell.device for cell in rendering.cells))


def _grid(rendering: Rendering, anchors: dict[int, str]) -> list[dict[str, Any]]:
    rows: dict[tuple[bool, str], dict[str, CellDecision]] = {}
    own = {id(cell) for cell in rendering.decision.head}
    for cell in rendering.cells:
        rows.setdefault((id(cell) in own, cell.cell.criterion.id), {})[cell.cell.device] = cell
    devices = _devices(rendering)
    result = []
    for (of_head, criterion), row in rows.items():
        name = next(iter(row.values())).cell.criterion.name
        entries = [_entry(row[d], anchors) if d in row else None for d in devices]
        label = f"{criterion} (as the head has it)" if of_head else criterion
        result.append({"id": label, "holds": name, "cells": entries})
    return result


def _entry(cell: CellDecision, anchors: dict[int, str]) -> dict[str, str]:
    verdict = cell.verdict
    if verdict is None:
        return {"status": "missing", "note": "no verdict", "anchor": ""}
    note = f"{verdict.seconds:.1f} s" + (", from the cache" if verdict.cached else "")
    if verdict.status != "fail":
        note += f" · {verdict.waiver or verdict.summary}"[:160]
    return {"status": verdict.status, "note": note, "anchor": anchors.get(id(cell), "")}


def _failure(cell: CellDecision, verdict: Verdict) -> dict[str, Any]:
    evidence = verdict.evidence
    places: list[Failure | Finding] = [*evidence.failures, *evidence.findings]
    return {
        "name": verdict.cell,
        "status": verdict.status,
        "holds": cell.cell.criterion.name,
        "summary": "" if says_it_all(verdict) else verdict.summary,
        "counts": expected_rows(evidence),
        "running": evidence.running,
        "places": [_place(place) for place in places[:_PLACES]],
        "more": max(0, len(places) - _PLACES),
        "notes": evidence.notes[:10],
        "output": evidence.output[-_LONGEST:],
        "touched": touched_lines(evidence),
        "reproduce": evidence.reproduce,
        "remedy": remedy_rows(verdict.remedy),
    }


def _place(place: Failure | Finding) -> dict[str, Any]:
    source = []
    if place.source is not None:
        numbered = enumerate(place.source.lines, place.source.first)
        source = [(f"{n:>5}", line, n == place.line) for n, line in numbered]
    where = f"{place.path}:{place.line}" if place.path and place.line else ""
    if isinstance(place, Finding):
        code = "" if source else place.code
        message = f"{place.message}\n{code}".strip()
        return {"what": "finding", "id": place.rule, "where": where, "message": message,
                "source": source, "details": ""}  # fmt: skip
    return {
        "what": place.outcome,
        "id": place.id,
        "where": where,
        "message": place.message,
        "source": source,
        "details": place.details,
    }


def _tests(rendering: Rendering) -> Iterator[tuple[str, str, float, str]]:
    """Yield (id, outcome, seconds, cell), what is not passed first, then the slowest."""
    rows = [
        (_shown(case.id), _shown(case.outcome), round(case.seconds, 3), cell.cell.name)
        for cell in rendering.cells
        if cell.verdict
        for case in cell.verdict.evidence.cases
    ]
    rows.sort(key=lambda row: (row[1] == "passed", -row[2]))
    yield from rows[:_MOST_TESTS]


def _timeline(report: Report) -> dict[str, Any] | None:
    ran = [v for v in report.verdicts if v.seconds > 0 and v.cached is None]
    if not ran:
        return None
    end = max(v.started + v.seconds for v in ran)
    scale = (_WIDTH - 10) / end
    slots = max(v.slot for v in ran) + 1
    bars: list[dict[str, Any]] = []
    for verdict in ran:
        width = max(2.0, verdict.seconds * scale)
        what = f"{verdict.cell}: {verdict.status}, {verdict.started:.1f} s to "
        bars.append(
            {
                "x": round(verdict.started * scale + 5, 1),
                "y": verdict.slot * _ROW + 4,
                "width": round(width, 1),
                "tone": _TONES.get(verdict.status, "red"),
                "label": verdict.criterion if width > 9 * len(verdict.criterion) + 12 else "",
                "title": what + f"{verdict.started + verdict.seconds:.1f} s, slot {verdict.slot}",
            }
        )
    return {
        "device": report.device,
        "height": slots * _ROW + 26,
        "bars": bars,
        "ticks": [
            {
                "x": round(5 + part * (_WIDTH - 10) / 4, 1),
                "label": f"{part * end / 4:.1f} s",
                "anchor": ("start", "middle", "middle", "middle", "end")[part],
            }
            for part in range(5)
        ],
        "label": "; ".join(bar["title"] for bar in bars)[:2000],
    }
