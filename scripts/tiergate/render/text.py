"""Plain text for a terminal: progress, the table of verdicts, failures, the decision."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tiergate.decide import CellDecision, Decision
from tiergate.fields import Remedy
from tiergate.render import fold
from tiergate.verdict import Evidence, Failure, Finding, Part, Verdict

if TYPE_CHECKING:
    from tiergate.render.formats import Rendering

MARKS = {"pass": "✓", "fail": "✗", "error": "!", "blocked": "·", "waived": "~"}
_COLOURS = {"pass": "32", "fail": "31", "error": "31", "blocked": "33", "waived": "33"}
_FAILURES_SHOWN = 10
_FINDINGS_SHOWN = 20
_DETAIL_LINES = 14
_TOUCHED = 5


def printable(text: str) -> str:
    """Make what candidate code wrote harmless: no control characters but newline and tab."""
    return "".join(
        c
        if c in "\n\t" or (c.isprintable() and c.isascii()) or (ord(c) > 159 and c.isprintable())
        else repr(c)[1:-1]
        for c in text
    )


def one_line(text: str) -> str:
    """Make text harmless where it must not begin a line of its own."""
    return printable(text).replace("\n", "\\n")


def render(rendering: Rendering) -> str:
    """Return a rendering as plain text of 100 columns."""
    text, decision = Text(colour=False, width=100), rendering.decision
    if decision.partial and not decision.tiers:
        return text.selection(decision, len(decision.cells)) + "\n"
    return text.decision(decision) + "\n"


class Text:
    """Renders with or without colour.

    Args:
        colour: whether to write ANSI colour codes.
        width: columns; by default the terminal's.
        links: the repository's root, where places in files shall be links that a click opens.
        verbose: whether to show every failure, with its traceback.
        folded: whether long lines are folded between words, as a person at a terminal wants it;
            programs that read lines want them whole.
    """

    def __init__(
        self,
        *,
        colour: bool,
        width: int | None = None,
        links: Path | None = None,
        verbose: bool = False,
        folded: bool = False,
    ) -> None:
        self._colour = colour
        self._folded = folded
        self._links = links
        self._verbose = verbose
        self._width = max(60, width or shutil.get_terminal_size((100, 24)).columns)
        self._rule = min(self._width, 100)

    def status(self, status: str) -> str:
        """Return a status with its mark."""
        return self._paint(f"{MARKS[status]} {status}", _COLOURS[status])

    def verdict_line(self, verdict: Verdict, room: int = 0) -> str:
        """Return the one line that progress shows for a finished cell, its name in ``room``."""
        since = f" (of {printable(verdict.cached.at)})" if verdict.cached is not None else ""
        begin = f"{one_line(verdict.cell):<{room}} {verdict.seconds:6.1f} s  "
        observed = f"{_observed(verdict)}{since}"
        if self._folded:
            observed = cut(observed, max(20, self._width - 11 - len(begin)))
        return f"{self.status(verdict.status)}{' ' * (9 - len(verdict.status))}{begin}{observed}"

    def part_line(self, part: Part, room: int = 0) -> str:
        """Return the one line that progress shows for a shard's part of a cell."""
        counts = {**part.collection.counts, **part.run.counts}
        seen = ", ".join(f"{count} {name}" for name, count in counts.items())
        return (
            f"{self._paint('… part', '33')}     {one_line(part.cell):<{room}} "
            f"{part.seconds:6.1f} s  {_first_line(part.error or seen or 'nothing observed')}"
        )

    def decision(self, decision: Decision) -> str:
        """Return everything: table, failures, problems and the decision itself."""
        return "\n\n".join([*self._body(decision), self._conclusion(decision)])

    def _body(self, decision: Decision) -> list[str]:
        parts = [self._table(decision.cells)]
        if decision.head:
            parts.append("the head's own criteria, where they differ from the base's:")
            parts.append(self._table(decision.head))
        parts += [
            self._failure(cell, cell.verdict)
            for cell in (*decision.cells, *decision.head)
            if cell.verdict is not None and cell.verdict.status in {"fail", "error"}
        ]
        remarks = [
            line
            for remark in decision.remarks
            for line in self._words("! " if remark.severe else "~ ", one_line(remark.text))
        ]
        if remarks:
            parts.append("\n".join(remarks))
        return parts

    def brief(self, decision: Decision) -> str:
        """Return the cells that are red, a line each, and the decision itself."""
        cells = (*decision.cells, *decision.head)
        red = [c.verdict for c in cells if c.verdict and c.verdict.status in {"fail", "error"}]
        room = max((len(one_line(verdict.cell)) for verdict in red), default=0)
        lines = [self.verdict_line(verdict, room) for verdict in red]
        lines += [f"! {one_line(r.text)}" for r in decision.remarks if r.severe]
        return "\n".join([*lines, self._conclusion(decision)])

    def _conclusion(self, decision: Decision) -> str:
        lines = []
        if decision.partial:
            shown = ", ".join(decision.partial[:6])
            more = f", and {len(decision.partial) - 6} more" if len(decision.partial) > 6 else ""
            lines.append(f"not judged here: {shown}{more}")
        colour = "1;32" if decision.conclusion == "passed" else "1;31"
        lines += [self._paint(tier.sentence, colour) for tier in decision.tiers]
        if not decision.tiers:
            lines.append(self._paint("GATE NOT EVALUATED — not a pass", colour))
        return "\n".join(lines)

    def selection(self, decision: Decision, selected: int) -> str:
        """Return what ``decision`` says when only some criteria were asked for."""
        parts = self._body(decision)
        passed = decision.conclusion == "passed"
        word = "passed" if passed else decision.conclusion
        parts.append(
            self._paint(
                f"{selected} of {selected + len(decision.partial)} cells judged: {word}. "
                "This is no decision on the gate.",
                "1;32" if passed else "1;31",
            )
        )
        return "\n\n".join(parts)

    def _table(self, cells: Iterable[CellDecision]) -> str:
        rows = [("criterion", "device", "verdict", "seconds", "observed")]
        for decision in cells:
            cell, verdict = decision.cell, decision.verdict
            if verdict is None:
                rows.append((cell.criterion.id, cell.device, "missing", "", "no verdict"))
                continue
            rows.append(
                (
                    cell.criterion.id,
                    cell.device,
                    verdict.status,
                    f"{verdict.seconds:.1f}",
                    _observed(verdict),
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        room = max(20, self._width - sum(widths) - 8)
        lines: list[tuple[int, str]] = []
        for row in rows:
            columns = [row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].ljust(widths[2])]
            columns += [row[3].rjust(widths[3]), cut(row[4], room)]
            length = len("  ".join(columns).rstrip())
            if lines and row[2] in _COLOURS:
                columns[2] = self._paint(columns[2], _COLOURS[row[2]])
            lines.append((length, "  ".join(columns).rstrip()))
        rule = "─" * max(self._rule, *(length for length, _ in lines))
        return "\n".join([lines[0][1], rule, *(line for _, line in lines[1:])])

    def _failure(self, cell: CellDecision, verdict: Verdict) -> str:
        evidence = verdict.evidence
        # What candidate code wrote stands behind two spaces, so that no line of it can be taken
        # for the decision.
        lines = []
        if cell.cell.criterion.name != cell.cell.criterion.id:
            lines += self._row("holds if", cell.cell.criterion.name)
        rows = expected_rows(evidence)
        if not says_it_all(verdict):
            for line in verdict.summary.split("\n"):
                lines += self._words("  ", one_line(line))
        if evidence.running:
            rows.append(("running", evidence.running))
        lines += [line for name, value in rows for line in self._row(name, value)]
        lines += self._failures(evidence.failures)
        lines += self._findings(evidence.findings)
        for note in evidence.notes[:10]:
            lines += self._row("note", note)
        if evidence.output and not evidence.failures and not evidence.findings:
            tail = printable(evidence.output).strip().splitlines()[-_DETAIL_LINES:]
            lines += ["  output:", *(f"    {line[:300]}" for line in tail)]
        for line in touched_lines(evidence, self._most(_TOUCHED)):
            lines += self._row("changed", line)
        for command in evidence.reproduce:
            begin, line = "  run       ", one_line(command)
            lines += fold.command(begin, line, self._width) if self._folded else [begin + line]
        for name, value in remedy_rows(verdict.remedy):
            lines += self._row(name, value)
        shown = [one_line(line) for line in lines]
        if self._links is not None:
            shown = self._linked(shown, evidence)
        return "\n".join([self._title(verdict), *shown])

    def _title(self, verdict: Verdict) -> str:
        title = one_line(f"── {verdict.cell}: {verdict.status} ")
        rest = "─" * max(3, self._rule - len(title))
        return self._paint(title, "1;31") + self._paint(rest, "31")

    def _row(self, name: str, value: str) -> list[str]:
        """Return a name and what it stands for."""
        return self._words(f"  {name:<9} ", one_line(value))

    def _words(self, begin: str, text: str) -> list[str]:
        return fold.words(begin, text, self._width) if self._folded else [begin + text]

    def _most(self, number: int) -> int:
        return 100_000 if self._verbose else number

    def _linked(self, lines: list[str], evidence: Evidence) -> list[str]:
        """Make the places links (OSC 8); the address is percent-encoded, whatever the name."""
        assert self._links is not None
        places = [(f.path, f.line) for f in evidence.failures if f.path]
        places += [(f.path, f.line) for f in evidence.findings]
        for path, line in dict.fromkeys(places):
            name = one_line(f"{path}:{line}")
            try:
                address = (self._links / path).as_uri()
            except ValueError:
                continue
            link = f"\033]8;;{address}\033\\{name}\033]8;;\033\\"
            lines = [text.replace(name, link, 1) if "\033" not in text else text for text in lines]
        return lines

    def _findings(self, findings: list[Finding]) -> list[str]:
        lines = []
        for finding in findings[: self._most(_FINDINGS_SHOWN)]:
            lines.append(f"  {finding.path}:{finding.line}:{finding.column}: {finding.rule}")
            lines.append(f"      {finding.code}")
        if findings:
            lines += self._row("why", findings[0].message)
        if (more := len(findings) - self._most(_FINDINGS_SHOWN)) > 0:
            lines.append(f"  … and {more} more findings")
        return lines

    def _failures(self, failures: list[Failure]) -> list[str]:
        lines = []
        before = ""
        for failure in failures[: self._most(_FAILURES_SHOWN)]:
            place = f"{failure.path}:{failure.line}" if failure.path and failure.line else ""
            title = f"  {failure.outcome}: {failure.id}"
            if len(title) + len(place) + 2 <= self._width:
                lines.append(f"{title}  {place}".rstrip())
            else:
                lines += [title, *([f"      at {place}"] if place else [])]
            text = failure.message or failure.details
            if text and text == before and not self._verbose:
                lines.append("      the same")
                continue
            before = text
            if self._verbose:
                text = "\n".join(filter(None, dict.fromkeys([failure.message, failure.details])))
            shown = printable(text).strip().splitlines()
            lines += [f"      {line[:200]}" for line in shown[: self._most(4)]]
        if (more := len(failures) - self._most(_FAILURES_SHOWN)) > 0:
            lines.append(f"  … and {more} more")
        return lines

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


def expected_rows(evidence: Evidence) -> list[tuple[str, str]]:
    """Return what was expected and observed; where they differ, with the zero that was meant."""
    if not evidence.expected:
        return []
    expected = dict(evidence.expected)
    expected |= {name: "0" for name in evidence.mismatches if name not in expected}
    observed = {name: evidence.observed.get(name, 0) for name in expected}
    observed = {name: n for name, n in observed.items() if n or name in evidence.mismatches}
    observed |= evidence.observed
    return [
        ("expected", ", ".join(f"{name}: {value}" for name, value in expected.items())),
        ("observed", ", ".join(f"{name}: {n}" for name, n in observed.items()) or "nothing"),
    ]


def says_it_all(verdict: Verdict) -> bool:
    """Tell whether the rows of what was expected and observed leave nothing of the summary out."""
    evidence = verdict.evidence
    return verdict.status == "fail" and bool(evidence.expected) and bool(evidence.mismatches)


def cut(text: str, room: int) -> str:
    """Return text that fits, cut between its parts where that keeps the half of it."""
    if len(text) <= room:
        return text
    part = max(text.rfind("; ", 0, room - 1), text.rfind(", ", 0, room - 1))
    return f"{text[: part + 2]}…" if part > room // 2 else f"{text[: room - 1]}…"


def remedy_rows(remedy: Remedy) -> list[tuple[str, str]]:
    """Return what a remedy says, as (name, value) pairs."""
    rows = [
        ("task", remedy.task),
        ("owner", remedy.owner),
        ("skill", remedy.skill),
        ("playbook", remedy.playbook),
        ("hint", remedy.hint),
        ("files", ", ".join(remedy.files)),
    ]
    return [(name, value) for name, value in rows if value]


def touched_lines(evidence: Evidence, most: int = _TOUCHED) -> list[str]:
    """Return whose change a failure concerns, a line for each file."""
    lines = [
        f"{touch.path}: {touch.commit} {touch.author}, {touch.subject}"
        if touch.commit
        else f"{touch.path}: uncommitted changes"
        for touch in evidence.touched[:most]
    ]
    more = len(evidence.touched) - most
    return [*lines, f"and {more} more"] if more > 0 else lines


def _observed(verdict: Verdict) -> str:
    mark = "cached: " if verdict.cached is not None else ""
    return mark + _first_line(verdict.summary)


def _first_line(text: str) -> str:
    return printable(text).split("\n", 1)[0]
