"""``command``: the exit code of a program, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from samples import Sample, ended

from tiergate.spec import SpecError
from tiergate.verdict import Verdict


def command(sample: Sample, *run: str, **more: Any) -> Verdict:
    return sample.verdict({"id": "build", "uses": "command", "with": {"run": list(run)}, **more})


def test_exit_code_zero_passes_and_any_other_fails(sample: Sample):
    assert command(sample, "true").status == "pass"
    verdict = command(sample, "sh", "-c", "echo why; exit 3")
    assert (verdict.status, verdict.evidence.observed) == ("fail", {"exit-code": 3})
    assert verdict.summary == "3 exit-code; exit-code: expected 0, observed 3"
    assert verdict.evidence.output == "why\n"


def test_another_exit_code_can_be_expected(sample: Sample):
    expect = {"exit-code": 3}
    assert command(sample, "sh", "-c", "exit 3", expect=expect).status == "pass"
    assert command(sample, "true", expect=expect).status == "fail"


def test_program_runs_at_the_root_in_the_candidates_environment(sample: Sample, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    code = (
        "import os; assert os.path.exists('gate.yaml'); "
        "assert os.environ['TIERGATE_DEVICE'] == 'cpu'; assert 'GITHUB_TOKEN' not in os.environ"
    )
    verdict = command(sample, "{python}", "-c", code)
    assert verdict.status == "pass", verdict.evidence.output
    assert verdict.evidence.reproduce[-1].startswith(f"{sample.python} -c ")


@pytest.mark.parametrize(
    ("run", "summary"),
    [
        (("/no/such",), "cannot start '/no/such': No such file or directory"),
        (("sh", "-c", "kill -SEGV $$"), "ended by signal SIGSEGV"),
    ],
)
def test_program_that_cannot_be_evaluated_is_an_error(sample: Sample, run, summary: str):
    verdict = command(sample, *run)
    assert (verdict.status, verdict.summary) == ("error", summary)


def test_program_that_hangs_is_an_error_and_is_ended(sample: Sample):
    verdict = command(sample, "sh", "-c", "sleep 60 & echo $!; wait", timeout=0.5)
    assert (verdict.status, verdict.summary) == ("error", "timed out after 0.5 s")
    assert ended(int(verdict.evidence.output))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (["make test"], r"no shell reads this; write \['make', 'test'\] as a list"),
        (["echo 'unclosed"], "no shell reads this"),
        (["false", "||", "true"], r"'\|\|' means nothing without a shell"),
        (["make", ">", "log"], "'>' means nothing without a shell"),
        ([], "must not be empty"),
    ],
)
def test_shell_line_is_refused_in_the_spec(sample: Sample, run: list[str], message: str):
    with pytest.raises(SpecError, match=message):
        command(sample, *run)
