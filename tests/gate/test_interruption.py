"""An interrupted run leaves no process behind and no report that could pass."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import PASSES, Sample, ended

HANGS = (
    "import os, subprocess, threading\n\n\n"
    "def test_done():\n    assert 1 < 2\n\n\n"
    "def test_hang():\n"
    "    plain = subprocess.Popen(['sleep', '300'])\n"
    "    apart = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
    "    cleared = subprocess.Popen(['/bin/sleep', '300'], start_new_session=True, env={})\n"
    "    with open(os.environ['READY'], 'w') as ready:\n"
    "        print(os.getpid(), plain.pid, apart.pid, cleared.pid, file=ready)\n"
    "    threading.Event().wait()\n"
)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Have no signal ignored that whoever started the tests ignores, as ``nohup`` and ``&`` do.

    A program inherits that, and a judge that is told to ignore a signal does so.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def hanging(sample: Sample, tmp_path: Path) -> Sample:
    sample.write("tests/test_hang.py", HANGS)
    with_ = {"paths": ["tests/test_hang.py"]}
    hang = {"id": "hang", "uses": "pytest", "with": with_, "expect": {"passed": 2}}
    later = {"id": "later", "uses": "command", "with": {"run": ["true"]}, "needs": ["hang"]}
    sample.gate(PASSES, hang, later, env={"READY": str(tmp_path / "ready")})
    os.mkfifo(tmp_path / "ready")
    return sample


def interrupt(
    sample: Sample, ready: Path, *signals: signal.Signals
) -> tuple[int, str, str, list[int]]:
    """Start a run, wait until its test hangs, signal it; return how it ended and the processes."""
    process = sample.start("run", "--python", str(sample.python), "--jobs", "1")
    descriptor = os.open(ready, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([descriptor], [], [], 60)[0], "the test never came to hang"
        os.set_blocking(descriptor, True)
        data = b""
        while not data.endswith(b"\n"):
            data += os.read(descriptor, 100)
    finally:
        os.close(descriptor)
    for number in signals:
        os.kill(process.pid, number)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors, [int(pid) for pid in data.split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_ends_everything_and_reports_what_was_finished(
    hanging: Sample, tmp_path: Path, number: signal.Signals
):
    code, output, errors, pids = interrupt(hanging, tmp_path / "ready", number)
    assert code == 3
    assert f"{number.name}: ending what runs, then writing the report" in errors
    assert "Traceback" not in errors
    assert all(ended(pid) for pid in pids)
    assert len(pids) == 4
    report = hanging.report()
    assert not report.complete
    assert report.interruption == f"interrupted by {number.name}"
    statuses = {verdict.criterion: verdict.status for verdict in report.verdicts}
    assert statuses == {"prices": "pass", "hang": "error"}
    hang = hanging.verdicts()["hang"]
    assert hang.evidence.running == "tests/test_hang.py::test_hang"
    assert hang.evidence.observed["passed"] == 1
    assert "GATE PASSED" not in output
    decided = hanging.tiergate("decide", ".tiergate")
    assert decided.returncode == 3
    assert f"incomplete: interrupted by {number.name}" in decided.stdout


def test_impatient_second_interrupt_changes_nothing(hanging: Sample, tmp_path: Path):
    code, _, errors, pids = interrupt(
        hanging, tmp_path / "ready", signal.SIGINT, signal.SIGTERM, signal.SIGINT
    )
    assert code == 3
    assert "Traceback" not in errors
    assert all(ended(pid) for pid in pids)
    assert not hanging.report().complete


def test_interrupted_report_never_passes_even_if_every_cell_did(sample: Sample):
    assert sample.run().returncode == 0
    path = sample.root / ".tiergate/report.json"
    bent = path.read_text().replace('"complete": true', '"complete": false')
    assert bent != path.read_text()
    path.write_text(bent)
    assert sample.tiergate("decide", ".tiergate").returncode == 3


def test_interrupt_before_anything_runs_is_no_pass(sample: Sample, tmp_path: Path):
    # The interpreter takes its time: the run is still asking what it is.
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ > {ready}\nexec sleep 300\n")
    python.chmod(0o755)
    sample.python = python
    code, output, _, pids = interrupt(sample, ready, signal.SIGTERM)
    assert code == 3
    assert all(ended(pid) for pid in pids)
    report = sample.report()
    assert (report.complete, report.verdicts) == (False, [])
    assert "GATE PASSED" not in output


def test_killed_judge_leaves_no_report(hanging: Sample, tmp_path: Path):
    code, _, _, pids = interrupt(hanging, tmp_path / "ready", signal.SIGKILL)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert code == -signal.SIGKILL
    assert not (hanging.root / ".tiergate/report.json").exists()
    decided = hanging.tiergate("decide", ".tiergate")
    assert decided.returncode == 3
