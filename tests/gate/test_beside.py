"""Test files that another process rewrites: the same code, the same verdicts, nothing left."""

from __future__ import annotations

import os
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import pytest
from _pytest.assertion import rewrite
from msgspec.structs import replace
from samples import Sample, ended
from test_warm_interpreter import said, verdict_of

from tiergate import warm
from tiergate.probe.beside import Beside

pytestmark = pytest.mark.skipif(not warm.supported(), reason="forks only on Linux")

BODIES = {
    "test_fails": "assert [1] == [2]",
    "test_warns": "assert (1, 'always true')",
    "test_constants": "assert 1.5 in {'b', 'a', 1.5} and b'x' != 'x'",
    "test_nested": "assert [(lambda: n)() for n in range(3)] == [0, 1, 2]",
}
CONFIG = SimpleNamespace(getini=lambda _: False)


def offered(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Offer what was done to this process; return the files that are still rewritten here."""
    here: list[str] = []
    original = rewrite._rewrite_test

    def rewrite_test(path: Path, config: Any) -> tuple[Any, CodeType]:
        here.append(path.name)
        return original(path, config)

    monkeypatch.setattr(rewrite, "_rewrite_test", rewrite_test)
    beside.offer(rewrite)
    return here


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = []
    for name, body in BODIES.items():
        made.append(tmp_path / f"{name}.py")
        made[-1].write_text(f"def {name}():\n    {body}\n")
    return made


def work(beside: Beside) -> Beside:
    """Do in a child what the process beside a session does."""
    pid = os.fork()
    if pid == 0:
        try:
            beside._rewrite_all()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return beside


def test_code_is_that_of_pytest_and_files_with_a_warning_are_left_to_it(files, monkeypatch):
    warns = files.pop(1)
    expected = {file: rewrite._rewrite_test(file, CONFIG) for file in files}
    here = offered(work(Beside(map(str, [*files, warns]))), monkeypatch)
    for file, code in expected.items():
        about, found = rewrite._rewrite_test(file, CONFIG)
        assert found is not code[1]
        assert (about, found) == code
        assert [c.co_filename for c in (found, *found.co_consts) if isinstance(c, CodeType)] == [
            str(file)
        ] * 2
    assert here == []
    with pytest.warns(pytest.PytestAssertRewriteWarning):
        rewrite._rewrite_test(warns, CONFIG)
    assert here == ["test_warns.py"]


def test_file_is_rewritten_here_where_it_changed_or_is_not_known_or_not_done(files, monkeypatch):
    changed, same, *_ = [files[0], files[2]]
    beside = work(Beside([str(changed), str(same)]))
    changed.write_text("def test_other():\n    assert 1\n")
    here = offered(beside, monkeypatch)
    assert "test_other" in rewrite._rewrite_test(changed, CONFIG)[1].co_names
    rewrite._rewrite_test(files[3], CONFIG)
    rewrite._rewrite_test(same, SimpleNamespace(getini=lambda _: True))
    assert here == ["test_fails.py", "test_nested.py", "test_constants.py"]


def test_file_that_the_session_took_is_left_alone(files, monkeypatch):
    beside = Beside([str(files[0]), str(files[2])])
    assert beside._done(str(files[0])) is None
    here = offered(work(beside), monkeypatch)
    rewrite._rewrite_test(files[0], CONFIG)
    rewrite._rewrite_test(files[2], CONFIG)
    assert here == ["test_fails.py"]


def test_session_and_the_process_beside_it_meet_and_do_no_file_both(files, monkeypatch):
    beside = Beside(map(str, files))
    session, here = iter(map(str, files)), []
    done: list[str] = []

    def rewrite_while_the_session_takes_the_next(_: Any, file: str, number: int) -> None:
        done.append(file)
        here.append(next(session))
        assert beside._done(here[-1]) is None

    monkeypatch.setattr(beside, "_rewrite", rewrite_while_the_session_takes_the_next)
    beside._rewrite_all()
    assert sorted([*here, *done]) == sorted(map(str, files))


def many(sample: Sample, body: str = "assert 1", **more: Any) -> None:
    for number in range(10):
        sample.write(f"tests/test_{number}.py", f"def test_{number}():\n    {body}\n")
    for name, text in BODIES.items():
        sample.write(f"tests/{name}.py", f"def {name}():\n    {text}\n")
    sample.write("tests/test_broken.py", "def test_broken(:\n")
    suite = {
        "uses": "pytest",
        "with": {"paths": ["tests"], "args": ["--continue-on-collection-errors"]},
    }
    sample.gate({"id": "suite", **suite, "expect": {"passed": 17}, **more})


def test_verdict_is_the_same_alone_and_with_a_process_beside_it(sample: Sample, warm_interpreter):
    many(sample)
    sample.write("tests/conftest.py", "import time\n\ntime.sleep(0.5)  # so that all is done\n")
    fresh = said(verdict_of(sample.candidate()))
    assert fresh["status"] == "fail"
    assert {f["outcome"] for f in fresh["evidence"]["failures"]} >= {"failed", "errors"}
    beside = replace(sample.candidate(), warm=warm_interpreter, alone=False)
    assert said(verdict_of(beside)) == fresh


def test_process_beside_a_session_ends_with_it(sample: Sample, warm_interpreter, tmp_path):
    told = tmp_path / "told"
    many(sample, "\n    ".join(f"assert [{n}] == [{n}]" for n in range(3000)), timeout=50)
    sample.write(
        "tests/conftest.py",
        "import os, pathlib\n\n\n"
        "def others():\n"
        "    for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):\n"
        "        try:\n"
        "            fields = stat.read_text().rpartition(')')[2].split()\n"
        "        except OSError:\n"
        "            continue\n"
        "        if fields[1] == str(os.getppid()) and stat.parent.name != str(os.getpid()):\n"
        "            yield stat.parent.name\n\n\n"
        "while not (found := list(others())):\n"
        "    pass\n"
        f"pathlib.Path({str(told)!r}).write_text(' '.join(found))\n"
        "os._exit(0)\n",
    )
    candidate = replace(sample.candidate(), warm=warm_interpreter, alone=False)
    assert verdict_of(candidate).status == "error"
    (helper,) = told.read_text().split()
    assert ended(int(helper), seconds=5)
