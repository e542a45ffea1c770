"""SARIF 2.1.0 for code scanning: findings, and failed tests, at their lines.

GitHub takes 10 MB and 25,000 results, and keeps 5,000 of them: what is left out is said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from tiergate import __version__
from tiergate.decide import CellDecision
from tiergate.render.formats import Rendering
from tiergate.render.text import printable
from tiergate.verdict import PASSING, Failure, Finding, Verdict

MOST_RESULTS = 5_000
MOST_BYTES = 9_500_000
SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_RULES = Path(__file__).parent.parent / "rules"
_LONGEST = 2_000


def render(rendering: Rendering) -> str:
    """Return the log; a failure that no test or finding stands for is placed at its criterion."""
    decision = rendering.decision
    found = [result for cell in rendering.cells for result in _results(cell, rendering)]
    where = _spec_path(rendering)
    found += [
        _result("tiergate/decision", r.text, where, 1, "decision", r.text)
        for r in decision.remarks
        if r.severe
    ]
    kept: list[dict[str, Any]] = []
    size = 0
    for result in found[:MOST_RESULTS]:
        size += len(json.dumps(result))
        if size > MOST_BYTES:
            break
        kept.append(result)
    rules = _rules({result["ruleId"] for result in kept})
    index = {rule["id"]: number for number, rule in enumerate(rules)}
    for result in kept:
        result["ruleIndex"] = index[result["ruleId"]]
    invocation: dict[str, Any] = {
        "executionSuccessful": decision.conclusion != "not evaluated",
        "exitCode": int(decision.exit_code),
    }
    if len(kept) < len(found):
        text = f"{len(found) - len(kept)} of {len(found)} results are left out; see report.json"
        invocation["toolExecutionNotifications"] = [{"level": "warning", "message": {"text": text}}]
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "tiergate", "version": __version__, "rules": rules}},
                "automationDetails": {"id": "tiergate/"},
                "columnKind": "unicodeCodePoints",
                "invocations": [invocation],
                "results": kept,
            }
        ],
    }
    return json.dumps(log) + "\n"


def _results(decision: CellDecision, rendering: Rendering) -> Iterator[dict[str, Any]]:
    verdict = decision.verdict
    if verdict is None or verdict.status in {"pass", "blocked"}:
        return
    placed = False
    for result in _placed(verdict):
        placed = True
        yield _waived(result, verdict)
    if not placed:
        mark = decision.cell.criterion.mark
        text = f"{verdict.cell}: {verdict.summary}"
        path = _spec_path(rendering)
        rule = f"tiergate/{verdict.status}"
        yield _waived(_result(rule, text, path, mark.line, verdict.cell, rule), verdict)


def _placed(verdict: Verdict) -> Iterator[dict[str, Any]]:
    for finding in verdict.evidence.findings:
        yield _finding(finding)
    for failure in verdict.evidence.failures:
        if failure.path and failure.line:
            yield _failure(failure, verdict)


def _finding(finding: Finding) -> dict[str, Any]:
    result = _result(finding.rule, finding.message, finding.path, finding.line)
    region = result["locations"][0]["physicalLocation"]["region"]
    region["startColumn"] = max(1, finding.column)
    if finding.code:
        region["snippet"] = {"text": _text(finding.code)}
    # The one that waivers name: it survives line shifts.
    mark = finding.fingerprint or _digest(finding.rule, finding.path, finding.code)
    result["partialFingerprints"] = {"tiergate/v1": _text(mark)}
    return result


def _failure(failure: Failure, verdict: Verdict) -> dict[str, Any]:
    text = f"{failure.id} {failure.outcome}: {failure.message or verdict.summary}"
    rule = f"test/{failure.outcome}"
    return _result(rule, text, failure.path, failure.line or 1, verdict.criterion, failure.id)


def _result(rule: str, text: str, path: str, line: int, *identity: str) -> dict[str, Any]:
    return {
        "ruleId": _text(rule) or "tiergate/unnamed",
        "level": "error",
        "message": {"text": _text(text) or "no message"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _location(path),
                    "region": {"startLine": max(1, line)},
                }
            }
        ],
        "partialFingerprints": {"tiergate/v1": _digest(rule, *identity)},
    }


def _location(path: str) -> dict[str, str]:
    shown = quote(printable(path)[:_LONGEST])
    if PurePosixPath(path).is_absolute():
        return {"uri": f"file://{shown}" if not shown.startswith("//") else f"file:{shown}"}
    # A colon in the first part would make a scheme of it.
    return {"uri": shown or "unknown", "uriBaseId": "%SRCROOT%"}


def _waived(result: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    if verdict.status in PASSING:
        result["suppressions"] = [{"kind": "external", "justification": _text(verdict.waiver)}]
    return result


def _rules(used: set[str]) -> list[dict[str, Any]]:
    return [_rule(name) for name in sorted(used)]


def _rule(name: str) -> dict[str, Any]:
    known = _known(name)
    if known is None:
        what = name.replace("/", ": ")
        return {
            "id": name,
            "shortDescription": {"text": what},
            "help": {
                "text": f"{what}. The report's evidence holds the command that reproduces it."
            },
            "defaultConfiguration": {"level": "error"},
        }
    metadata = known.get("metadata", {})
    stated = metadata.get("cwe", [])
    weaknesses = [stated] if isinstance(stated, str) else [str(one) for one in stated]
    references = [str(reference) for reference in metadata.get("references", [])]
    tags = ["security"] if weaknesses else []
    tags += [f"external/cwe/{one.partition(':')[0].lower()}" for one in weaknesses]
    message = str(known["message"])
    more = "".join(f"\n\n- <{reference}>" for reference in references)
    rule: dict[str, Any] = {
        "id": name,
        "shortDescription": {"text": message.partition(". ")[0].partition(": ")[0].rstrip(".")},
        "fullDescription": {"text": message},
        "help": {"text": message, "markdown": "\n\n".join([message, *weaknesses]) + more},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": tags, "precision": "high"},
    }
    if weaknesses:
        rule["properties"]["security-severity"] = "8.8"
    if references:
        rule["helpUri"] = references[0]
    return rule


def _known(name: str) -> dict[str, Any] | None:
    """Return a rule of the tool's own pack."""
    import yaml  # noqa: PLC0415 - only this format reads the rules

    if name not in {path.stem for path in _RULES.glob("*.yaml")}:
        return None
    document = yaml.safe_load((_RULES / f"{name}.yaml").read_bytes())
    rule: dict[str, Any] = document["rules"][0]
    return rule


def _spec_path(rendering: Rendering) -> str:
    paths = [PurePosixPath(report.spec.path) for report in rendering.reports]
    return str(paths[0]) if paths and not paths[0].is_absolute() else "gate.yaml"


def _digest(*parts: str) -> str:
    joined = "\0".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.sha256(joined).hexdigest()[:16]


def _text(text: str) -> str:
    return printable(text[:_LONGEST])
