"""JUnit XML as Jenkins, GitLab and Azure read it: a suite for each cell, a case for each test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from tiergate.decide import CellDecision
from tiergate.render.formats import Rendering
from tiergate.render.text import printable
from tiergate.verdict import PASSING, Case, Failure, Finding, Report, Verdict

_ERRORS = {"errors", "error", "suspect", "ignored"}
_SKIPPED = {"skipped", "xfailed", "deselected"}
_LONGEST = 20_000


@dataclass(frozen=True)
class _Case:
    """One ``testcase``; ``kind`` is failure, error, skipped or nothing at all."""

    classname: str
    name: str
    seconds: float = 0.0
    kind: str = ""
    message: str = ""
    text: str = ""
    file: str = ""
    line: int | None = None


def render(rendering: Rendering) -> str:
    """Return the document. Where the gate does not pass, it holds a failure or an error."""
    started = {report.device: report for report in rendering.reports}
    suites = ET.Element("testsuites", name=_text(rendering.title))
    totals = {"tests": 0, "failures": 0, "errors": 0}
    for cell in rendering.cells:
        suite = _suite(cell, started.get(cell.cell.device))
        suites.append(suite)
        for name in totals:
            totals[name] += int(suite.get(name, "0"))
    problems = [remark.text for remark in rendering.decision.remarks if remark.severe]
    if problems or not rendering.cells:
        found = problems or [rendering.title]
        suite = _filled("decision", [_Case("tiergate", "decision", 0.0, "error", p) for p in found])
        suites.append(suite)
        totals["tests"] += len(found)
        totals["errors"] += len(found)
    for name, number in totals.items():
        suites.set(name, str(number))
    suites.set("time", f"{sum(r.seconds for r in rendering.reports):.3f}")
    ET.indent(suites)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return head + ET.tostring(suites, encoding="unicode") + "\n"


def _suite(decision: CellDecision, report: Report | None) -> ET.Element:
    verdict = decision.verdict
    name = decision.cell.name
    if verdict is None:
        return _filled(name, [_Case("tiergate", name, 0.0, "error", "no verdict")])
    cases = list(_cases(verdict))
    reds = any(case.kind in {"failure", "error"} for case in cases)
    if not cases or (verdict.status not in PASSING and not reds):
        cases.append(_verdict_case(verdict))
    suite = _filled(name, cases)
    suite.set("time", f"{verdict.seconds:.3f}")
    if report is not None:
        suite.set("timestamp", _text(report.started.split("+")[0]))
    properties = ET.Element("properties")
    rows = [("verdict", verdict.status), ("observed", verdict.summary)]
    rows += [("waiver", verdict.waiver)] if verdict.waiver else []
    rows += [("reproduce", command) for command in verdict.evidence.reproduce]
    for key, value in rows:
        ET.SubElement(properties, "property", name=key, value=_text(value))
    suite.insert(0, properties)
    if verdict.evidence.output:
        ET.SubElement(suite, "system-out").text = _text(verdict.evidence.output)
    return suite


def _verdict_case(verdict: Verdict) -> _Case:
    """Return the case for the verdict itself, where no single test stands for it."""
    kinds = {"fail": "failure", "error": "error", "blocked": "error", "waived": "skipped"}
    kind = kinds.get(verdict.status, "")
    message = verdict.waiver or verdict.summary if kind else ""
    return _Case("tiergate", verdict.cell, verdict.seconds, kind, message)


def _cases(verdict: Verdict) -> Iterator[_Case]:
    # What is waived must not look red, or the dashboard and the gate would disagree.
    forgiven = verdict.status in PASSING
    told: dict[str, Failure] = {}
    for failure in verdict.evidence.failures:
        told.setdefault(failure.id, failure)
    for case in verdict.evidence.cases:
        yield _of(case, told.pop(case.id, None), forgiven=forgiven)
    for failure in told.values():
        yield _of(Case(failure.id, failure.outcome), failure, forgiven=forgiven)
    for finding in verdict.evidence.findings:
        yield _finding(finding, forgiven=forgiven)


def _of(case: Case, failure: Failure | None, *, forgiven: bool) -> _Case:
    kind = ""
    if case.outcome != "passed" or failure:
        outcome = failure.outcome if failure else case.outcome
        kind = "error" if outcome in _ERRORS else "failure"
        # The gate may forbid a skip; then it is red, whatever pytest calls it.
        kind = "skipped" if forgiven or (outcome in _SKIPPED and failure is None) else kind
    path, _, name = case.id.partition("::")
    return _Case(
        classname=path.removesuffix(".py").replace("/", "."),
        name=name or path,
        seconds=case.seconds,
        kind=kind,
        message=(failure.message or failure.outcome) if failure else case.outcome,
        text=failure.details if failure else "",
        file=failure.path if failure else path,
        line=failure.line if failure else None,
    )


def _finding(finding: Finding, *, forgiven: bool) -> _Case:
    return _Case(
        classname=finding.rule,
        name=f"{finding.path}:{finding.line}:{finding.column}",
        kind="skipped" if forgiven else "failure",
        message=finding.message,
        text=finding.code,
        file=finding.path,
        line=finding.line,
    )


def _filled(name: str, cases: list[_Case]) -> ET.Element:
    suite = ET.Element("testsuite", name=_text(name), tests=str(len(cases)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.kind == kind for case in cases)))
    suite.set("time", f"{sum(case.seconds for case in cases):.3f}")
    for case in cases:
        element = ET.SubElement(
            suite,
            "testcase",
            classname=_text(case.classname),
            name=_text(case.name),
            time=f"{case.seconds:.4f}",
        )
        if case.file and case.line:
            element.set("file", _text(case.file))
            element.set("line", str(case.line))
        if case.kind:
            why = ET.SubElement(element, case.kind, message=_text(case.message))
            if case.text:
                why.text = _text(case.text)
    return suite


def _text(text: str) -> str:
    """Return text of characters that XML 1.0 can hold, bounded."""
    shown = printable(text[:_LONGEST])
    return shown if len(text) <= _LONGEST else shown + " …"
