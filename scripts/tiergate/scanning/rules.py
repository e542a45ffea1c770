"""The tool's own rules: which there are, which names mean them, and their annotated examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

RULES = Path(__file__).parent.parent / "rules"
RESOLVED = "unsafe-torch-load"
"""The rule that the resolver decides together with semgrep."""
GROUPS = frozenset({"unsafe-deserialization"})
"""Names that stand for every rule that begins with them."""

_ANNOTATION = re.compile(r"#\s*ruleid:\s*(\S+)")
_MENTIONS = re.compile(r"^ +mentions: '(.*)'$", re.MULTILINE)


@cache
def known_rules() -> frozenset[str]:
    """Return the ids of the tool's rules."""
    return frozenset(path.stem for path in RULES.glob("*.yaml"))


def chosen_rules(names: Sequence[str]) -> list[str]:
    """Return the rules that names stand for: a rule, or all of a group."""
    chosen = [
        rule
        for name in names
        for rule in sorted(known_rules())
        if rule == name or (name in GROUPS and rule.startswith(f"{name}-"))
    ]
    return list(dict.fromkeys(chosen))


def texts(rule: str) -> tuple[bytes, bytes]:
    """Return a rule and its examples as they are written."""
    return (RULES / f"{rule}.yaml").read_bytes(), canary(rule).read_bytes()


def canary(rule: str) -> Path:
    """Return the file of a rule's annotated examples, which every scan must find."""
    return RULES / f"{rule}.py"


def prefilter(rule: str) -> Callable[[bytes], object]:
    """Return what is false of a file's bytes only where the file cannot match a rule."""
    if rule == RESOLVED:
        from tiergate.loads import relevance  # noqa: PLC0415 - only where it scans

        return relevance.may_match
    (mentions,) = _MENTIONS.findall((RULES / f"{rule}.yaml").read_text(encoding="utf-8"))
    return re.compile(mentions.encode()).search


def annotated_lines(path: Path, rule: str) -> set[int]:
    """Return the lines of a canary that the rule must find: each is below its annotation."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {
        number + 1
        for number, line in enumerate(lines, start=1)
        if (match := _ANNOTATION.search(line)) and match[1] == rule
    }
