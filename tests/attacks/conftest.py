"""Fixtures of the attack suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attack_gate import Interpreter, interpreter, lean_environment


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """The interpreter that attacked repositories run in."""
    python = lean_environment(tmp_path_factory.mktemp("environment"))
    with interpreter(python) as started:
        yield started
