"""The set-up: made once, taken up where it stopped, and plain about what is missing."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest
from samples import SCRIPTS

# Stands in for an environment's interpreter: answers as pip does, from the files beside it.
_STUB = """#!{python} -IS
import os, pathlib, sys
here = pathlib.Path({folder!r})
words = sys.argv[1:]
if words[:1] == ["-c"]:
    exec(words[1].replace("sys, pip", "sys"))
    raise SystemExit
with (here / "calls").open("a") as calls:
    print(" ".join(words), file=calls)
print((here / "says").read_text())
raise SystemExit(int((here / "code").read_text()))
"""


@pytest.fixture
def environments(tmp_path: Path, monkeypatch) -> ModuleType:
    """The set-up script, with its environments in a folder of the test's own."""
    monkeypatch.setenv("TIERGATE_VENVS", str(tmp_path / "venvs"))
    spec = importlib.util.spec_from_file_location("environments", SCRIPTS / "environments.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "environments", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_GIGABYTE", 1)
    return module


@pytest.fixture
def stub(environments: ModuleType, tmp_path: Path, monkeypatch) -> Path:
    """A folder that says how pip answers; ``venv`` makes environments with stubs in them."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "says").write_text("Successfully installed everything")
    (folder / "code").write_text("0")
    (folder / "calls").write_text("")
    real = environments._run

    def run(command: list[str], failed: str) -> None:
        if command[1:3] != ["-m", "venv"]:
            real(command, failed)
            return
        with (folder / "calls").open("a") as calls:
            print("venv", file=calls)
        python = Path(command[-1]) / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.unlink(missing_ok=True)
        interpreter = os.path.realpath(sys.executable)
        python.write_text(_STUB.format(python=interpreter, folder=str(folder)))
        python.chmod(0o755)

    monkeypatch.setattr(environments, "_run", run)
    return folder


def calls(stub: Path) -> list[str]:
    return [line.split(" install ")[0] for line in (stub / "calls").read_text().splitlines()]


def test_environment_is_made_once(environments: ModuleType, stub: Path, capsys):
    assert environments.main(["candidate"]) == 0
    assert calls(stub) == ["venv", "-m pip"]
    said = capsys.readouterr().err
    assert "setting up" in said
    assert "candidate is ready after" in said
    assert environments.main(["candidate"]) == 0
    assert calls(stub) == ["venv", "-m pip"]
    assert capsys.readouterr().err == ""


def test_everything_is_pinned_and_nothing_asks(environments: ModuleType, stub: Path):
    environments.main(["judge", "candidate"])
    judge, candidate = (
        line for line in (stub / "calls").read_text().splitlines() if "install" in line
    )
    root = SCRIPTS.parent
    assert f"-c {SCRIPTS}/constraints.txt -e {SCRIPTS}" in judge
    assert f"-c {root}/./constraints.txt" in candidate or f"-c {root}/constraints.txt" in candidate
    assert "torch>=2.9" in candidate
    assert " -e " not in candidate
    assert all("--no-input" in line for line in (judge, candidate))


def test_environment_is_made_again_when_its_inputs_change(
    environments: ModuleType, stub: Path, monkeypatch
):
    environments.main(["candidate"])
    monkeypatch.setattr(environments.sys, "base_prefix", "/another/python")
    environments.main(["candidate"])
    assert calls(stub) == ["venv", "-m pip", "-m pip"]


def test_environment_that_was_removed_is_made_again_for_each_of_its_uses(
    environments: ModuleType, stub: Path
):
    import shutil

    environments.main(["judge", "judge-dev"])
    assert calls(stub) == ["venv", "-m pip", "-m pip"]
    shutil.rmtree(environments.VENVS / "judge")
    (stub / "calls").write_text("")
    environments.main(["judge"])
    assert calls(stub) == ["venv", "-m pip"]
    # The tools of developers went with the folder: that they were there once counts for nothing.
    environments.main(["judge-dev"])
    assert calls(stub) == ["venv", "-m pip", "-m pip"]


def test_set_up_that_was_interrupted_is_taken_up_again(
    environments: ModuleType, stub: Path, monkeypatch, capsys
):
    real = environments._run

    def interrupted(command: list[str], failed: str) -> None:
        if "pip" in command:
            raise KeyboardInterrupt
        real(command, failed)

    monkeypatch.setattr(environments, "_run", interrupted)
    assert environments.main(["candidate"]) == 3
    assert "run the same command again to go on where it stopped" in capsys.readouterr().err
    monkeypatch.setattr(environments, "_run", real)
    assert environments.main(["candidate"]) == 0
    # The environment itself was there already: only the packages were missing.
    assert calls(stub) == ["venv", "-m pip"]


def test_environment_whose_interpreter_is_broken_is_made_anew(environments: ModuleType, stub: Path):
    python = environments.VENVS / "candidate" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert environments.main(["candidate"]) == 0
    assert calls(stub) == ["venv", "-m pip"]


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        (
            (
                "WARNING: Retrying (Retry(total=4)) after connection broken by NewConnectionError("
                "<pip._vendor.urllib3.connection.HTTPSConnection>: Failed to establish a new "
                "connection: [Errno -3] Temporary failure in name resolution')'\n"
                "ERROR: No matching distribution found for torch>=2.9"
            ),
            "the package index cannot be reached. Check the network, or name a mirror or a proxy",
        ),
        (
            (
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on "
                "device"
            ),
            "the disk is full. ",
        ),
        (
            "ERROR: No matching distribution found for torch==2.13.0",
            "pip could not install the packages; the lines above say why",
        ),
    ],
    ids=["unreachable", "full", "other"],
)
def test_failure_of_pip_is_explained_and_leaves_no_stamp(
    environments: ModuleType, stub: Path, capsys, says: str, advice: str
):
    (stub / "says").write_text(says)
    (stub / "code").write_text("1")
    assert environments.main(["candidate"]) == 3
    said = capsys.readouterr().err
    assert f"set-up failed: {advice}" in said
    assert says.splitlines()[-1] in said
    (stub / "code").write_text("0")
    assert environments.main(["candidate"]) == 0
    assert calls(stub) == ["venv", "-m pip", "-m pip"]


def test_full_disk_is_told_before_anything_is_made(
    environments: ModuleType, stub: Path, monkeypatch, capsys
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(environments.shutil, "disk_usage", lambda _: usage(1, 1, 0))
    assert environments.main(["candidate"]) == 3
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "TIERGATE_VENVS=/other/disk" in said
    assert calls(stub) == []


def test_place_that_cannot_be_written_is_told(environments: ModuleType, stub: Path, capsys):
    environments.VENVS.parent.mkdir(exist_ok=True)
    environments.VENVS.write_text("a file in the way")
    assert environments.main(["candidate"]) == 3
    said = capsys.readouterr().err
    assert "set-up failed: " in said
    assert "Traceback" not in said


def test_second_set_up_waits_for_the_first(
    environments: ModuleType, stub: Path, capsys, monkeypatch
):
    environments.VENVS.mkdir()
    with (environments.VENVS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        real = fcntl.flock

        def release(stream: object, how: int) -> None:
            if how == fcntl.LOCK_EX:
                real(lock, fcntl.LOCK_UN)
            real(stream, how)  # type: ignore[call-overload]

        monkeypatch.setattr(environments.fcntl, "flock", release)
        assert environments.main(["candidate"]) == 0
    assert "another set-up is running; waiting for it" in capsys.readouterr().err


def test_terminated_set_up_leaves_no_pip_behind(tmp_path: Path):
    venvs = tmp_path / "venvs"
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    python = venvs / "candidate" / "bin" / "python"
    python.parent.mkdir(parents=True)
    interpreter = os.path.realpath(sys.executable)
    python.write_text(
        f"#!{interpreter} -IS\nimport os, sys, time\n"
        "if sys.argv[1] == '-c':\n    print(sys.version)\nelse:\n"
        f"    open({str(ready)!r}, 'w').write(str(os.getpid()))\n    time.sleep(300)\n"
    )
    python.chmod(0o755)
    process = subprocess.Popen(
        [interpreter, SCRIPTS / "environments.py", "candidate"],
        env={**os.environ, "TIERGATE_VENVS": str(venvs)},
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = int(ready.read_text())
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    from samples import ended

    gone = ended(pid)
    assert gone
    assert process.returncode == 3
    assert "run the same command again" in said
    assert list(venvs.rglob("*stamp*")) == []


def find_python(path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = f'. "{SCRIPTS}/find-python.sh"; printf %s "$python"; printf " %s" "$@"'
    return subprocess.run(
        ["/bin/sh", "-euc", script, "scripts/gate", "--only", "a b"],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def make_python(folder: Path, name: str, version: tuple[int, int]) -> Path:
    """Make a command that is a Python of that version, as far as it is asked."""
    folder.mkdir(parents=True, exist_ok=True)
    old = int(version < (3, 10))
    shown = ".".join(map(str, version))
    path = folder / name
    path.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {shown}.1" && exit 0\nexit {old}\n'
    )
    path.chmod(0o755)
    return path


def test_newest_name_is_found_when_the_plain_one_is_too_old(tmp_path: Path):
    make_python(tmp_path, "python3", (3, 9))
    make_python(tmp_path, "python3.12", (3, 12))
    done = find_python(str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "python3.12 --only a b")


def test_plain_name_is_taken_when_it_is_new_enough(tmp_path: Path):
    make_python(tmp_path, "python3", (3, 11))
    make_python(tmp_path, "python3.13", (3, 13))
    assert find_python(str(tmp_path)).stdout == "python3 --only a b"


def test_python_that_is_too_old_is_told_with_what_to_do(tmp_path: Path):
    make_python(tmp_path, "python3", (3, 9))
    done = find_python(str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert "Python 3.10 or newer is needed; found: Python 3.9.1." in done.stderr
    assert "apt install python3" in done.stderr
    assert "TIERGATE_PYTHON=/path/to/python3.10" in done.stderr


def test_no_python_at_all_is_told(tmp_path: Path):
    done = find_python(str(tmp_path))
    assert done.returncode == 3
    assert "Python 3.10 or newer is needed" in done.stderr


def test_named_python_is_the_only_candidate(tmp_path: Path):
    make_python(tmp_path / "bin", "python3", (3, 12))
    named = make_python(tmp_path / "with space", "python", (3, 12))
    done = find_python(str(tmp_path / "bin"), TIERGATE_PYTHON=str(named))
    assert (done.returncode, done.stdout) == (0, f"{named} --only a b")
    old = make_python(tmp_path / "old", "python", (3, 8))
    done = find_python(str(tmp_path / "bin"), TIERGATE_PYTHON=str(old))
    assert done.returncode == 3
    assert "found: Python 3.8.1" in done.stderr


def test_stamp_is_no_pass_when_it_is_damaged(environments: ModuleType, stub: Path):
    environments.main(["candidate"])
    (stamp,) = environments.VENVS.rglob("*stamp*")
    assert json.loads(stamp.read_text())
    stamp.write_text('"half a')
    assert environments.main(["candidate"]) == 0
    assert calls(stub) == ["venv", "-m pip", "-m pip"]


def test_requirements_are_read_with_pips_parser_where_python_has_none(
    environments: ModuleType, monkeypatch
):
    assert importlib.import_module("pip._vendor.tomli")  # as pip on Python 3.10 has it
    expected = environments._requirements(environments.ENVIRONMENTS["candidate"])
    monkeypatch.setattr(environments.sys, "version_info", (3, 10, 0))
    monkeypatch.setitem(sys.modules, "tomllib", None)
    assert environments._requirements(environments.ENVIRONMENTS["candidate"]) == expected
    monkeypatch.setitem(sys.modules, "pip._vendor", None)
    with pytest.raises(environments.SetUpError, match="has no pip; on Debian: apt install"):
        environments._requirements(environments.ENVIRONMENTS["candidate"])
