"""GitHub Actions: annotations on the lines concerned."""

from __future__ import annotations

from collections.abc import Iterator

from tiergate.decide import Decision
from tiergate.render.formats import Rendering
from tiergate.render.text import printable

_ANNOTATIONS = 10
"""GitHub shows ten errors a step; of more, the tenth says how many more there are."""


def render(rendering: Rendering) -> str:
    """Return the annotations of a rendering."""
    return "".join(f"{line}\n" for line in workflow_commands(rendering.decision).splitlines())


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


def outputs(decision: Decision) -> str:
    """Return the step's outputs: the conclusion, and how many cells have which verdict."""
    statuses = [cell.verdict.status if cell.verdict else "missing" for cell in decision.cells]
    passed, waived = statuses.count("pass"), statuses.count("waived")
    lines = {
        "conclusion": decision.conclusion,
        "passed": passed,
        "waived": waived,
        "failed": len(statuses) - passed - waived,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())
