"""The comment on a pull request: the job summary behind a mark by which it is found again."""

from __future__ import annotations

from tiergate.render.formats import Rendering
from tiergate.render.markdown import summary

MARK = "<!-- tiergate:decision -->"
"""The first line of the comment; whoever posts it replaces the one that has it."""

_LIMIT = 60_000
"""Bytes; GitHub takes 65,536 characters."""


def render(rendering: Rendering) -> str:
    """Return the comment's body."""
    commits = sorted({r.source.commit[:12] for r in rendering.reports if r.source.commit})
    judged = f"\n<sub>Judged: {', '.join(commits)}</sub>\n" if commits else ""
    return f"{MARK}\n{summary(rendering.decision, _LIMIT)}{judged}"
