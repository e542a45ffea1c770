"""The formats that reports are rendered to, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiergate.decide import CellDecision, Decision
from tiergate.verdict import Report

if TYPE_CHECKING:
    from tiergate.history import RunRecord

FORMATS: Mapping[str, str] = {
    "text": "tiergate.render.text",
    "markdown": "tiergate.render.markdown",
    "github": "tiergate.render.github",
    "pr-comment": "tiergate.render.pr_comment",
    "html": "tiergate.render.html",
    "junit": "tiergate.render.junit",
    "sarif": "tiergate.render.sarif",
    "badge": "tiergate.render.badge",
    "json": "tiergate.render.summary_json",
}
"""Format → the module whose ``render`` makes it."""


UNDECIDED = "GATE NOT EVALUATED — not a pass"
"""Stands where no tier was decided."""


@dataclass(frozen=True)
class Rendering:
    """What every format shows: the decision, and the reports that it was made from."""

    decision: Decision
    reports: tuple[Report, ...]
    history: tuple[RunRecord, ...] = ()
    """Earlier runs, the oldest first; for the formats that show a trend."""

    @property
    def title(self) -> str:
        """The sentence of the tier that matters: the first that did not pass, or the last."""
        tiers = self.decision.tiers
        if not tiers:
            return UNDECIDED
        red = [tier for tier in tiers if tier.conclusion != "passed"]
        return (red or tiers[-1:])[0].sentence

    @property
    def cells(self) -> list[CellDecision]:
        """Every cell that was expected, then the head's own."""
        return [*self.decision.cells, *self.decision.head]


def render(format_name: str, rendering: Rendering) -> str:
    """Return ``rendering`` in a format; only that format's module is imported."""
    made: Callable[[Rendering], str] = importlib.import_module(FORMATS[format_name]).render
    return made(rendering)
