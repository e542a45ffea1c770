"""Fixtures of the tests of the judge."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from samples import FILES, PASSES, ROOT, Sample, light_environment

from tiergate.commands import options
from tiergate.warm import WarmInterpreter


@pytest.fixture(autouse=True)
def no_verdicts_of_earlier_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in this process leaves the user's cache alone; `samples` does it for the others."""
    monkeypatch.setattr(options, "opened_cache", lambda *_, **__: nullcontext())


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


@pytest.fixture(scope="session")
def light_python(tmp_path_factory: pytest.TempPathFactory, candidate_python: Path) -> Path:
    """An interpreter like the candidate's that has pytest and nothing else."""
    return light_environment(candidate_python, tmp_path_factory.mktemp("light") / "venv")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, light_python: Path) -> Sample:
    """What every sample is a copy of."""
    made = Sample(tmp_path_factory.mktemp("template") / "sample", light_python)
    for name, content in FILES.items():
        made.write(name, content)
    made.gate(PASSES)
    made.commit()
    return made


@pytest.fixture(scope="session")
def warm_interpreter(template: Sample) -> Iterator[WarmInterpreter]:
    """The interpreter of samples, with pytest imported: it forks what they run."""
    with WarmInterpreter(template.python, template.candidate().environment("cpu"), ["pytest"]) as w:
        yield w


@pytest.fixture
def warm(sample: Sample, warm_interpreter: WarmInterpreter) -> None:
    """Lets the sample be judged in forked processes, as ``tiergate run`` does, to save time."""
    sample.warm = warm_interpreter


@pytest.fixture
def sample(template: Sample, tmp_path: Path) -> Sample:
    """A committed repository whose gate passes."""
    copy = tmp_path / "sample"
    shutil.copytree(template.root, copy)
    return Sample(copy, template.python)
