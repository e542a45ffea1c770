"""All cases, in the order of the table."""

from __future__ import annotations

import attack_bodies
import attack_checkpoints
import attack_collection
import attack_elsewhere
import attack_imports
import attack_outcomes
import attack_process
import attack_semgrep
import attack_unrun
from attack_case import Attack, Control

SECTIONS: dict[str, list[Attack]] = {
    "What a test's outcome says": attack_outcomes.ATTACKS,
    "Which tests there are": attack_collection.ATTACKS,
    "What a test's body is": [*attack_bodies.ATTACKS, *attack_unrun.ATTACKS],
    "What comes from elsewhere": attack_elsewhere.ATTACKS,
    "How the process ends": attack_process.ATTACKS,
    "What imports": attack_imports.ATTACKS,
    "What semgrep finds": attack_semgrep.ATTACKS,
    "What model files hold": attack_checkpoints.ATTACKS,
}

ATTACKS = [attack for attacks in SECTIONS.values() for attack in attacks]


def controls() -> list[tuple[str, Control]]:
    """Return every control once, with the criterion that it is judged by."""
    found: dict[tuple[str, str], tuple[str, Control]] = {}
    for attack in ATTACKS:
        found.setdefault(
            (attack.criterion, attack.control.name), (attack.criterion, attack.control)
        )
    return list(found.values())
