"""The job summary in Markdown: the decision, the grid, what failed; all else folded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tiergate.decide import CellDecision, Decision
from tiergate.render import fold
from tiergate.render.formats import UNDECIDED, Rendering
from tiergate.render.text import one_line, printable, remedy_rows, touched_lines
from tiergate.verdict import Case, Failure, Finding, Verdict

SUMMARY_LIMIT = 1_000_000
"""Bytes; GitHub drops a step's summary beyond 1 MiB."""

MARKS = {
    "pass": "✅ pass",
    "fail": "❌ **fail**",
    "error": "💥 **error**",
    "blocked": "⛔ blocked",
    "waived": "⚠️ waived",
}
_PARTIAL_SHOWN = 50
_PLACES = 20
_SLOWEST = 10
_SLOW_SECONDS = 0.05
_CODE_LINES = 12
_COLUMNS = 100
"""Of a command: beyond, a page would have to be scrolled sideways."""


def render(rendering: Rendering) -> str:
    """Return the summary of a rendering."""
    return summary(rendering.decision)


def summary(decision: Decision, limit: int = SUMMARY_LIMIT) -> str:
    """Return the job summary, at most ``limit`` bytes: what is cut is said."""
    cut = "\nThe rest is in the report artifact.\n"
    text: list[str] = []
    size = len(cut.encode())
    for piece in _pieces(decision):
        size += len(piece.encode())
        if size > limit:
            text.append(cut)
            break
        text.append(piece)
    return "".join(text)


def _pieces(decision: Decision) -> Iterator[str]:
    """Yield the summary in pieces; cut after any of them it is whole Markdown."""
    for sentence in [tier.sentence for tier in decision.tiers] or [UNDECIDED]:
        yield f"## {inline(sentence)}\n\n"
    if decision.partial:
        more = len(decision.partial) - _PARTIAL_SHOWN
        shown = [*decision.partial[:_PARTIAL_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        yield f"Not judged here: {inline(', '.join(shown))}\n\n"
    for remark in decision.remarks:
        yield f"- {'**' * remark.severe}{inline(remark.text)}{'**' * remark.severe}\n"
    yield from _grid(decision.cells)
    cells = (*decision.cells, *decision.head)
    for cell in cells:
        if cell.verdict is not None and cell.verdict.status in {"fail", "error"}:
            yield f"\n{_failure(cell.verdict)}\n"
    yield _folded("Every cell, with what was observed", _table(cells))
    slow = _slowest(cells)
    if slow:
        rows = [f"| {inline(c.id)} | {inline(cell)} | {c.seconds:.2f} |" for cell, c in slow]
        yield _folded(
            "Slowest tests", "\n".join(["| test | cell | seconds |", "|---|---|---:|", *rows])
        )


def _grid(cells: Iterable[CellDecision]) -> Iterator[str]:
    """Yield the grid criterion × device."""
    rows: dict[str, dict[str, CellDecision]] = {}
    names: dict[str, str] = {}
    for cell in cells:
        rows.setdefault(cell.cell.criterion.id, {})[cell.cell.device] = cell
        names[cell.cell.criterion.id] = cell.cell.criterion.name
    devices = list(dict.fromkeys(device for row in rows.values() for device in row))
    yield f"\n| criterion | {' | '.join(devices)} | what it holds |\n"
    yield f"|---|{'---|' * len(devices)}---|\n"
    for criterion, row in rows.items():
        marks = [_mark(row[device]) if device in row else "" for device in devices]
        yield f"| {inline(criterion)} | {' | '.join(marks)} | {inline(names[criterion])} |\n"


def _mark(cell: CellDecision) -> str:
    return MARKS[cell.verdict.status] if cell.verdict else "❓ **missing**"


def _table(cells: Iterable[CellDecision]) -> str:
    lines = ["| cell | verdict | seconds | observed |", "|---|---|---:|---|"]
    for cell in cells:
        verdict = cell.verdict
        seconds = f"{verdict.seconds:.1f}" if verdict else ""
        observed = inline(verdict.summary, 300) if verdict else "no verdict"
        lines.append(f"| {inline(cell.cell.name)} | {_mark(cell)} | {seconds} | {observed} |")
    return "\n".join(lines)


def _slowest(cells: Iterable[CellDecision]) -> list[tuple[str, Case]]:
    ran = [(c.cell.name, case) for c in cells if c.verdict for case in c.verdict.evidence.cases]
    ran.sort(key=lambda pair: -pair[1].seconds)
    return [pair for pair in ran[:_SLOWEST] if pair[1].seconds >= _SLOW_SECONDS]


def _failure(verdict: Verdict) -> str:
    evidence = verdict.evidence
    lines = [f"### {inline(verdict.cell)}: {verdict.status}", "", inline(verdict.summary), ""]
    places: list[Failure | Finding] = [*evidence.failures, *evidence.findings]
    for place in places[:_PLACES]:
        lines += _place(place)
    if evidence.findings:
        lines.append(f"- why: {inline(evidence.findings[0].message)}")
    if len(places) > _PLACES:
        lines.append(f"- and {len(places) - _PLACES} more")
    if evidence.running:
        lines.append(f"- running: {inline(evidence.running)}")
    lines += [f"- {inline(note)}" for note in evidence.notes[:10]]
    if evidence.output and not places:
        lines += ["", *_code(printable(evidence.output).strip().splitlines()[-_CODE_LINES:])]
    touched = touched_lines(evidence)
    if touched:
        lines += ["", "Changed:", "", *(f"- {inline(line)}" for line in touched)]
    lines += ["", "See it on your machine:", ""]
    for command in evidence.reproduce:
        lines += fold.command("    ", one_line(command)[:2000], _COLUMNS)
    rows = remedy_rows(verdict.remedy)
    if rows:
        lines += ["", "Mend it:", "", *(f"- {name}: {inline(value)}" for name, value in rows)]
    return "\n".join(lines)


def _place(place: Failure | Finding) -> list[str]:
    if isinstance(place, Finding):
        where = inline(f"{place.path}:{place.line}")
        return [f"- {where} {inline(place.rule)}", *_code([place.code], 2)]
    where = f" ({place.path}:{place.line})" if place.path and place.line else ""
    lines = [f"- {inline(place.outcome)}: {inline(place.id + where)}"]
    message = place.message or place.details
    return [*lines, *_code(printable(message).strip().splitlines()[:4], 2)]


def _code(lines: Iterable[str], within: int = 0) -> list[str]:
    """Return lines as a block of code; indented, nothing in it can end it."""
    indent = " " * (within + 4)
    shown = [f"{indent}{one_line(line)[:300]}" for line in lines if line.strip()]
    return ["", *shown, ""] if shown else []


def _folded(title: str, body: str) -> str:
    return f"\n<details><summary>{title}</summary>\n\n{body}\n\n</details>\n"


def inline(text: str, limit: int = 1000) -> str:
    """Escape text for one line of Markdown, so that a test's name cannot draw or link."""
    flat = " ".join(printable(text[: 4 * limit])[:limit].split())
    escaped = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|#!~$":
        escaped = escaped.replace(character, "\\" + character)
    # Names, addresses and hosts become links on their own unless something stands inside them.
    linkless = escaped.replace("@", "@\u200b").replace("://", ":\u200b//")
    return re.sub(r"(?i)\bwww\.", lambda match: match[0][:3] + "\u200b.", linkless)
