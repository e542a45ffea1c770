"""The gate of this repository turns red when what it guards breaks, and with the right evidence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from samples import ROOT, Sample, copy_of_this_repository

from tiergate import spec
from tiergate.candidate import warmed
from tiergate.verdict import Evidence
from tiergate.warm import WarmInterpreter

UTILITIES = (
    "get_model_size",
    "calculate_safe_batch_size",
    "validate_model_diversity",
    "detect_training_divergence",
    "compute_population_diversity",
)


@dataclass(frozen=True)
class Break:
    """A change to this repository, and what the one criterion that it concerns must then see.

    ``edits`` are (file, old, new): ``old`` occurs there exactly once; None stands for no file yet.
    """

    name: str
    criterion: str
    edits: tuple[tuple[str, str | None, str], ...]
    observed: Mapping[str, int]


BREAKS = (
    Break(
        "utilities-not-exported",
        "ISS-001",
        (
            (
                "src/cross_phase/utils/__init__.py",
                "__all__ = [\n",
                f"del {', '.join(UTILITIES)}\n\n__all__ = [\n",
            ),
        ),
        {"missing": 5},
    ),
    Break(
        "wandb-test-removed",
        "ISS-002",
        (
            (
                "tests/unit/test_wandb_integration.py",
                "def test_metrics_count_adds_up_to_676(",
                "def metrics_count_adds_up_to_676(",
            ),
        ),
        {"collected": 8},
    ),
    Break(
        "optimizer-without-config",
        "ISS-003",
        (
            (
                "src/cross_phase/mugrokfast/optimizer.py",
                "        config: MuGrokConfig | None = None,\n",
                "        config: MuGrokConfig | None = None,\n        /,\n",
            ),
        ),
        {"passed": 8, "failed": 3, "collected": 11},
    ),
    Break(
        "unsafe-load",
        "ISS-004",
        (
            (
                "src/cross_phase/legacy.py",
                None,
                "import torch\n\n\ndef read(path):\n    return torch.load(path)\n",
            ),
        ),
        {"findings": 1},
    ),
    Break(
        "item-on-a-batch",
        "ISS-005",
        (
            (
                "src/phase3_quietstar/thought_generator.py",
                "        token_ids.append(sampled)\n",
                "        token_ids.append(sampled.new_tensor([sampled.item()]))\n",
            ),
        ),
        {"passed": 21, "failed": 18, "collected": 39},
    ),
    Break(
        "test-file-with-an-import-error",
        "collection",
        (
            (
                "tests/unit/test_of_something_gone.py",
                None,
                "from cross_phase.gone import Gone\n\n\ndef test_gone():\n    assert Gone()\n",
            ),
        ),
        {"errors": 1},
    ),
)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, candidate_python: Path) -> Sample:
    return copy_of_this_repository(tmp_path_factory.mktemp("untouched") / "copy", candidate_python)


@pytest.fixture(scope="module")
def interpreter(untouched: Sample) -> Iterator[WarmInterpreter]:
    """What ``tiergate run`` starts for each run, here once for all."""
    with warmed(untouched.candidate(), "cpu", "fork") as candidate:
        assert candidate.warm is not None
        yield candidate.warm


@pytest.fixture
def copy(untouched: Sample, interpreter: WarmInterpreter, tmp_path: Path) -> Sample:
    shutil.copytree(untouched.root, tmp_path / "copy", symlinks=True)
    return Sample(tmp_path / "copy", untouched.python, warm=interpreter)


def apply(broken: Break, sample: Sample) -> None:
    for name, old, new in broken.edits:
        path = sample.root / name
        if old is None:
            assert not path.exists()
            sample.write(name, new)
        else:
            text = path.read_text()
            assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
            path.write_text(text.replace(old, new))


def test_untouched_copy_passes_tier_0(untouched: Sample):
    done = untouched.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TIER 0 GATE PASSED — proceed to TIER 1 (M4)" in done.stdout


def test_every_criterion_has_its_break():
    gate = spec.load(ROOT / "gate.yaml")
    assert {c.id for c in gate.criteria} == {broken.criterion for broken in BREAKS}


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
def test_break_turns_its_criterion_red(copy: Sample, broken: Break):
    apply(broken, copy)
    verdict = copy.judged(broken.criterion)
    assert verdict.status == "fail", verdict
    observed = verdict.evidence.observed
    expected = dict(broken.observed)
    assert {name: observed.get(name) for name in expected} == expected
    unexpected = set(observed) - set(expected) - {"collected", "scanned", "warnings"}
    assert unexpected == set()
    check_evidence(broken, verdict.evidence)


def test_break_fails_the_gate(copy: Sample):
    apply(BREAKS[0], copy)
    done = copy.run("--only", BREAKS[0].criterion)
    assert done.returncode == 1, done.stdout + done.stderr
    assert [(v.criterion, v.status) for v in copy.report().verdicts] == [("ISS-001", "fail")]


def check_evidence(broken: Break, evidence: Evidence) -> None:
    if broken.criterion == "ISS-001":
        named = {failure.id.removeprefix("cross_phase.utils.") for failure in evidence.failures}
        assert named == set(UTILITIES)
    elif broken.criterion == "ISS-002":
        assert evidence.expected == {"collected": "9"}
    elif broken.criterion == "ISS-004":
        (finding,) = evidence.findings
        assert (finding.path, finding.line) == ("src/cross_phase/legacy.py", 5)
        assert finding.rule == "unsafe-torch-load"
    elif broken.criterion == "collection":
        (failure,) = evidence.failures
        assert failure.id == "tests/unit/test_of_something_gone.py"
        assert "No module named 'cross_phase.gone'" in failure.details
    else:
        (file,) = {failure.id.split("::")[0] for failure in evidence.failures}
        assert len(evidence.failures) == broken.observed["failed"]
        assert file in {
            "tests/unit/test_mugrokfast.py",
            "tests/unit/test_phase3_architecture.py",
        }
