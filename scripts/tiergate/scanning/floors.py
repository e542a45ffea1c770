"""The torch versions that the project allows, and whether they protect."""

from __future__ import annotations

from collections.abc import Sequence

from tiergate import torch_floor
from tiergate.repository import Repository
from tiergate.scanning.rules import RESOLVED
from tiergate.torch_floor import Floor
from tiergate.verdict import Finding


def findings(floors: Sequence[Floor]) -> list[Finding]:
    """Say where a floor does not protect, which the policy ``floor-2.6`` relies on."""
    message = (
        "the policy floor-2.6 lets weights_only be left out, but the project allows a torch below "
        "2.6, where it is False by default and where even True does not protect "
        "(CVE-2025-32434); declare torch>=2.6"
    )
    if not floors:
        return [Finding(RESOLVED, "pyproject.toml", 1, 1, message, "no torch is declared")]
    return [
        Finding(RESOLVED, floor.path, floor.line, 1, message, floor.text)
        for floor in floors
        if not floor.protects
    ]


def declared(repository: Repository) -> list[Floor]:
    """Return what the repository's own files say of torch's version."""

    def read(name: str) -> bytes:
        path = repository.root / name
        return path.read_bytes() if path.is_file() else b""

    return torch_floor.declared(repository.files, read)
