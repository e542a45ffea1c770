"""The lines around a failure come from the judged repository, and from nowhere else."""

import os

import pytest

from tiergate import excerpts
from tiergate.repository import Repository
from tiergate.verdict import Failure


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    (tmp_path / "secret.py").write_text("secret\n" * 20)
    (root / "a.py").write_text("".join(f"line {n}\n" for n in range(1, 21)))
    return Repository(root)


def around(repository, path, line):
    (place,) = excerpts.attach(repository, [Failure("t", "failed", path=path, line=line)])
    return place.source


def test_the_lines_around_are_kept_with_their_numbers(repository):
    found = around(repository, "a.py", 10)
    assert (found.first, found.lines[0], found.lines[-1]) == (6, "line 6", "line 14")
    assert around(repository, "a.py", 1).first == 1
    assert around(repository, "a.py", 20).lines[-1] == "line 20"


@pytest.mark.parametrize(
    "path", ["../secret.py", "link.py", "{root}/a.py", "none.py", "", ".", "a\0.py", "pipe"]
)
def test_nothing_else_is_read(repository, path):
    (repository.root / "link.py").symlink_to(repository.root.parent / "secret.py")
    os.mkfifo(repository.root / "pipe")
    assert around(repository, path.replace("{root}", str(repository.root)), 3) is None


@pytest.mark.parametrize("line", [None, 0, -1, 21, 10**9])
def test_a_line_that_is_not_there_has_no_excerpt(repository, line):
    assert around(repository, "a.py", line) is None


def test_lines_and_their_number_are_bounded(repository):
    (repository.root / "long.py").write_bytes(b"\xff" * 100_000)
    assert len(around(repository, "long.py", 1).lines[0]) <= 240
    many = [Failure("t", "failed", path="a.py", line=3)] * 100
    assert sum(p.source is not None for p in excerpts.attach(repository, many)) == excerpts.MOST
