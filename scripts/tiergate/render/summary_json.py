"""The decision as JSON, for scripts: less than a report, and of all legs."""

from __future__ import annotations

import json
from typing import Any

from tiergate.decide import CellDecision
from tiergate.render.formats import Rendering


def render(rendering: Rendering) -> str:
    """Return the decision; what candidate code wrote is escaped as JSON escapes it."""
    decision = rendering.decision
    document = {
        "kind": "tiergate-decision",
        "schema_version": 1,
        "conclusion": decision.conclusion,
        "exit_code": int(decision.exit_code),
        "tiers": [
            {"gate": t.gate, "conclusion": t.conclusion, "sentence": t.sentence}
            for t in decision.tiers
        ],
        "cells": [_cell(cell) for cell in decision.cells],
        "head_cells": [_cell(cell) for cell in decision.head],
        "not_judged": list(decision.partial),
        "remarks": [{"text": r.text, "severe": r.severe} for r in decision.remarks],
        "commits": sorted({r.source.commit for r in rendering.reports}),
    }
    return json.dumps(document, indent=1) + "\n"


def _cell(decision: CellDecision) -> dict[str, Any]:
    verdict = decision.verdict
    shown: dict[str, Any] = {
        "criterion": decision.cell.criterion.id,
        "device": decision.cell.device,
        "status": verdict.status if verdict else "missing",
    }
    if verdict:
        shown |= {
            "summary": verdict.summary,
            "seconds": verdict.seconds,
            "expected": verdict.evidence.expected,
            "observed": verdict.evidence.observed,
            "reproduce": verdict.evidence.reproduce,
        }
    return shown
