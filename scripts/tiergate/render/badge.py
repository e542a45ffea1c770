"""A badge: what shields.io's endpoint reads."""

from __future__ import annotations

import json

from tiergate.render.formats import Rendering
from tiergate.render.text import one_line

_COLOURS = {"passed": "brightgreen", "failed": "red", "not evaluated": "lightgrey"}


def render(rendering: Rendering) -> str:
    """Return the badge's JSON; a part of the gate never looks like the whole."""
    decision = rendering.decision
    conclusion, label = decision.conclusion, "gate"
    if decision.tiers:
        red = [tier for tier in decision.tiers if tier.conclusion != "passed"]
        deciding = (red or list(decision.tiers[-1:]))[0]
        conclusion, label = deciding.conclusion, deciding.gate
    message: str = conclusion
    if decision.partial:
        judged = len(decision.cells)
        message += f" ({judged} of {judged + len(decision.partial)} cells)"
    badge = {
        "schemaVersion": 1,
        "label": one_line(label)[:60],
        "message": message,
        "color": "yellow" if decision.partial and conclusion == "passed" else _COLOURS[conclusion],
        "isError": conclusion != "passed",
    }
    return json.dumps(badge, ensure_ascii=False) + "\n"
