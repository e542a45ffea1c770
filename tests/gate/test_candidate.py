"""Only a probe that spoke to its end, in its own words, is believed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from samples import Sample

from tiergate.candidate import find_python
from tiergate.errors import NotEvaluatedError, UserError

# Stands in for an interpreter: it gets the arguments and the job that the probe would get.
_STAND_IN = """#!{python} -IS
import json, os, sys
fd, job = int(sys.argv[-1]), json.load(sys.stdin)
count = 0
def send(event, nonce=job["nonce"], number=None, **values):
    global count
    record = dict(nonce=nonce, number=count if number is None else number, event=event, **values)
    os.write(fd, json.dumps(record).encode() + b"\\n")
    count += 1
{body}
"""
_UNBELIEVED = "its record pipe carried something that the probe did not write"


def stand_in(sample: Sample, body: str) -> Sample:
    python = sample.root.parent / "stand-in"
    python.write_text(_STAND_IN.format(python=os.path.realpath(sys.executable), body=body))
    python.chmod(0o755)
    sample.python = python
    return sample


def test_job_with_its_closing_record_is_believed(sample: Sample):
    body = "send('seen', what='x'); send('seen', what='é'); send('closed', status=5)"
    result = stand_in(sample, body).candidate().run_job("any", "cpu", 30, {})
    assert (result.problem, result.status) == ("", 5)
    assert [record["what"] for record in result.of("seen")] == ["x", "é"]


def test_records_are_told_as_they_arrive_without_the_closing_one(sample: Sample):
    told = []
    candidate = stand_in(sample, "send('one'); send('two'); send('closed', status=0)").candidate()
    candidate.run_job("any", "cpu", 30, {}, told.append)
    assert [record["event"] for record in told] == ["one", "two"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("send('seen')", "ended without its closing record (exit code 0)"),
        ("send('seen'); sys.exit(4)", "ended without its closing record (exit code 4)"),
        ("os.kill(os.getpid(), 9)", "ended without its closing record (signal SIGKILL)"),
        ("send('closed', status=0); sys.exit(1)", "exit code 1 after its closing record"),
        ("send('closed', status=0); os.abort()", "signal SIGABRT after its closing record"),
        ("send('closed', status=0, nonce='0' * 32)", _UNBELIEVED),
        ("send('closed', status=0, nonce=None)", _UNBELIEVED),
        ("send('closed', status=0, number=1)", _UNBELIEVED),
        ("send('a'); send('b', number=0); send('closed', status=0)", _UNBELIEVED),
        ("send('closed', status=0); send('late')", _UNBELIEVED),
        ("send('closed', status=0); send('closed', status=0)", _UNBELIEVED),
        ("os.write(fd, b'noise\\n'); send('closed', status=0)", _UNBELIEVED),
        ("os.write(fd, b'[]\\n1\\nnull\\n'); send('closed', status=0)", _UNBELIEVED),
        ("os.write(fd, b'\\xff\\n'); send('closed', status=0)", _UNBELIEVED),
        ("os.write(fd, b'\\n'); send('closed', status=0)", _UNBELIEVED),
        (
            (
                "os.write(fd, json.dumps({'nonce': job['nonce'], 'number': 0, 'event': 'closed', "
                "'status': 0}).encode())"
            ),
            "ended without its closing record (exit code 0)",
        ),
    ],
)
def test_job_is_not_believed(sample: Sample, body: str, problem: str):
    result = stand_in(sample, body).candidate().run_job("any", "cpu", 30, {})
    assert result.problem == problem
    assert result.status == -1


def test_timed_out_job_says_so_and_keeps_its_output(sample: Sample):
    body = "import time; print('so far', flush=True); send('seen'); time.sleep(60)"
    result = stand_in(sample, body).candidate().run_job("any", "cpu", 0.5, {})
    assert result.problem == "timed out after 0.5 s; its process group was ended"
    assert (result.output, len(result.of("seen"))) == ("so far\n", 1)


def test_cancelled_job_gives_the_reason(sample: Sample):
    candidate = stand_in(sample, "import time; send('seen'); time.sleep(60)").candidate()
    result = candidate.run_job(
        "any", "cpu", 30, {}, lambda _: candidate.cancellation.cancel("interrupted by SIGINT")
    )
    assert result.problem == "cancelled: interrupted by SIGINT"


def test_output_that_is_no_text_is_kept_readable(sample: Sample):
    body = "os.write(1, b'a\\xffb'); os.write(2, b'c'); send('closed', status=0)"
    assert stand_in(sample, body).candidate().run_job("any", "cpu", 30, {}).output == "a\ufffdbc"


def test_interpreter_is_isolated_and_told_where_to_look(sample: Sample):
    body = "print(sys.argv[1:3], job['pythonpath'], job['repository'], os.getcwd(), job['mine'])"
    result = stand_in(sample, body).candidate().run_job("any", "cpu", 30, {"mine": 7})
    root = sample.root
    assert result.output.strip() == f"['-I', '-B'] ['{root}/src'] {root} {root} 7"


def test_interpreter_that_cannot_run_is_an_error_of_the_evaluation(sample: Sample):
    sample.python = sample.write("python", "")
    with pytest.raises(NotEvaluatedError, match=r"cannot start .*python': Permission denied"):
        sample.candidate().run_job("environment", "cpu", 30, {})


def make_python(folder: Path) -> Path:
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    return python


def test_interpreter_is_the_named_one(tmp_path: Path, monkeypatch):
    python = make_python(tmp_path / "elsewhere")
    make_python(tmp_path / ".venv")
    assert find_python(str(python), tmp_path) == python
    monkeypatch.setenv("PATH", str(python.parent))
    assert find_python("python", tmp_path) == python


def test_interpreter_that_is_named_and_not_there_is_an_error(tmp_path: Path):
    make_python(tmp_path / ".venv")
    with pytest.raises(UserError, match=r"--python /no/python: no such interpreter"):
        find_python("/no/python", tmp_path)


def test_interpreter_is_the_active_one_before_the_repositorys_own(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    with pytest.raises(UserError, match="name it with --python PATH"):
        find_python(None, tmp_path)
    local = make_python(tmp_path / "venv")
    assert find_python(None, tmp_path) == local
    dotted = make_python(tmp_path / ".venv")
    assert find_python(None, tmp_path) == dotted
    active = make_python(tmp_path / "active")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "active"))
    assert find_python(None, tmp_path) == active


def test_environments_python_is_not_resolved_to_the_one_that_made_it(tmp_path: Path):
    # Resolved, it would lose the environment's packages.
    link = tmp_path / "bin" / "python"
    link.parent.mkdir()
    link.symlink_to(sys.executable)
    assert find_python(str(link), tmp_path) == link
