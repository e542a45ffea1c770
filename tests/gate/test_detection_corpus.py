"""Every labelled case: what is unsafe is found, what is safe is left alone."""

from __future__ import annotations

from pathlib import Path

import detection
import pytest
from samples import Sample

from tiergate.checkers import Observation

CASES = detection.cases()


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, candidate_python: Path) -> Observation:
    """The checker's answer on all cases at once, as one repository."""
    root = tmp_path_factory.mktemp("corpus") / "corpus"
    detection.write(CASES, root)
    with_ = {"rules": ["unsafe-torch-load"], "paths": ["."]}
    return Sample(root, candidate_python).observe({"id": "l", "uses": "semgrep", "with": with_})


@pytest.fixture(scope="module")
def score(observed: Observation) -> detection.Score:
    return detection.score(
        CASES,
        [(finding.path, finding.line) for finding in observed.findings],
        [note.split(":", 1)[0] for note in observed.notes],
    )


def test_the_corpus_is_large_and_of_both_kinds():
    assert len(CASES) >= 200
    assert sum(bool(case.unsafe) for case in CASES) >= 100
    assert sum(not case.unsafe and not case.part for case in CASES) >= 70


def test_nothing_unsafe_is_missed(score: detection.Score):
    assert score.missed == ()
    assert score.recall == 1.0


def test_at_most_one_report_in_fifty_is_wrong(score: detection.Score):
    assert score.wrong == ()
    assert score.precision >= 0.98


def test_every_file_that_cannot_be_analysed_is_named(observed: Observation):
    unreadable = {case.folder for case in CASES if case.kind == "files"} - {
        "files/mapping-pattern"  # valid Python, that only semgrep cannot read: it is found
    }
    named = {note.split(":", 1)[0].rsplit("/", 1)[0] for note in observed.notes}
    assert unreadable <= named
    assert observed.error.startswith("files that could not be analysed: ")


def test_findings_say_which_of_the_two_saw_them(observed: Observation):
    seen = {finding.message.rsplit("[seen by ", 1)[-1] for finding in observed.findings}
    assert seen == {"semgrep]", "the resolver]", "semgrep and the resolver]"}


def test_scoring_tells_a_miss_and_a_false_alarm():
    case = detection._case("direct", "two", "import torch\ntorch.load(p) #! unsafe\n")
    path = "direct/two/case.py"
    assert case.files == {"case.py": b"import torch\ntorch.load(p)\n"}
    assert detection.score([case], []).recall == 0.0
    assert detection.score([case], [(path, 2)]).precision == 1.0
    wrong = detection.score([case], [(path, 1), (path, 2)])
    assert (wrong.recall, wrong.precision, wrong.wrong) == (1.0, 0.5, (f"{path}:1",))


def test_the_page_is_measured_on_these_cases():
    unsafe = sum(len(case.unsafe) for case in CASES)
    text = (detection.CORPUS.parents[1] / "docs" / "detection.md").read_text()
    assert f"{len(CASES)} cases with {unsafe} unsafe places" in text, (
        "run ./scripts/bench detection --only cases --write"
    )
