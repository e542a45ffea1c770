"""A proof as text: what was tried, and what caught it; and for GitHub."""

from __future__ import annotations

from collections.abc import Iterator

from tiergate.prove.proof import CriterionProof, Proof, Tried
from tiergate.render.github import workflow_error
from tiergate.render.markdown import inline
from tiergate.render.text import cut, one_line

COLUMNS = 160
"""Of the table where it is no terminal that shows it."""
_COLOURS = {"proven": "32", "not proven": "31", "not evaluated": "33"}


def tried_line(criterion: str, tried: Tried) -> str:
    """Return the one line that progress shows for a counter-example."""
    mark = "✓" if tried.caught else "✗"
    seen = _caught_by(tried) if tried.caught else tried.problem
    name = f"{criterion} {tried.name}"
    return f"{mark} {one_line(name):<34} {tried.seconds:5.1f} s  {one_line(seen)}"


def table(proof: Proof, *, colour: bool, width: int = COLUMNS) -> str:
    """Return the table: criterion × counter-example × caught by what."""
    rows = list(_rows(proof))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    room = max(30, width - sum(widths) - 6)
    lines = []
    for number, row in enumerate(rows):
        head = "  ".join(cell.ljust(size) for cell, size in zip(row[:3], widths, strict=True))
        last = cut(row[3], room)
        lines.append(f"{head}  {last}".rstrip())
        if number == 0:
            lines.append("─" * min(width, 100))
    parts = ["\n".join(lines)]
    problems = [f"! {one_line(f'{c.criterion}: {c.problem}')}" for c in proof.criteria if c.problem]
    if proof.interruption:
        problems.append(f"! {one_line(proof.interruption)}")
    if problems:
        parts.append("\n".join(problems))
    sentence = conclusion(proof)
    code = _COLOURS[proof.conclusion]
    parts.append(f"\033[1;{code}m{sentence}\033[0m" if colour else sentence)
    return "\n\n".join(parts)


def conclusion(proof: Proof) -> str:
    """Return the line that says what was proven."""
    proven = sum(criterion.conclusion == "proven" for criterion in proof.criteria)
    tried = [attempt for criterion in proof.criteria for attempt in criterion.tried]
    caught = sum(attempt.caught for attempt in tried)
    words = {"proven": "PROVEN", "not proven": "NOT PROVEN", "not evaluated": "NOT EVALUATED"}
    return (
        f"{words[proof.conclusion]}: {proven} of {len(proof.criteria)} criteria can fail; "
        f"{caught} of {sum(c.made for c in proof.criteria)} counter-examples caught"
    )


def workflow_commands(proof: Proof) -> str:
    """Return an annotation for each criterion that is not proven."""
    return "\n".join(
        workflow_error(f"{c.criterion}: {c.conclusion}", c.problem)
        for c in proof.criteria
        if c.conclusion != "proven"
    )


def summary(proof: Proof) -> str:
    """Return the job summary in Markdown."""
    head, *rows = list(_rows(proof))
    lines = [f"## {inline(conclusion(proof))}", ""]
    lines += [f"- {inline(f'{c.criterion}: {c.problem}')}" for c in proof.criteria if c.problem]
    lines += ["", f"| {' | '.join(head)} |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(inline(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _rows(proof: Proof) -> Iterator[tuple[str, str, str, str]]:
    yield "criterion", "counter-example", "verdict", "caught by"
    for criterion in proof.criteria:
        yield criterion.criterion, "untouched, before", criterion.before or "none", ""
        for attempt in criterion.tried:
            yield _row(criterion, attempt)
        if criterion.before == "pass":
            yield criterion.criterion, "untouched, after", criterion.after or "none", ""


def _row(criterion: CriterionProof, attempt: Tried) -> tuple[str, str, str, str]:
    name = f"{attempt.name} (declared)" if attempt.declared else attempt.name
    verdict = attempt.observed or "none"
    if attempt.caught:
        return criterion.criterion, one_line(name), f"✓ {verdict}", one_line(_caught_by(attempt))
    return criterion.criterion, one_line(name), f"✗ {verdict}", one_line(attempt.problem)


def _caught_by(tried: Tried) -> str:
    return f"{tried.evidence}; {tried.summary}" if tried.evidence else tried.summary
