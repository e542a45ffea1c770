"""What a job reads is told, or that it reads what nobody can tell: a cell is cached by that."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tiergate

_PROBE = Path(tiergate.__file__).parent / "probe"
_WATCH = """
import importlib.util, json, os, sys
probe, repository, body = sys.argv[1:]
spec = importlib.util.spec_from_file_location(
    "_tiergate_probe", probe + "/__init__.py", submodule_search_locations=[probe])
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
inputs = importlib.import_module("_tiergate_probe.inputs").Inputs(repository, [])
class Told:
    def __init__(self): self.paths, self.reasons = [], []
    def send(self, event, paths=(), reasons=(), **_):
        self.paths += paths
        self.reasons += reasons
told = Told()
code = compile(body, "body", "exec")
os.chdir(repository)
inputs.start()
exec(code, {"__name__": "body"})
inputs.send(told)
print(json.dumps(vars(told)))
"""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A repository, and a folder elsewhere that is neither installed nor temporary."""
    found = {"here": tmp_path / "here", "elsewhere": tmp_path / "elsewhere"}
    for folder in found.values():
        folder.mkdir()
        (folder / "data.json").write_text("1")
    return found


def told(places: dict[str, Path], body: str) -> tuple[set[str], list[str]]:
    """Return what is told of a piece of code; ``HERE`` and ``ELSEWHERE`` are the folders in it."""
    names = {name.upper(): str(path) for name, path in places.items()}
    code = "".join(f"{name} = {path!r}\n" for name, path in names.items()) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", _WATCH, _PROBE, names["HERE"], code],
        env={"TMPDIR": str(places["here"].parent / "temporary")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    return set(said["paths"]), said["reasons"]


READ = {
    "a file elsewhere": ("open(ELSEWHERE + '/data.json').close()", "elsewhere/data.json"),
    "a file that is not there": (
        "try:\n    open(ELSEWHERE + '/none')\nexcept OSError:\n    pass", "elsewhere/none",
    ),
    "a folder elsewhere": ("import os; os.listdir(ELSEWHERE)", "elsewhere"),
    "a file through a link that it made": (
        """
        import os
        os.mkdir(ELSEWHERE + '/made')
        os.symlink(ELSEWHERE + '/data.json', ELSEWHERE + '/made/link')
        open(ELSEWHERE + '/made/link').close()
        """,
        "elsewhere/data.json",
    ),
    "the source of a module elsewhere whose bytecode is imported": (
        "import sys; sys.path.insert(0, ELSEWHERE); import other", "elsewhere/other.py",
    ),
    "whether a file is there": ("import os; os.path.exists('/nowhere/none')", "/nowhere/none"),
    "whether a file may be executed": (
        "import os; os.access('data.json', os.X_OK)", "here/data.json",
    ),
    "where a link leads": (
        "import os\ntry:\n    os.readlink(HERE + '/data.json')\nexcept OSError:\n    pass",
        "here/data.json",
    ),
    "what is in an open folder": (
        """
        import os
        assert os.stat in os.supports_dir_fd
        os.stat("data.json", dir_fd=os.open(HERE, os.O_RDONLY))
        """,
        "here/data.json",
    ),
    "native code elsewhere": (
        "import ctypes\ntry:\n    ctypes.CDLL(ELSEWHERE + '/data.json')\nexcept OSError:\n    pass",
        "elsewhere/data.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_told(places: dict[str, Path], name: str):
    body, path = READ[name]
    (places["elsewhere"] / "other.py").write_text("")
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", places["elsewhere"]], env={}, check=True
    )
    paths, reasons = told(places, body)
    assert str(places["here"].parent / path) in paths
    assert reasons == []


NEVER = {
    "a database by its address": (
        "import sqlite3; sqlite3.connect(f'file:{ELSEWHERE}/x.db', uri=True).close()", "a database",
    ),
    "extended attributes": ("import os; os.listxattr(HERE)", "os.listxattr"),
    "another interpreter in the process": (
        """
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        interpreters.destroy(interpreters.create())
        """,
        "cpython.PyInterpreterState_New",
    ),
    "a path that starts in an open folder": (
        """
        import os
        os.open('data.json', os.O_RDONLY, dir_fd=os.open(ELSEWHERE, os.O_RDONLY))
        """,
        "may start in an open folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_what_cannot_be_told_is_said(places: dict[str, Path], name: str):
    body, reason = NEVER[name]
    assert any(reason in text for text in told(places, body)[1])


def test_what_it_makes_and_removes_and_a_database_in_memory_are_no_inputs(places: dict[str, Path]):
    body = """
        import os, shutil, sqlite3, sys
        folder = ELSEWHERE + "/made/deep/er"
        os.makedirs(folder)
        open(folder + "/x", "w").close()
        open(folder + "/x").close()
        shutil.rmtree(ELSEWHERE + "/made")
        for name in (":memory:", "file:a?mode=memory", "file::memory:?cache=shared"):
            sqlite3.connect(name, uri=True).close()
        open(os.__file__).close()
    """
    assert told(places, body) == (set(), [])
