"""``collection``: the whole suite collects, and no test file is left out."""

from __future__ import annotations

from typing import Any

import pytest
from samples import Sample

from tiergate.verdict import Verdict

pytestmark = pytest.mark.usefixtures("warm")


def collection(sample: Sample, expect: Any = None, **with_: Any) -> Verdict:
    expect = expect or {"collected": 2}
    return sample.verdict({"id": "suite", "uses": "collection", "with": with_, "expect": expect})


def test_suite_that_collects_passes_without_running(sample: Sample):
    sample.write("tests/test_more.py", "def test_more():\n    raise SystemExit(1)\n")
    verdict = collection(sample, {"collected": ">=3"})
    assert (verdict.status, verdict.summary) == ("pass", "3 collected")


def test_fewer_tests_than_expected_fail(sample: Sample):
    verdict = collection(sample, {"collected": ">=3"})
    assert (verdict.status, verdict.evidence.observed) == ("fail", {"collected": 2})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_like_it\n", "No module named 'nothing_like_it'"),
        ("def broken(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import math\nassert math.floor(1.5) == 2\n", "assert 1 == 2"),
    ],
)
def test_file_that_does_not_import_is_an_error_and_named(
    sample: Sample, content: str, message: str
):
    sample.write("tests/test_broken.py", content)
    verdict = collection(sample)
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"collected": 2, "errors": 1}
    (failure,) = verdict.evidence.failures
    assert (failure.id, failure.outcome) == ("tests/test_broken.py", "errors")
    assert message in failure.details


def test_file_that_is_skipped_as_a_whole_is_not_green(sample: Sample):
    sample.write("tests/test_skips.py", "import pytest\npytest.importorskip('nothing_like_it')\n")
    verdict = collection(sample)
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"collected": 2, "skipped": 1}


@pytest.mark.parametrize(
    "files",
    [
        {"tests/conftest.py": "collect_ignore = ['test_more.py']\n"},
        {
            "tests/conftest.py": "def pytest_ignore_collect(collection_path):\n"
            "    return collection_path.name == 'test_more.py' or None\n"
        },
        {"pytest.ini": "[pytest]\naddopts = --ignore tests/test_more.py\nnorecursedirs = tests\n"},
    ],
    ids=["collect_ignore", "hook", "norecursedirs"],
)
def test_test_file_that_is_left_out_is_named_or_collected(sample: Sample, files: dict[str, str]):
    sample.write("tests/test_more.py", "import nothing_like_it\n")
    for name, content in files.items():
        sample.write(name, content)
    verdict = collection(sample)
    assert verdict.status == "fail"
    outcomes = {failure.id: failure.outcome for failure in verdict.evidence.failures}
    assert outcomes.get("tests/test_more.py") in {"ignored", "errors"}


def test_folder_that_pytest_does_not_enter_is_told(sample: Sample):
    sample.write("tests/build/test_more.py", "def test_more():\n    assert 1 < 2\n")
    verdict = collection(sample)
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"collected": 2, "ignored": 1}
    assert verdict.evidence.failures[0].id == "tests/build/test_more.py"


def test_file_that_git_ignores_is_not_expected(sample: Sample):
    sample.write(".gitignore", "tests/build/\n")
    sample.write("tests/build/test_more.py", "def test_more():\n    assert 1 < 2\n")
    assert collection(sample).status == "pass"


def test_tests_that_a_conftest_drops_are_named(sample: Sample):
    sample.write(
        "tests/conftest.py", "def pytest_collection_modifyitems(items):\n    items.pop()\n"
    )
    verdict = collection(sample)
    assert verdict.status == "fail"
    assert verdict.evidence.observed["deselected"] == 1
    assert "tests/test_prices.py::test_nothing_costs_nothing" in {
        failure.id for failure in verdict.evidence.failures
    }


def test_process_that_ends_in_the_collection_is_an_error(sample: Sample):
    sample.write("tests/test_zz.py", "import os\nos._exit(0)\n")
    verdict = collection(sample)
    assert verdict.status == "error"
    assert "ended without its closing record (exit code 0)" in verdict.summary


def test_interrupt_in_the_collection_is_not_green(sample: Sample):
    sample.write("tests/test_zz.py", "raise KeyboardInterrupt\n")
    verdict = collection(sample)
    assert verdict.status == "error"
    assert "interrupted from inside" in verdict.summary


def test_folder_without_tests_is_not_green(sample: Sample):
    sample.write("empty/readme.txt", "")
    verdict = collection(sample, {"collected": ">=1"}, paths=["empty"])
    assert (verdict.status, verdict.evidence.observed) == ("fail", {})
    verdict = collection(sample, {"collected": ">=1"}, paths=["absent"])
    assert (verdict.status, verdict.evidence.observed) == ("fail", {"errors": 1})


def test_reproduce_command_collects_the_same(sample: Sample):
    command = collection(sample).evidence.reproduce[-1]
    done = sample.shell(command)
    assert done.returncode == 0, done.stderr
    assert "2 tests collected" in done.stdout


def test_garbage_is_collected_around_the_rewriting_of_a_file_and_not_in_it(sample: Sample):
    sample.write(
        "tests/conftest.py",
        "import gc, sys\nimport pytest\n\n"
        "within = []\n\n\n"
        "def note(phase, info):\n"
        "    frame = sys._getframe(1)\n"
        "    while frame is not None:\n"
        "        within.append(frame.f_code.co_name)\n"
        "        frame = frame.f_back\n\n\n"
        "gc.callbacks.append(note)\n\n\n"
        "@pytest.fixture\n"
        "def callers():\n"
        "    gc.collect()\n"
        "    return set(within)\n",
    )
    asserts = "".join(f"    assert [{n}] == [{n}] or callers, (1, {n})\n" for n in range(300))
    sample.write(
        "tests/test_many.py",
        "import gc\n\nENABLED = gc.isenabled()\n\n\n"
        f"def test_many(callers):\n    assert ENABLED and gc.isenabled()\n{asserts}"
        "    assert 'callers' in callers\n"
        "    assert not callers & {'rewrite_asserts', 'doubts'}\n",
    )
    passes = {"uses": "pytest", "with": {"paths": ["tests/test_many.py"]}, "expect": {"passed": 1}}
    verdict = sample.verdict({"id": "many", **passes})
    assert verdict.status == "pass", verdict.evidence.failures
