"""What is collected is what was asked for, from one walk of each folder."""

from __future__ import annotations

import pytest
from samples import Sample

from tiergate.sessions.records import Session
from tiergate.sessions.running import doubt_foreign

NAMES = ["tests/test_c.py", "tests/test_a.py", "tests/deep/test_d.py", "tests/test_b.py"]


def collected(sample: Sample, *arguments: str) -> tuple[list[str], dict[str, int]]:
    """Return the ids of the tests in their order, and how often each file was met in a walk."""
    options = ["-p", "no:cacheprovider", "-q", "--collect-only"]
    job = {"arguments": [*options, *arguments]}
    result = sample.candidate().run_job("session", "cpu", 30, job)
    walks: dict[str, int] = {}
    for record in result.of("warning"):
        walks[record["message"]] = walks.get(record["message"], 0) + 1
    return [record["id"] for record in result.of("item")], walks


@pytest.fixture
def suite(sample: Sample, warm: None) -> Sample:
    for name in NAMES:
        sample.write(name, "def test_it():\n    pass\n")
    sample.write(
        "tests/conftest.py",
        "import warnings\n\n\n"
        "def pytest_collect_file(file_path):\n"
        "    warnings.warn(f'met {file_path.name}')\n",
    )
    sample.write("pytest.ini", "[pytest]\nfilterwarnings = always\n")
    return sample


def test_files_are_collected_in_the_order_in_which_they_are_given_from_one_walk(suite: Sample):
    tests, walks = collected(suite, *NAMES, "tests/test_a.py")
    assert tests == [f"{name}::test_it" for name in NAMES]
    assert walks.keys() >= {f"met test_{letter}.py" for letter in "abcd"}
    assert set(walks.values()) == {1}


def test_file_that_is_to_be_collected_twice_is(suite: Sample):
    tests, walks = collected(suite, "--keep-duplicates", "tests/test_a.py", "tests/test_a.py")
    assert tests == ["tests/test_a.py::test_it"] * 2
    assert walks["met test_b.py"] == 2


@pytest.mark.parametrize(
    ("path", "foreign"),
    [
        (".", []),
        ("tests/", ["test_a.py::test_it", "tests.py::test_it"]),
        ("tests/test_a.py", ["test_a.py::test_it", "tests.py::test_it"]),
        ("./tests/test_a.py::TestIt::test_it", ["test_a.py::test_it", "tests.py::test_it"]),
        ("tests/test_a.py::TestIt::test", None),
        ("tests/test_a.py::TestIt::test_it[a/b]", None),
        ("test", None),
    ],
)
def test_what_was_collected_from_elsewhere_than_the_paths_is_doubted(path, foreign):
    ids = ["test_a.py::test_it", "tests.py::test_it", "tests/test_a.py::TestIt::test_it[a::b]"]
    session = Session(collected=ids)
    doubt_foreign(session, [path, "elsewhere"])
    assert [f.id for f in session.collection.failures] == (ids if foreign is None else foreign)
