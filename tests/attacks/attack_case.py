"""What an attack is: data, so that the same cases are judged, measured and tabulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attack_sample import Changes


@dataclass(frozen=True)
class Control:
    """A harmless neighbour of an attack, which must stay green."""

    name: str
    changes: Changes
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attack:
    """One way in which a pipeline goes green wrongly."""

    name: str
    way: str
    """In words, for the table."""
    criterion: str
    """The criterion of the sample's gate that must be red."""
    changes: Changes
    shows: str
    """What the verdict must name."""
    control: Control
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the shell that the pipeline is started from."""


@dataclass(frozen=True)
class Beyond:
    """What a gate in the same process cannot see: green here, and answered elsewhere."""

    name: str
    way: str
    criterion: str
    changes: Changes
    answer: str
