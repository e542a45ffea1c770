"""``tiergate run`` from end to end, as a person or a workflow calls it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from samples import PASSES, Sample, caller_environment, ended

from tiergate import verdict

FAILING = "from shop import total\n\n\ndef test_total():\n    assert total([1, 2]) == 4\n"


def failing(sample: Sample) -> dict[str, Any]:
    sample.write("tests/test_bad.py", FAILING)
    return {
        "id": "bad",
        "uses": "pytest",
        "with": {"paths": ["tests/test_bad.py"]},
        "expect": {"passed": 1},
        "remedy": {"task": "0.7", "owner": "dev-shop", "hint": "look at the sum"},
    }


def command(name: str, code: str = "", **more: Any) -> dict[str, Any]:
    run = ["{python}", "-ISc", code] if code else ["true"]
    return {"id": name, "uses": "command", "with": {"run": run}, **more}


def decide(sample: Sample, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sample.tiergate("decide", ".tiergate", *arguments)


def test_green_gate_prints_the_table_and_the_decision(sample: Sample):
    done = sample.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.search(
        r"^prices +cpu +pass +[0-9.]+ +2 passed, 2 collected$", done.stdout, re.MULTILINE
    )
    assert "\nTIER 0 GATE PASSED — proceed to TIER 1\n" in done.stdout
    assert "\n.tiergate/report.json  (" in done.stdout
    decided = decide(sample)
    assert decided.returncode == 0, decided.stdout
    assert "TIER 0 GATE PASSED" in decided.stdout


def test_report_holds_what_was_judged_and_its_own_schema(sample: Sample):
    assert sample.run().returncode == 0
    data = json.loads((sample.root / ".tiergate/report.json").read_bytes())
    shipped = json.loads(sample.tiergate("schema", "report").stdout)
    jsonschema.Draft202012Validator(shipped).validate(data)
    report = sample.report()
    assert report.complete
    assert report.planned == report.selected == ["prices@cpu"]
    assert report.source.commit == sample.git("rev-parse", "HEAD").strip()
    assert not report.source.dirty
    assert report.environment["pytest"].split(".")[0].isdigit()
    bent = {**data, "complete": "yes"}
    assert not jsonschema.Draft202012Validator(shipped).is_valid(bent)


def test_run_leaves_the_work_tree_clean(sample: Sample):
    assert sample.run().returncode == 0
    assert sample.git("status", "--porcelain", "--untracked-files=all") == ""
    assert (sample.root / ".tiergate/.gitignore").read_text() == "*\n"


def test_red_gate_shows_the_evidence(sample: Sample):
    sample.gate(PASSES, failing(sample))
    done = sample.run()
    assert done.returncode == 1
    shown = textwrap.dedent(done.stdout)
    for part in (
        "expected  passed: 1, failed: 0",
        "observed  passed: 0, failed: 1, collected: 1",
        "failed: tests/test_bad.py::test_total  tests/test_bad.py:5",
        "assert 3 == 4",
        "tiergate run --only bad --device cpu",
        "0.7",
        "dev-shop",
        "look at the sum",
        "TIER 0 GATE FAILED — fix before proceeding",
    ):
        assert part in shown
    assert "GATE PASSED" not in done.stdout
    assert decide(sample).returncode == 1


def test_reproduce_commands_of_the_report_work_when_pasted(sample: Sample, tmp_path: Path):
    sample.gate(PASSES, failing(sample))
    assert sample.run().returncode == 1
    again, plain = sample.verdicts()["bad"].evidence.reproduce
    tiergate = tmp_path / "tiergate"
    tiergate.write_text(f'#!/bin/sh\nexec {sys.executable} -m tiergate "$@"\n')
    tiergate.chmod(0o755)
    done = sample.shell(again, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1, done.stderr
    assert "1 of 2 cells judged: failed" in done.stdout
    done = sample.shell(plain)
    assert done.returncode == 1
    assert "1 failed" in done.stdout


def test_only_judges_what_it_names_and_is_no_decision(sample: Sample):
    sample.gate(PASSES, failing(sample))
    done = sample.run("--only", "prices")
    assert done.returncode == 0
    assert "1 of 2 cells judged: passed. This is no decision on the gate." in done.stdout
    assert "GATE PASSED" not in done.stdout
    assert sample.report().selected == ["prices@cpu"]
    assert decide(sample).returncode == 3
    assert sample.run("--only", "bad").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "price"], "no criterion 'price' (did you mean 'prices'?)"),
        (["--device", "cuda"], "no criterion is judged on 'cuda'"),
        (["--timeout", "0"], "--timeout"),
        (["--timeout", "nan"], "--timeout nan: give a number of seconds"),
        (["--timeout", "soon"], "'soon' is not a valid float"),
        (["--jobs", "0"], "--jobs"),
        (["--spec", "absent.yaml"], "absent.yaml: cannot read the spec"),
        (["--format", "xml"], "--format"),
        (["--repo", "absent"], "absent"),
    ],
)
def test_wrong_command_line_is_told_in_a_line(sample: Sample, arguments: list[str], message: str):
    done = sample.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_interpreter_that_is_not_there_is_told(sample: Sample):
    done = sample.tiergate("run", "--python", "/no/python")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tiergate: --python /no/python: no such interpreter\n"
    done = sample.tiergate("run")
    assert done.returncode == 2
    assert "name it with --python PATH" in done.stderr


def test_interpreter_that_is_none_gives_no_pass(sample: Sample):
    done = sample.tiergate("run", "--python", "true")
    assert done.returncode == 3
    assert sample.verdicts()["prices"].status == "error"
    assert "did not answer" in done.stdout


def test_missing_gpu_is_an_error_and_never_a_skip(sample: Sample):
    criterion = {**PASSES, "devices": ["cpu", "cuda"]}
    sample.gate(criterion, devices=["cpu", "cuda"])
    # The judge's own interpreter: whatever this machine has, it has no torch to reach it with.
    done = sample.tiergate("run", "--python", sys.executable, "--device", "cuda")
    assert done.returncode == 3
    assert "no usable CUDA device" in done.stdout
    assert "NOT EVALUATED" in done.stdout
    assert [v.status for v in sample.report().verdicts] == ["error"]
    assert decide(sample, "--device", "cuda").returncode == 3


def test_timeout_of_the_command_line_ends_a_hanging_test(sample: Sample):
    sample.write(
        "tests/test_hang.py",
        "import pathlib, subprocess, threading\n\n\ndef test_hang():\n"
        "    child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "    pathlib.Path('.tiergate/pid').write_text(str(child.pid))\n"
        "    threading.Event().wait()\n",
    )
    with_ = {"paths": ["tests/test_hang.py"]}
    sample.gate({"id": "hang", "uses": "pytest", "with": with_, "expect": {"passed": 1}})
    done = sample.run("--timeout", "2")
    assert done.returncode == 3
    assert "timed out after 2 s" in done.stdout
    assert "running   tests/test_hang.py::test_hang" in done.stdout
    assert ended(int((sample.root / ".tiergate/pid").read_text()))


def test_cell_with_an_unmet_need_is_blocked(sample: Sample):
    sample.gate(
        command("first", "raise SystemExit(1)"), command("second", needs=["first"]), command("free")
    )
    done = sample.run()
    assert done.returncode == 1
    assert {k: v.status for k, v in sample.verdicts().items()} == {
        "first": "fail",
        "second": "blocked",
        "free": "pass",
    }
    assert re.search(r"^second +cpu +blocked .*needs first@cpu", done.stdout, re.MULTILINE)


def test_tiers_are_decided_one_after_the_other(sample: Sample):
    tiers = [
        {"gate": "TIER 0", "next": "TIER 1", "criteria": [command("low")]},
        {"gate": "TIER 1", "criteria": [command("high", "raise SystemExit(1)")]},
        {"gate": "TIER 2", "criteria": [command("top")]},
    ]
    sample.gate(tiers=tiers)
    done = sample.run()
    assert done.returncode == 1
    assert "TIER 0 GATE PASSED — proceed to TIER 1" in done.stdout
    assert "TIER 1 GATE FAILED" in done.stdout
    assert "TIER 2 GATE PASSED" not in done.stdout
    assert sample.verdicts()["top"].status == "blocked"


def test_json_format_prints_the_report_and_nothing_else(sample: Sample):
    sample.gate(PASSES, failing(sample))
    done = sample.run("--format", "json")
    assert done.returncode == 1
    assert done.stdout == (sample.root / ".tiergate/report.json").read_text()
    assert verdict.decode(done.stdout.encode(), "stdout") == sample.report()


def test_github_format_stops_commands_around_all_that_candidate_code_can_write(
    sample: Sample, tmp_path: Path
):
    sample.write(
        "tests/test_forge.py",
        "def test_forge():\n    print('::error::forged')\n"
        "    raise ValueError('::set-output name=x::y ##[error]forged')\n",
    )
    with_ = {"paths": ["tests/test_forge.py"]}
    body = "printf '::error::forged %s\\n' '##[error]forged'; kill -9 $$"
    sample.gate(
        {"id": "forge", "uses": "pytest", "with": with_, "expect": {"passed": 1}},
        {"id": "own", "uses": "script", "with": {"run": ["sh", "-c", body]}},
    )
    summary = tmp_path / "summary.md"
    done = sample.run("--format", "github", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 1
    token = ""
    outside = []
    for line in done.stdout.splitlines():
        if stop := re.fullmatch(r"::stop-commands::([0-9a-f]{32})", line):
            token = stop[1]
        elif token and line == f"::{token}::":
            token = ""
        elif not token:
            outside.append(line)
    assert not token
    assert all(line.startswith("::error ") for line in outside)
    assert any("file=tests/test_forge.py,line=3" in line for line in outside)
    assert all(line.count("::") == 2 or "forge" in line for line in outside)
    assert summary.read_text().startswith("## TIER 0 GATE FAILED")


def test_second_run_removes_the_first_report_before_it_starts(sample: Sample):
    # The criterion passes only if no report is there while it is evaluated.
    code = "import os; raise SystemExit(os.path.exists('.tiergate/report.json'))"
    sample.gate(command("fresh", code))
    assert sample.run().returncode == 0
    assert (sample.root / ".tiergate/report.json").exists()
    assert sample.run().returncode == 0
    # And where the second run breaks off, there is none: the first is not taken for it.
    done = sample.tiergate("run", "--python", str(sample.root / "gate.yaml"))
    assert done.returncode == 2
    sample.write("bin/python", "").chmod(0o755)
    done = sample.tiergate("run", "--python", str(sample.root / "bin/python"))
    assert done.returncode == 3
    assert "GATE PASSED" not in done.stdout


def test_repository_that_changes_while_it_is_judged_is_no_pass(sample: Sample):
    sample.gate(command("writes", "open('left-over.txt', 'w')"))
    done = sample.run()
    assert done.returncode == 3
    assert "the repository changed while it was judged" in done.stdout
    report = sample.report()
    assert not report.complete
    assert [v.status for v in report.verdicts] == ["pass"]
    assert decide(sample).returncode == 3


def test_report_goes_where_it_is_wanted(sample: Sample, tmp_path: Path):
    done = sample.run("--report", str(tmp_path / "a" / "b"))
    assert done.returncode == 0
    assert verdict.read(tmp_path / "a" / "b").complete
    assert not (sample.root / ".tiergate").exists()


def test_folder_with_other_files_is_not_hidden_from_git(sample: Sample):
    assert sample.run("--report", ".").returncode == 0
    assert not (sample.root / ".gitignore").exists()
    assert (sample.root / "report.json").exists()


def test_folder_that_cannot_be_written_is_told(sample: Sample):
    done = sample.run("--report", "gate.yaml/report")
    assert done.returncode == 2
    assert "choose another folder" in done.stderr


def test_reader_that_goes_away_gets_no_pass(sample: Sample):
    process = sample.start("run", "--python", str(sample.python))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 3
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_report_is_whole_or_the_old_one_when_writing_is_killed(sample: Sample, at: str):
    assert sample.run().returncode == 0
    path = sample.root / ".tiergate/report.json"
    old = path.read_bytes()
    code = (
        "import os, pathlib, signal\n"
        "from tiergate import verdict\n"
        f"directory = pathlib.Path({str(path.parent)!r})\n"
        "report = verdict.read(directory)\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        + ("os.fsync = die\n" if at == "fsync" else "pathlib.Path.replace = die\n")
        + "verdict.write(report, directory)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=caller_environment({}), check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == old
    assert sample.git("status", "--porcelain") == ""
    assert decide(sample).returncode == 0


def test_callers_settings_of_pytest_and_python_do_not_reach_the_tests(sample: Sample):
    sample.gate(failing(sample))
    done = sample.run(PYTEST_ADDOPTS="--collect-only", PYTHONOPTIMIZE="2", PYTEST_PLUGINS="nope")
    assert done.returncode == 1
    assert sample.verdicts()["bad"].evidence.observed == {"failed": 1, "collected": 1}


def test_folder_without_git_can_be_judged(sample: Sample):
    import shutil

    shutil.rmtree(sample.root / ".git")
    done = sample.run()
    assert done.returncode == 0, done.stdout
    assert sample.report().source == verdict.Source()


def test_judge_started_elsewhere_judges_the_repository_it_is_given(sample: Sample, tmp_path: Path):
    elsewhere = Sample(tmp_path / "elsewhere", sample.python)
    elsewhere.root.mkdir()
    done = elsewhere.run("--repo", str(sample.root))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (sample.root / ".tiergate/report.json").exists()
