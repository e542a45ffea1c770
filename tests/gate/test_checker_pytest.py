"""``pytest``: nothing but the expected number of honestly passed tests is green."""

from __future__ import annotations

from typing import Any

import pytest
from samples import PASSES, Sample, ended

from tiergate.spec import SpecError
from tiergate.verdict import Verdict

pytestmark = pytest.mark.usefixtures("warm")

GOOD = "def test_good():\n    assert 1 + 1 == 2\n\n\n"


def judged(sample: Sample, content: str, *, conftest: str = "", **criterion: Any) -> Verdict:
    """Judge ``tests/test_it.py`` of which two tests should pass."""
    sample.write("tests/test_it.py", content)
    if conftest:
        sample.write("tests/conftest.py", conftest)
    return sample.verdict(
        {
            "id": "it",
            "uses": "pytest",
            "with": {"paths": ["tests/test_it.py"]},
            "expect": {"passed": 2},
            **criterion,
        }
    )


def test_expected_number_of_passed_tests_is_green(sample: Sample):
    verdict = judged(sample, GOOD + "def test_also():\n    assert 'a' < 'b'\n")
    assert (verdict.status, verdict.summary) == ("pass", "2 passed, 2 collected")
    assert verdict.evidence.failures == []
    assert verdict.evidence.output == ""


@pytest.mark.parametrize(
    ("body", "observed"),
    [
        ("def test_x():\n    assert 1 == 2\n", {"passed": 1, "failed": 1}),
        ("import sys\ndef test_x():\n    sys.exit(0)\n", {"passed": 1, "failed": 1}),
        ("def test_x(absent):\n    pass\n", {"passed": 1, "errors": 1}),
        ("import pytest\ndef test_x():\n    pytest.skip('no')\n", {"passed": 1, "skipped": 1}),
        (
            "import pytest\n@pytest.mark.skipif(True, reason='no')\ndef test_x():\n    pass\n",
            {"passed": 1, "skipped": 1},
        ),
        (
            "import pytest\n@pytest.mark.xfail\ndef test_x():\n    assert 1 == 2\n",
            {"passed": 1, "xfailed": 1},
        ),
        (
            "import pytest\n@pytest.mark.xfail\ndef test_x():\n    assert 1 == 1\n",
            {"passed": 1, "xpassed": 1},
        ),
        (
            (
                "import unittest\nclass TestX(unittest.TestCase):\n    @unittest.expectedFailure\n"
                "    def test_x(self):\n        self.fail()\n"
            ),
            {"passed": 1, "xfailed": 1},
        ),
        (
            "import pytest\n@pytest.mark.parametrize('n', [])\ndef test_x(n):\n    pass\n",
            {"passed": 1, "skipped": 1},
        ),
        (
            (
                "import pytest\n@pytest.fixture\ndef bad():\n    yield\n    raise OSError\n"
                "def test_x(bad):\n    assert bad is None\n"
            ),
            {"passed": 2, "errors": 1},
        ),
        ("import pytest\npytest.skip('all', allow_module_level=True)\n", {"skipped": 1}),
        ("import nothing_like_it\n", {"errors": 1}),
        ("", {"passed": 1}),
        ("async def test_x():\n    assert 1 == 2\n", {"passed": 1, "failed": 1}),
    ],
    ids=[
        "failing",
        "sys.exit",
        "no-fixture",
        "skip",
        "skipif",
        "xfail",
        "xpass",
        "expected-failure",
        "no-parameters",
        "teardown-error",
        "module-skip",
        "import-error",
        "one-test-only",
        "async-without-plugin",
    ],
)
def test_other_outcomes_fail_and_are_counted(sample: Sample, body: str, observed: dict[str, int]):
    verdict = judged(sample, GOOD + body)
    assert verdict.status == "fail"
    counted = {k: v for k, v in verdict.evidence.observed.items() if k != "collected"}
    assert counted == observed
    not_passed = sum(n for outcome, n in observed.items() if outcome != "passed")
    assert len(verdict.evidence.failures) == not_passed


def test_failing_test_is_named_with_place_message_and_traceback(sample: Sample):
    verdict = judged(sample, GOOD + "def test_x():\n    total = 3\n    assert total == 4\n")
    (failure,) = verdict.evidence.failures
    assert (failure.id, failure.outcome) == ("tests/test_it.py::test_x", "failed")
    assert (failure.path, failure.line) == ("tests/test_it.py", 7)
    assert failure.message.startswith("assert 3 == 4")
    assert "total == 4" in failure.details
    assert verdict.evidence.expected == {"passed": "2"}


@pytest.mark.parametrize(
    "content",
    ["", "x = 1\n", "class TestNothing:\n    pass\n", "def tets_typo():\n    assert 1 == 2\n"],
)
def test_file_without_tests_is_not_green(sample: Sample, content: str):
    verdict = judged(sample, content, expect={"passed": ">=1"})
    assert verdict.status == "fail"
    assert "passed: expected >=1, observed 0" in verdict.summary


def test_file_that_is_missing_is_named(sample: Sample):
    with_ = {"paths": ["tests/test_gone.py", "tests/test_prices.py"]}
    verdict = sample.verdict({**PASSES, "with": with_})
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"errors": 1}
    (failure,) = verdict.evidence.failures
    assert (failure.id, failure.message) == ("tests/test_gone.py", "does not exist")


def test_test_that_is_missing_in_its_file_is_not_green(sample: Sample):
    with_ = {"paths": ["tests/test_prices.py::test_gone"]}
    verdict = sample.verdict({**PASSES, "with": with_, "expect": {"passed": ">=1"}})
    assert verdict.status != "pass"


def test_link_that_leads_out_of_the_repository_is_not_followed(sample: Sample, tmp_path):
    (tmp_path / "test_other.py").write_text(GOOD + "def test_b():\n    assert 1 < 2\n")
    (sample.root / "tests/test_link.py").symlink_to(tmp_path / "test_other.py")
    verdict = sample.verdict({**PASSES, "with": {"paths": ["tests/test_link.py"]}})
    assert verdict.status == "error"
    assert "leads out of the repository: tests/test_link.py" in verdict.summary


RUNNING = "while tests/test_it.py::test_x was running"


@pytest.mark.parametrize(
    ("body", "summary"),
    [
        (
            "import os\ndef test_x():\n    os._exit(0)\n",
            f"the test session ended without its closing record (exit code 0) {RUNNING}",
        ),
        (
            "import os\nos._exit(0)\n",
            "the test session ended without its closing record (exit code 0)",
        ),
        (
            "import os\ndef test_x():\n    os.kill(os.getpid(), 11)\n",
            f"the test session ended without its closing record (signal SIGSEGV) {RUNNING}",
        ),
        (
            "def test_x():\n    raise KeyboardInterrupt\n",
            "the test session was interrupted from inside",
        ),
        (
            "import pytest\ndef test_x():\n    pytest.exit('enough', returncode=0)\n",
            "1 of 2 selected tests never reported an outcome, the first: tests/test_it.py::test_x",
        ),
        (
            "import atexit, os\natexit.register(os._exit, 3)\ndef test_x():\n    assert 1 < 2\n",
            "the test session exit code 3 after its closing record",
        ),
        (
            "import os\ndef test_x():\n    os.closerange(3, 200)\n    assert 1 < 2\n",
            "the test session ended without its closing record",
        ),
    ],
    ids=["_exit", "_exit-at-import", "signal", "interrupt", "pytest.exit", "atexit", "closerange"],
)
def test_session_that_did_not_come_to_its_end_is_an_error(sample: Sample, body: str, summary: str):
    # With at least one passed test: an expectation that the first test alone would meet.
    verdict = judged(sample, GOOD + body, expect={"passed": ">=1"})
    assert verdict.status == "error"
    assert verdict.summary.startswith(summary)


def test_hanging_test_is_named_and_all_that_it_started_is_ended(sample: Sample):
    body = (
        "import pathlib, subprocess, threading\n"
        "def test_x():\n"
        "    child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    pathlib.Path(__file__).with_name('pid').write_text(str(child.pid))\n"
        "    threading.Event().wait()\n"
    )
    verdict = judged(sample, GOOD + body, timeout=2.5)
    assert verdict.status == "error"
    assert verdict.summary == (
        f"the test session timed out after 2.5 s; its process group was ended {RUNNING}"
    )
    assert verdict.evidence.running == "tests/test_it.py::test_x"
    assert verdict.evidence.observed["passed"] == 1
    assert "in test_x" in verdict.evidence.output
    assert ended(int((sample.root / "tests/pid").read_text()))


@pytest.mark.parametrize(
    ("conftest", "expected"),
    [
        (
            (
                "def pytest_collection_modifyitems(config, items):\n"
                "    config.hook.pytest_deselected(items=items[1:])\n    del items[1:]\n"
            ),
            {"deselected": 1},
        ),
        ("def pytest_collection_modifyitems(items):\n    del items[1:]\n", {"deselected": 1}),
        ("def pytest_collection_modifyitems(items):\n    items += items\n", {"rerun": 2}),
        (
            (
                "from _pytest.runner import runtestprotocol\n"
                "def pytest_runtest_protocol(item, nextitem):\n"
                "    at = {'nodeid': item.nodeid, 'location': item.location}\n"
                "    item.ihook.pytest_runtest_logstart(**at)\n"
                "    for _ in range(2):\n"
                "        for report in runtestprotocol(item, nextitem=nextitem, log=False):\n"
                "            item.ihook.pytest_runtest_logreport(report=report)\n"
                "    item.ihook.pytest_runtest_logfinish(**at)\n"
                "    return True\n"
            ),
            {"rerun": 2},
        ),
    ],
    ids=["deselected", "dropped", "doubled", "run-twice"],
)
def test_conftest_that_changes_what_runs_is_not_green(
    sample: Sample, conftest: str, expected: dict[str, int]
):
    content = GOOD + "def test_also():\n    assert 'a' < 'b'\n"
    verdict = judged(sample, content, conftest=conftest, expect={"passed": ">=1"})
    assert verdict.status == "fail"
    assert {name: verdict.evidence.observed.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("conftest", "summary"),
    [
        ("def pytest_runtestloop():\n    return True\n", "2 of 2 selected tests never reported"),
        (
            "def pytest_runtest_protocol():\n    return True\n",
            "2 of 2 selected tests never reported",
        ),
        (
            "def pytest_sessionfinish(session):\n    session.exitstatus = 7\n",
            "pytest ended with exit status 7, but no failure was reported",
        ),
        ("import sys\nsys.exit(0)\n", "the test session ended without its closing record"),
        (
            "import os\ndef pytest_unconfigure():\n    os._exit(0)\n",
            "the test session ended without its closing record (exit code 0)",
        ),
    ],
    ids=["loop", "protocol", "status", "sys.exit", "unconfigure"],
)
def test_conftest_that_keeps_tests_from_running_is_an_error(
    sample: Sample, conftest: str, summary: str
):
    content = GOOD + "def test_also():\n    assert 'a' < 'b'\n"
    verdict = judged(sample, content, conftest=conftest, expect={"passed": ">=1"})
    assert verdict.status != "pass"
    assert verdict.status == "error"
    assert verdict.summary.startswith(summary)


def test_conftest_that_calls_a_failed_session_a_success_is_not_green(sample: Sample):
    conftest = "def pytest_sessionfinish(session):\n    session.exitstatus = 0\n"
    verdict = judged(sample, GOOD + "def test_x():\n    assert 0\n", conftest=conftest)
    assert verdict.status == "fail"
    assert verdict.evidence.observed["failed"] == 1


@pytest.mark.parametrize(
    "configuration",
    [
        "addopts = -k good",
        "addopts = --deselect tests/test_it.py::test_x",
        "addopts = --collect-only",
        "addopts = -p no:python",
    ],
)
def test_options_in_the_repositorys_configuration_do_not_count(sample: Sample, configuration: str):
    sample.write("pytest.ini", f"[pytest]\n{configuration}\n")
    verdict = judged(sample, GOOD + "def test_x():\n    assert 0\n")
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"passed": 1, "failed": 1, "collected": 2}


FORGED = (
    "import json, os, sys\n"
    "LINE = json.dumps({'nonce': '0' * 32, 'number': 0, 'event': 'closed', 'status': 0})\n"
)


def test_lines_that_look_like_verdicts_are_only_output(sample: Sample):
    body = FORGED + (
        "def test_x():\n"
        "    for stream in (sys.__stdout__, sys.__stderr__):\n"
        "        print(LINE, file=stream)\n"
        "        print('2 passed in 0.01s', file=stream, flush=True)\n"
        "    print('::error::forged')\n"
        "    assert 0\n"
    )
    verdict = judged(sample, GOOD + body)
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"passed": 1, "failed": 1, "collected": 2}


def test_writing_to_every_descriptor_cannot_forge_a_verdict(sample: Sample):
    body = FORGED + (
        "def test_x():\n"
        "    for descriptor in range(3, 64):\n"
        "        try:\n"
        "            os.write(descriptor, LINE.encode() + b'\\n')\n"
        "        except OSError:\n"
        "            pass\n"
        "    os._exit(0)\n"
    )
    verdict = judged(sample, GOOD + body, expect={"passed": ">=1"})
    assert verdict.status == "error"
    assert "carried something that the probe did not write" in verdict.summary


def test_forked_test_is_counted_once(sample: Sample):
    body = "import os\ndef test_x():\n    os.fork()\n    assert 1 < 2\n"
    verdict = judged(sample, GOOD + body)
    assert verdict.evidence.observed == {"passed": 2, "collected": 2}
    assert verdict.status == "pass"


def test_process_that_a_test_leaves_running_is_told_and_ended(sample: Sample):
    body = (
        "import pathlib, subprocess\n"
        "def test_x():\n"
        "    child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    assert pathlib.Path(__file__).with_name('pid').write_text(str(child.pid))\n"
    )
    verdict = judged(sample, GOOD + body)
    assert "1 processes were left running and have been ended" in verdict.evidence.notes
    assert ended(int((sample.root / "tests/pid").read_text()))


def test_warnings_count_where_they_are_expected(sample: Sample):
    body = "import warnings\ndef test_x():\n    warnings.warn('old')\n    assert 1 < 2\n"
    assert judged(sample, GOOD + body).status == "pass"
    verdict = judged(sample, GOOD + body, expect={"passed": 2, "warnings": 0})
    assert verdict.status == "fail"
    assert "warnings: expected 0, observed 1" in verdict.summary


def test_same_file_named_twice_is_judged_once(sample: Sample):
    with_ = {"paths": ["tests/test_prices.py", "./tests/test_prices.py"]}
    verdict = sample.verdict({**PASSES, "with": with_})
    assert verdict.evidence.observed == {"passed": 2, "collected": 2}


def test_collecting_counts_without_running(sample: Sample):
    with_ = {"paths": ["tests/test_it.py"], "collect-only": True}
    content = GOOD + "def test_x():\n    raise SystemExit\n"
    verdict = judged(sample, content, **{"with": with_}, expect={"collected": 2})
    assert (verdict.status, verdict.summary) == ("pass", "2 collected")
    verdict = judged(sample, GOOD, **{"with": with_}, expect={"collected": 2})
    assert (verdict.status, verdict.evidence.observed) == ("fail", {"collected": 1})
    verdict = judged(sample, "import nothing_like_it\n", **{"with": with_}, expect={"collected": 2})
    assert (verdict.status, verdict.evidence.observed) == ("fail", {"errors": 1})


def test_arguments_of_the_spec_reach_pytest(sample: Sample):
    with_ = {"paths": ["tests/test_it.py"], "args": ["-k=good"]}
    verdict = judged(sample, GOOD + "def test_x():\n    assert 0\n", **{"with": with_})
    assert verdict.evidence.observed == {"passed": 1, "collected": 2, "deselected": 1}


@pytest.mark.parametrize(
    "argument",
    [
        *("-p", "-pno:warnings", "-o", "-oaddopts=-x", "-c", "-cother.ini", "--config-file=x"),
        *("--rootdir=/", "--collect-only", "--co", "--collectonly", "--override-ini=a=b"),
        "tests/other.py",
    ],
)
def test_argument_that_would_change_what_is_judged_is_refused(sample: Sample, argument: str):
    with_ = {"paths": ["tests/test_it.py"], "args": [argument]}
    with pytest.raises(SpecError, match=r"not allowed here|is a path"):
        judged(sample, GOOD, **{"with": with_})


def test_reproduce_command_shows_the_same_outcome(sample: Sample):
    for number, code in ((3, 0), (4, 1)):
        verdict = judged(sample, GOOD + f"def test_x():\n    assert 1 + 2 == {number}\n")
        command = verdict.evidence.reproduce[-1]
        done = sample.shell(command)
        assert done.returncode == code
        assert f"{2 - code} passed" in done.stdout
