"""Fixtures of the tests of the judge."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from samples import FILES, PASSES, ROOT, Sample


@pytest.fixture(scope="session")
def candidate_python() -> Path:
    """The candidate's interpreter; that there is none is an error, never a skip."""
    named = os.environ.get("TIERGATE_CANDIDATE")
    path = Path(named) if named else ROOT / ".venvs" / "candidate" / "bin" / "python"
    if not os.access(path, os.X_OK):
        raise RuntimeError(
            f"no candidate interpreter at {path}: run scripts/test, which makes it, or name one "
            "that has pytest with TIERGATE_CANDIDATE"
        )
    return path.absolute()


@pytest.fixture
def sample(tmp_path: Path, candidate_python: Path) -> Sample:
    """A committed repository whose gate passes."""
    made = Sample(tmp_path / "sample", candidate_python)
    for name, content in FILES.items():
        made.write(name, content)
    made.gate(PASSES)
    made.commit()
    return made
