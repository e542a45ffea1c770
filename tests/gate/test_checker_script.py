"""``script``: a program's own verdict, believed only when it is one."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
from samples import Sample

from tiergate.verdict import Verdict

PREAMBLE = f"#!{os.path.realpath(sys.executable)} -IS\nimport json, sys\n"


def script(sample: Sample, body: str, *, expect: Any = None, **with_: Any) -> Verdict:
    sample.write("tools/check", PREAMBLE + body)
    (sample.root / "tools/check").chmod(0o755)
    criterion = {"id": "own", "uses": "script", "with": {"run": ["tools/check"], **with_}}
    return sample.verdict({**criterion, "timeout": 5, **({"expect": expect} if expect else {})})


def says(**answer: Any) -> str:
    return f"print(json.dumps({answer!r}))\n"


def test_pass_and_fail_are_the_scripts_word(sample: Sample):
    verdict = script(sample, says(status="pass", summary="all licences known"))
    assert (verdict.status, verdict.summary) == ("pass", "all licences known")
    verdict = script(
        sample,
        says(
            status="fail",
            observed={"unknown": 2},
            failures=[{"id": "src/a.py", "outcome": "unknown"}],
            findings=[
                {"rule": "licence", "path": "src/a.py", "line": 1, "column": 1, "message": "none"}
            ],
            notes=["read 2 files"],
        ),
    )
    assert (verdict.status, verdict.summary) == ("fail", "2 unknown")
    assert verdict.evidence.failures[0].id == "src/a.py"
    assert verdict.evidence.findings[0].rule == "licence"
    assert "read 2 files" in verdict.evidence.notes


def test_expectation_counts_on_top_of_the_scripts_word(sample: Sample):
    body = says(status="pass", observed={"checked": 3})
    assert script(sample, body, expect={"checked": 3}).status == "pass"
    assert script(sample, body, expect={"checked": ">=4"}).status == "fail"
    assert script(sample, says(status="pass"), expect={"checked": ">=1"}).status == "fail"


def test_script_is_asked_with_the_criterion(sample: Sample):
    body = "print(json.dumps({'status': 'fail', 'notes': [json.dumps(json.load(sys.stdin))]}))"
    verdict = script(sample, body, parameters={"limit": 3, "deep": {"list": [1, "ü"]}})
    assert json.loads(verdict.evidence.notes[0]) == {
        "criterion": "own",
        "name": "own",
        "device": "cpu",
        "repository": str(sample.root),
        "python": str(sample.python),
        "parameters": {"limit": 3, "deep": {"list": [1, "ü"]}},
    }


def test_script_that_could_not_evaluate_is_an_error(sample: Sample):
    assert script(sample, says(status="error", summary="no network")).summary == "no network"
    verdict = script(sample, says(status="error"))
    assert verdict.status == "error"
    assert verdict.summary == "the script says that it could not evaluate"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("", "it wrote ''"),
        ("print('PASS')", "it wrote 'PASS\\n'"),
        ("print('log line'); print('{\"status\": \"pass\"}')", "it wrote 'log line"),
        ('print(\'{"status": "pass"}\'); print(\'{"status": "pass"}\')', "not a verdict"),
        ('print(\'{"status": "pass"\')', "not a verdict"),
        ("print('[]')", "Expected `object`, got `array`"),
        ("print('null')", "Expected `object`, got `null`"),
        ("print('{}')", "missing required field `status`"),
        ('print(\'{"status": "waived"}\')', "Invalid enum value 'waived'"),
        ('print(\'{"status": "passed"}\')', "Invalid enum value 'passed'"),
        ('print(\'{"status": "pass", "extra": 1}\')', "unknown field `extra`"),
        ('print(\'{"status": "pass", "observed": {"n": -1}}\')', "Expected `int` >= 0"),
        ('print(\'{"status": "pass", "observed": {"n": "1"}}\')', "Expected `int`"),
        ('sys.stdout.buffer.write(b\'{"status": "pass", "summary": "\\xff"}\')', "not a verdict"),
        ('print(\'{"status": "pass", "summary": "\\\\ud800"}\')', "not a verdict"),
        (
            'print(\'{"status": "pass", "summary": "\' + \'x\' * 5_000_000 + \'"}\')',
            "not a verdict",
        ),
    ],
)
def test_output_that_is_no_verdict_is_an_error_that_shows_it(sample: Sample, body: str, shown: str):
    verdict = script(sample, body)
    assert verdict.status == "error"
    assert "the script's output is not a verdict" in verdict.summary
    assert shown in verdict.summary


@pytest.mark.parametrize(
    ("body", "summary"),
    [
        (says(status="pass") + "sys.exit(1)", "the script ended with exit code 1"),
        (says(status="pass") + "import os; os.kill(os.getpid(), 9)", "ended with signal SIGKILL"),
        (says(status="pass") + "sys.stdout.flush(); import time; time.sleep(60)", "timed out"),
    ],
)
def test_pass_of_a_script_that_did_not_end_well_is_an_error(
    sample: Sample, body: str, summary: str
):
    criterion = {"id": "own", "uses": "script", "with": {"run": ["tools/check"]}, "timeout": 1}
    sample.write("tools/check", PREAMBLE + body)
    (sample.root / "tools/check").chmod(0o755)
    verdict = sample.verdict(criterion)
    assert verdict.status == "error"
    assert summary in verdict.summary
    if "timed" not in summary:
        assert "status" in verdict.evidence.output or "SIGKILL" in summary


def test_script_that_is_not_there_is_an_error(sample: Sample):
    verdict = sample.verdict({"id": "own", "uses": "script", "with": {"run": ["tools/none"]}})
    assert verdict.status == "error"
    assert verdict.summary == "cannot start 'tools/none': No such file or directory"


def test_reproduce_command_asks_the_same_question(sample: Sample):
    # The shell's echo would read the backslashes in it.
    body = (
        "asked = json.load(sys.stdin)['parameters']\n"
        "print(json.dumps({'status': 'fail', 'summary': asked['text']}))\n"
    )
    text = "one\ntwo\\three \"quoted\" 'single' $HOME ü"
    verdict = script(sample, body, parameters={"text": text})
    assert verdict.summary == text
    command = verdict.evidence.reproduce[-1]
    done = sample.shell(command)
    assert json.loads(done.stdout)["summary"] == text
