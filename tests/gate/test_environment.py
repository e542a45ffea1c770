"""Candidate code gets the same environment on a laptop and in CI."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import Sample

from tiergate import environment
from tiergate.environment import candidate_environment, usable_cpus

CHANGES_WHAT_RUNS = [
    "PYTEST_ADDOPTS",
    "PYTEST_PLUGINS",
    "PYTHONPATH",
    "PYTHONOPTIMIZE",
    "PYTHONSTARTUP",
    "PYTHONHASHSEED",
    "GITHUB_TOKEN",
    "GITHUB_OUTPUT",
    "GITHUB_ENV",
    "GITHUB_STEP_SUMMARY",
    "ACTIONS_RUNTIME_TOKEN",
    "LD_PRELOAD",
    "HF_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "TIERGATE_CANDIDATE",
]


def made(caller: dict[str, str], device: str = "cpu", **options: object) -> dict[str, str]:
    return candidate_environment(caller, device=device, **{"threads": 1, "set_": {}, **options})


@pytest.mark.parametrize("name", CHANGES_WHAT_RUNS)
def test_variable_is_left_behind(name: str):
    assert name not in made({name: "x", "PATH": "/bin"})


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*CHANGES_WHAT_RUNS, "PATH", "HOME", "LC_ALL", "X"]), st.text())
)
def test_only_known_variables_pass(caller: dict[str, str]):
    result = made(caller)
    for name, value in caller.items():
        assert result.get(name) == (value if name in {"PATH", "HOME", "LC_ALL"} else None)


def test_spec_can_let_a_variable_pass_and_set_one():
    caller = {"HF_HOME": "/models", "SEED": "1"}
    result = made(caller, passed=("HF_HOME", "ABSENT"), set_={"SEED": "2", "OMP_NUM_THREADS": "7"})
    assert (result["HF_HOME"], result["SEED"], result["OMP_NUM_THREADS"]) == ("/models", "2", "7")
    assert "ABSENT" not in result


def test_device_is_told_and_the_cpu_leg_sees_no_gpu():
    caller = {"CUDA_VISIBLE_DEVICES": "3"}
    assert made(caller)["TIERGATE_DEVICE"] == "cpu"
    assert made(caller)["CUDA_VISIBLE_DEVICES"] == ""
    assert made(caller, "cuda")["TIERGATE_DEVICE"] == "cuda"
    assert made(caller, "cuda")["CUDA_VISIBLE_DEVICES"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in made({}, "cuda")


def test_threads_are_set_for_every_library():
    result = made({"OMP_NUM_THREADS": "64"}, threads=3)
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"]
    assert {result[name] for name in names} == {"3"}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("50000 100000", 1), ("150000 100000", 2), ("1600000 100000", 8), ("max 100000", 8), ("?", 8)],
)
def test_usable_processors_respect_the_control_groups_limit(monkeypatch, limit: str, expected: int):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(environment, "open", lambda *_, **__: io.StringIO(limit), raising=False)
    assert usable_cpus() == expected


def test_candidate_process_really_gets_it(sample: Sample, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("GITHUB_OUTPUT", "/tmp/steps")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    sample.write(
        "tests/test_env.py",
        "import os, sys\n\n\ndef test_env():\n"
        "    assert os.environ['TIERGATE_DEVICE'] == 'cpu'\n"
        "    assert not {n for n in os.environ if n.startswith(('GITHUB', 'PYTHON'))}\n"
        "    assert 'PYTEST_ADDOPTS' not in os.environ\n"
        "    assert sys.flags.optimize == 0\n",
    )
    criterion = {"id": "env", "uses": "pytest", "with": {"paths": ["tests/test_env.py"]}}
    verdict = sample.verdict({**criterion, "expect": {"passed": 1}})
    assert (verdict.status, verdict.summary) == ("pass", "1 passed, 1 collected")
