"""CODEOWNERS as GitHub reads it: which place counts, which line matches, who owns a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
"""Where GitHub looks; the first that exists counts alone."""

JUDGING = (".github/", "scripts/", "gate.yaml")
"""What says how a change is judged: a change to it must be reviewed by its owners."""

OFFERED = ("action.yml", "action.yaml", ".pre-commit-hooks.yaml")
"""What says so to other repositories, where there is such a file."""

_OWNER = re.compile(r"@[\w.-]+(/[\w.-]+)?|[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True)
class Rule:
    """A line: a pattern and its owners; without owners it takes them away."""

    line: int
    pattern: str
    owners: tuple[str, ...]

    def matches(self, path: str) -> bool:
        """Tell whether the line is about a file."""
        return _compiled(self.pattern).fullmatch(path) is not None


def parse(text: str) -> list[Rule]:
    """Return the lines that GitHub reads; it passes over the others, and so does this."""
    rules = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.sub(r"(^|\s)#.*", "", line).strip()
        parts = re.split(r"(?<!\\)\s+", words)
        pattern, owners = parts[0], tuple(parts[1:])
        if not pattern or pattern.startswith(("!", "\\#")) or "[" in pattern:
            continue
        if all(_OWNER.fullmatch(owner) for owner in owners):
            rules.append(Rule(number, pattern.replace("\\ ", " "), owners))
    return rules


def owner_of(rules: list[Rule], path: str) -> Rule | None:
    """Return the last line that matches a file: it alone counts."""
    return next((rule for rule in reversed(rules) if rule.matches(path)), None)


@dataclass(frozen=True)
class Gap:
    """Something that judges and can be changed without a review by its owners."""

    part: str
    path: str
    """A file in it, that is there or could be added."""
    line: int
    """The line that takes its owners away; 0 where no line matches."""


def judging(files: Iterable[str]) -> list[str]:
    """Return what judges in a repository with these files."""
    offered = set(OFFERED) & set(files)
    return [*JUDGING, *(name for name in OFFERED if name in offered)]


def gaps(rules: list[Rule], files: Iterable[str]) -> list[Gap]:
    """Return what of ``judging`` has no owner, one entry for each part.

    Args:
        rules: of the CODEOWNERS file; none where there is no such file.
        files: the repository's files. Files that a change could add are tried as well.
    """
    known = list(files)
    found = []
    for part in judging(known):
        present = [name for name in known if name == part or name.startswith(part)]
        added = [f"{part}new", f"{part}new/new"] if part.endswith("/") else [part]
        if part == ".github/":
            added.append(".github/workflows/new.yml")
        for path in (*present, *added):
            rule = owner_of(rules, path)
            if rule is None or not rule.owners:
                found.append(Gap(part, path, rule.line if rule else 0))
                break
    return found


def lines_to_add(missing: list[Gap], rules: list[Rule], organisation: str) -> list[str]:
    """Return the lines, for the end of CODEOWNERS, that close the gaps."""
    named = [owner for rule in reversed(rules) for owner in rule.owners]
    owner = named[0] if named else f"@{organisation}/maintainers"
    return [f"/{gap.part:<12} {owner}" for gap in missing]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # Repeated wildcards mean no more than one, and would cost the matching dearly.
    pattern = re.sub(r"(\*\*/)+", "**/", re.sub(r"\*{3,}", "**", pattern))
    body = pattern.strip("/")
    anchored = pattern.startswith("/") or "/" in body
    out = "" if anchored else r"(?:.*/)?"
    position = 0
    for match in re.finditer(r"\*\*/|/\*\*$|\*\*|\*|\?", body):
        out += re.escape(body[position : match.start()])
        out += {"**/": r"(?:.*/)?", "/**": r"/.*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}[
            match[0]
        ]
        position = match.end()
    out += re.escape(body[position:])
    if pattern.endswith("/"):
        out += r"/.*"
    elif not (anchored and body.endswith("/*")) and not body.endswith("**"):
        out += r"(?:/.*)?"  # a folder of that name owns what is in it; `docs/*` one level only
    return re.compile(out, re.DOTALL)
