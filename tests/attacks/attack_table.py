"""Writes docs/attacks.md from the suite and from what was measured.

python tests/attacks/attack_table.py
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import attack_beyond  # noqa: E402 - this file is a program as well, found beside the suite
import attack_platform  # noqa: E402
import attack_shards  # noqa: E402
import attack_suite  # noqa: E402

PAGE = ROOT / "docs" / "attacks.md"
RESULTS = Path(__file__).with_name("ordinary.json")


def page() -> str:
    """Return the page's text."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    outcomes = measured["attacks"]
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    between = [(attack.way, attack.shows) for attack in attack_platform.REPORTS]
    between += [(attack.way, attack.shows) for attack in attack_platform.SPECS]
    between += [(attack.way, attack.shows) for attack in attack_platform.BASES]
    between += [(attack.way, attack.shows) for attack in attack_shards.REPORTS]
    between += [(attack.way, attack.shows) for attack in attack_shards.SUITES]
    total = len(attack_suite.ATTACKS)
    yield "# Attacks"
    yield ""
    yield (
        "Ways in which a pipeline goes green wrongly, each tried on a small repository. The code "
        "is broken in most of them, and the change hides it. This page is made from the suite in "
        "`tests/attacks`, which requires every attack to be red with the words below in its "
        "verdict, and every control, a harmless neighbour of the attack, to be green."
    )
    yield ""
    yield (
        "The ordinary pipeline is pytest, then semgrep with the same rule and `--error`, then "
        "`python -c` with the import: as a shell script with `set -e`, and as local hooks under "
        f"`pre-commit run --all-files`. Measured with {versions} by "
        "`tests/attacks/measure_ordinary.py`."
    )
    yield ""
    yield from _table(
        ("", "red", "green: the attack works", "hangs"),
        [
            *(
                (f"{total} attacks, {name}", *_totals(outcomes, key))
                for name, key in (("shell script", "shell"), ("pre-commit", "pre-commit"))
            ),
            (f"{total} attacks, the gate", str(total), "0", "0"),
            (f"{len(between)} attacks between legs, the gate", str(len(between)), "0", "0"),
            (
                f"{len(attack_beyond.CASES)} cases beyond the gate",
                "0",
                str(len(attack_beyond.CASES)),
                "0",
            ),
        ],
    )
    yield ""
    yield f"{len(attack_suite.controls())} controls, all green."
    for title, section in attack_suite.SECTIONS.items():
        yield from ("", f"## {title}", "")
        yield from _table(
            ("way", "shell script", "pre-commit", "the gate: red, and says"),
            [(a.way, *outcomes[a.name].values(), _quoted(a.shows)) for a in section],
        )
    yield from ("", "## Between the legs", "")
    yield (
        "A platform's own aggregation cannot be measured in a shell. These are handed to the "
        "decision as the platform would hand them over."
    )
    yield ""
    yield from _table(
        ("way", "the gate: red, and says"), [(way, _quoted(shows)) for way, shows in between]
    )
    yield from ("", "## Beyond the gate", "")
    yield (
        "What a gate cannot see from its place: here the gate is green as well. "
        "[The threat model](threat-model.md) says why, and what stands against it."
    )
    yield ""
    yield from _table(
        ("way", "answered by"), [(case.way, case.answer) for case in attack_beyond.CASES]
    )


def _totals(outcomes: dict[str, dict[str, str]], pipeline: str) -> tuple[str, str, str]:
    count = Counter(outcome[pipeline] for outcome in outcomes.values())
    return str(count["red"]), str(count["green"]), str(count["hangs"])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _quoted(text: str) -> str:
    return f"“{text}”"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
