"""GitHub Actions: annotations on the lines concerned, and the job summary in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from tiergate.decide import Decision
from tiergate.render.text import printable, remedy_rows
from tiergate.verdict import Verdict

SUMMARY_LIMIT = 1_000_000
"""Bytes; GitHub drops a step's summary beyond 1 MiB."""

_ANNOTATIONS = 9
"""GitHub shows ten errors a step; the tenth says how many more there are."""


def workflow_commands(decision: Decision) -> str:
    """Return workflow commands, one a line."""
    found = list(_commands(decision))
    lines = found[:_ANNOTATIONS]
    if len(found) > _ANNOTATIONS:
        lines.append(f"::error title=tiergate::and {len(found) - _ANNOTATIONS} more")
    return "\n".join(lines)


def _commands(decision: Decision) -> Iterator[str]:
    for problem in decision.problems:
        yield f"::error title=tiergate::{_data(problem)}"
    for cell in decision.cells:
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
            yield f"::error title={_property(verdict.cell)}::{_data(verdict.summary)}"


def _at(path: str, line: int, title: str, message: str) -> str:
    return f"::error file={_property(path)},line={line},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text)[:2000].replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(decision: Decision) -> str:
    """Return the job summary: the decision first, then the table, then each failure."""
    sentences = [tier.sentence for tier in decision.tiers] or ["GATE NOT EVALUATED — not a pass"]
    parts = [f"## {_inline(sentence)}" for sentence in sentences]
    parts += [f"- {_inline(problem)}" for problem in decision.problems]
    rows = ["| criterion | device | verdict | seconds | observed |", "|---|---|---|---:|---|"]
    for cell in decision.cells:
        verdict = cell.verdict
        status = verdict.status if verdict else "**missing**"
        seconds = f"{verdict.seconds:.1f}" if verdict else ""
        observed = _inline(verdict.summary) if verdict else "no verdict"
        rows.append(
            f"| {_inline(cell.cell.criterion.id)} | {cell.cell.device} | {status} "
            f"| {seconds} | {observed} |"
        )
    parts.append("\n".join(rows))
    size = sum(len(part.encode()) for part in parts)
    for cell in decision.cells:
        if cell.verdict is None or cell.verdict.status not in {"fail", "error"}:
            continue
        section = _failure(cell.verdict)
        size += len(section.encode())
        if size > SUMMARY_LIMIT:
            parts.append("Further failures are in the report artifact.")
            break
        parts.append(section)
    return "\n\n".join(parts) + "\n"


def _failure(verdict: Verdict) -> str:
    lines = [f"### {_inline(verdict.cell)}: {verdict.status}", "", _inline(verdict.summary), ""]
    for failure in verdict.evidence.failures[:20]:
        place = f" ({failure.path}:{failure.line})" if failure.path and failure.line else ""
        lines.append(f"- {failure.outcome}: {_inline(failure.id + place)}")
        lines.append(f"  {_inline(failure.message.splitlines()[0] if failure.message else '')}")
    lines += [
        f"- {_inline(f'{finding.path}:{finding.line}')} {_inline(finding.rule)}"
        for finding in verdict.evidence.findings[:20]
    ]
    lines += ["", "Reproduce:", ""]
    lines += [f"    {printable(command)}" for command in verdict.evidence.reproduce]
    rows = remedy_rows(verdict.remedy)
    if rows:
        lines += ["", "Remedy: " + ", ".join(f"{name} {_inline(value)}" for name, value in rows)]
    return "\n".join(lines)


def _inline(text: str) -> str:
    """Escape text for one line of Markdown, so that a test's name cannot draw or link."""
    flat = " ".join(printable(text)[:1000].split())
    escaped = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|#!~":
        escaped = escaped.replace(character, "\\" + character)
    return escaped.replace("@", "@\u200b")
