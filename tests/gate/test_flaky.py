"""A test that passes only when it is run again is never a silent pass."""

from __future__ import annotations

import pytest
from samples import PASSES, Sample

# Fails once: the marker lies beside the repository, where a second process finds it.
FLAKY = """
import pathlib

MARKER = pathlib.Path(__file__).parents[2] / "ran"


def test_steady():
    assert True


def test_flaky():
    ran = MARKER.exists()
    MARKER.touch()
    assert ran, "first time"
"""


@pytest.fixture
def flaky(sample: Sample) -> Sample:
    sample.write("tests/test_prices.py", FLAKY)
    return sample


def test_without_retries_it_fails(flaky):
    assert flaky.verdict(PASSES).status == "fail"


def test_a_retry_that_passes_is_reported_by_id_and_fails(flaky):
    verdict = flaky.verdict({**PASSES, "retries": 2})
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"passed": 2, "flaky": 1, "collected": 2}
    (failure,) = verdict.evidence.failures
    assert (failure.id, failure.outcome) == ("tests/test_prices.py::test_flaky", "flaky")
    assert failure.message.startswith("passed when it was run again, attempt 2; at first: ")
    assert "first time" in failure.message


def test_flaky_warn_passes_and_says_so(flaky):
    flaky.gate({**PASSES, "retries": 1, "flaky": "warn"})
    flaky.commit()
    done = flaky.run()
    assert done.returncode == 0
    assert "flaky: tests/test_prices.py::test_flaky" in done.stdout


def test_a_steady_failure_stays_a_failure(sample):
    sample.write("tests/test_prices.py", "def test_a():\n    assert 0\n\ndef test_b():\n    pass\n")
    verdict = sample.verdict({**PASSES, "retries": 2, "flaky": "warn"})
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"passed": 1, "failed": 1, "collected": 2}
