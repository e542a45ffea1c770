"""GitHub Actions: annotations on the lines concerned, and the job summary in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tiergate.decide import Decision
from tiergate.render.text import one_line, printable, remedy_rows
from tiergate.verdict import Verdict

SUMMARY_LIMIT = 1_000_000
_PARTIAL_SHOWN = 50
"""Bytes; GitHub drops a step's summary beyond 1 MiB."""

_ANNOTATIONS = 10
"""GitHub shows ten errors a step; of more, the tenth says how many more there are."""


def workflow_commands(decision: Decision) -> str:
    """Return workflow commands, one a line."""
    found = list(_commands(decision))
    if (more := len(found) - _ANNOTATIONS + 1) > 1:
        found[_ANNOTATIONS - 1 :] = [f"::error title=tiergate::and {more} more"]
    return "\n".join(found)


def _commands(decision: Decision) -> Iterator[str]:
    # GitHub shows the first ten: what decides comes before what is merely worth a look.
    for remark in sorted(decision.remarks, key=lambda remark: not remark.severe):
        level = "error" if remark.severe else "notice"
        yield f"::{level} title=tiergate::{_data(remark.text)}"
    for cell in (*decision.cells, *decision.head):
        verdict = cell.verdict
        if verdict is None or verdict.status not in {"fail", "error"}:
            continue
        placed = False
        for finding in verdict.evidence.findings:
            placed = True
            yield _at(finding.path, finding.line, f"{verdict.cell} {finding.rule}", finding.message)
        for failure in verdict.evidence.failures:
            if failure.path and failure.line:
                placed = True
                title = f"{verdict.cell} {failure.outcome}"
                yield _at(failure.path, failure.line, title, f"{failure.id}\n{failure.message}")
        if not placed:
            yield workflow_error(verdict.cell, verdict.summary)


def workflow_error(title: str, message: str) -> str:
    """Return the workflow command for an error that belongs to no line."""
    return f"::error title={_property(title)}::{_data(message)}"


def _at(path: str, line: int, title: str, message: str) -> str:
    return f"::error file={_property(path)},line={line},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text)[:2000].replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(decision: Decision) -> str:
    """Return the job summary: the decision first, then the table, then each failure."""
    text: list[str] = []
    size = 0
    for piece in _pieces(decision):
        size += len(piece.encode())
        if size > SUMMARY_LIMIT:
            text.append("\nThe rest is in the report artifact.\n")
            break
        text.append(piece)
    return "".join(text)


def _pieces(decision: Decision) -> Iterator[str]:
    """Yield the summary in pieces; cut after any of them it is whole Markdown."""
    sentences = [tier.sentence for tier in decision.tiers] or ["GATE NOT EVALUATED — not a pass"]
    for sentence in sentences:
        yield f"## {inline(sentence)}\n\n"
    if decision.partial:
        more = len(decision.partial) - _PARTIAL_SHOWN
        shown = [*decision.partial[:_PARTIAL_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        yield f"Not judged here: {inline(', '.join(shown))}\n\n"
    for remark in decision.remarks:
        yield f"- {'**' * remark.severe}{inline(remark.text)}{'**' * remark.severe}\n"
    yield "\n| criterion | device | verdict | seconds | observed |\n|---|---|---|---:|---|\n"
    for cell in (*decision.cells, *decision.head):
        verdict = cell.verdict
        status = verdict.status if verdict else "**missing**"
        seconds = f"{verdict.seconds:.1f}" if verdict else ""
        observed = inline(verdict.summary) if verdict else "no verdict"
        yield (
            f"| {inline(cell.cell.criterion.id)} | {cell.cell.device} | {status} "
            f"| {seconds} | {observed} |\n"
        )
    for cell in (*decision.cells, *decision.head):
        if cell.verdict is not None and cell.verdict.status in {"fail", "error"}:
            yield f"\n{_failure(cell.verdict)}\n"


def _failure(verdict: Verdict) -> str:
    lines = [f"### {inline(verdict.cell)}: {verdict.status}", "", inline(verdict.summary), ""]
    for failure in verdict.evidence.failures[:20]:
        place = f" ({failure.path}:{failure.line})" if failure.path and failure.line else ""
        lines.append(f"- {inline(failure.outcome)}: {inline(failure.id + place)}")
        lines.append(f"  {inline(failure.message.splitlines()[0] if failure.message else '')}")
    lines += [
        f"- {inline(f'{finding.path}:{finding.line}')} {inline(finding.rule)}"
        for finding in verdict.evidence.findings[:20]
    ]
    lines += ["", "Reproduce:", ""]
    lines += [f"    {one_line(command)}" for command in verdict.evidence.reproduce]
    rows = remedy_rows(verdict.remedy)
    if rows:
        lines += ["", "Remedy: " + ", ".join(f"{name} {inline(value)}" for name, value in rows)]
    return "\n".join(lines)


def inline(text: str) -> str:
    """Escape text for one line of Markdown, so that a test's name cannot draw or link."""
    flat = " ".join(printable(text)[:1000].split())
    escaped = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|#!~$":
        escaped = escaped.replace(character, "\\" + character)
    # Names, addresses and hosts become links on their own unless something stands inside them.
    linkless = escaped.replace("@", "@\u200b").replace("://", ":\u200b//")
    return re.sub(r"(?i)\bwww\.", lambda match: match[0][:3] + "\u200b.", linkless)
