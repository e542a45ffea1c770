"""Programs are run to an end, and nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import ended

from tiergate import processes
from tiergate.errors import NotEvaluatedError
from tiergate.processes import Bounded, Cancellation, Completed

PYTHON = (sys.executable, "-I", "-S", "-c")


def run(*argv: str, env: dict[str, str] | None = None, **options: Any) -> Completed:
    options.setdefault("timeout", 30)
    options.setdefault("cancellation", Cancellation())
    return processes.run(argv, cwd=Path.cwd(), env=env or {}, **options)


def test_output_of_both_streams_is_kept_apart_or_in_order():
    code = "import os; os.write(1, b'one '); os.write(2, b'two '); os.write(1, b'three')"
    apart = run(*PYTHON, code)
    assert (apart.returncode, apart.stdout, apart.stderr) == (0, b"one three", b"two ")
    assert run(*PYTHON, code, merge_stderr=True).stdout == b"one two three"


def test_arguments_meet_no_shell():
    hostile = "$HOME; echo `id` && true | cat > x * ~ \\ '\""
    done = run(*PYTHON, "import sys; print(sys.argv[1], end='')", hostile)
    assert done.stdout.decode() == hostile


def test_environment_is_what_is_given_and_nothing_of_the_callers(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    done = run(*PYTHON, "import os; print(sorted(os.environ))", env={"GIVEN": "1", "LC_ALL": "C"})
    assert done.stdout.decode().strip() == str(["GIVEN", "LC_ALL", "TIERGATE_PROCESS_MARK"])


def test_standard_input_is_handed_over_whole():
    data = bytes(range(256)) * 4096
    code = "import sys, hashlib; print(len(sys.stdin.buffer.read()))"
    assert run(*PYTHON, code, stdin=data).stdout == b"%d\n" % len(data)


@pytest.mark.parametrize(
    ("code", "returncode", "ending"),
    [
        ("raise SystemExit(7)", 7, "exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", -9, "signal SIGKILL"),
        ("import os; os.abort()", -6, "signal SIGABRT"),
    ],
)
def test_ending_is_told_in_words(code: str, returncode: int, ending: str):
    done = run(*PYTHON, code)
    assert (done.returncode, done.ending) == (returncode, ending)
    assert not done.timed_out
    assert not done.cancelled


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["/no/such/program"], "cannot start '/no/such/program': No such file or directory"),
        (["/"], "cannot start '/': Permission denied"),
        (["true", "a\0b"], "cannot start 'true': embedded null byte"),
    ],
)
def test_program_that_cannot_start_is_named(argv: list[str], words: str):
    with pytest.raises(NotEvaluatedError) as caught:
        run(*argv)
    assert str(caught.value) == words


def test_no_descriptor_is_left_open_by_runs_good_and_bad():
    run("true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        run("true", "{records}", on_record=lambda _: None)
        with pytest.raises(NotEvaluatedError):
            run("/no/such/program", on_record=lambda _: None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_records_are_the_whole_lines_of_their_own_pipe():
    records: list[bytes] = []
    code = "import os, sys; print('noise'); os.write(int(sys.argv[1]), b'one\\ntwo\\nunfini')"
    done = run(*PYTHON, code, "{records}", on_record=records.append)
    assert records == [b"one", b"two"]
    assert done.stdout == b"noise\n"


def test_line_without_an_end_stays_bounded_and_is_no_record(monkeypatch):
    monkeypatch.setattr(processes._Lines, "_LIMIT", 1000)
    lines: list[bytes] = []
    splitter = processes._Lines(lines.append)
    for _ in range(100):
        splitter.write(b"x" * 500)
        assert len(splitter._rest) <= 1000
    splitter.write(b"\nshort\n")
    assert [len(line) for line in lines] == [1000, 5]


def test_a_listener_that_fails_ends_the_program():
    seen: list[int] = []

    def fail(record: bytes) -> None:
        seen.append(int(record))
        raise LookupError("no room for it")

    code = (
        "import os, sys, time; os.write(int(sys.argv[1]), b'%d\\n' % os.getpid()); time.sleep(60)"
    )
    with pytest.raises(LookupError):
        run(*PYTHON, code, "{records}", on_record=fail)
    assert ended(seen[0])


def test_endless_output_is_kept_to_the_limit_and_says_so():
    code = "import os\nwhile True: os.write(1, b'0123456789abcde\\n' * 4096)"
    done = run(*PYTHON, code, timeout=0.5, output_limit=2000)
    assert done.timed_out
    assert done.truncated
    assert len(done.stdout) < 2100
    assert b"bytes left out" in done.stdout


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(2, 60))
def test_bounded_keeps_both_ends_and_counts_the_rest(chunks: list[bytes], limit: int):
    bounded = Bounded(limit)
    for chunk in chunks:
        bounded.write(chunk)
    whole = b"".join(chunks)
    assert len(bounded.head) + len(bounded.tail) + bounded.dropped == len(whole)
    assert len(bounded.head) + len(bounded.tail) <= limit
    assert whole.startswith(bytes(bounded.head))
    assert whole.endswith(bytes(bounded.tail))
    if not bounded.dropped:
        assert bounded.getvalue() == whole


def test_timeout_ends_the_program_and_what_it_started():
    code = (
        "import subprocess, time\n"
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    done = run(*PYTHON, code, timeout=0.5)
    assert done.timed_out
    assert done.ending == "signal SIGTERM"
    assert ended(int(done.stdout))


@pytest.mark.parametrize("environment", ["None", "{}"], ids=["marked", "cleared"])
def test_timeout_ends_a_grandchild_that_left_the_group(environment: str):
    code = (
        "import subprocess, time\n"
        "quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "child = subprocess.Popen(['/bin/sleep', '60'], start_new_session=True, "
        f"env={environment}, **quiet)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    done = run(*PYTHON, code, timeout=0.5)
    assert done.timed_out
    assert ended(int(done.stdout))


def test_program_that_ends_leaves_no_daemon_behind():
    code = (
        "import os, subprocess\n"
        "quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(subprocess.Popen(['sleep', '60'], start_new_session=True, **quiet).pid)"
    )
    done = run(*PYTHON, code)
    assert (done.returncode, done.left_behind) == (0, 1)
    assert ended(int(done.stdout))


def test_processes_that_start_others_while_they_are_ended_are_all_ended():
    # A daemon that forks without a pause, up to a number that bounds the damage.
    code = (
        "import os, signal\n"
        "ready, go = os.pipe()\n"
        "if os.fork():\n"
        "    os.read(ready, 1)\n"
        "    os._exit(0)\n"
        "os.setsid()\n"
        "for _ in range(2000):\n"
        "    if not os.fork():\n"
        "        signal.pause()\n"
        "    if _ == 50: os.write(go, b'x')\n"
        "signal.pause()\n"
    )
    tag = "FORKED_BY_A_DAEMON"
    done = run(*PYTHON, code, timeout=20, env={tag: str(os.getpid())})
    assert done.returncode == 0
    assert done.left_behind > 50
    assert [pid for pid in _with_variable(tag) if not ended(pid)] == []


def _with_variable(name: str) -> list[int]:
    needle = f"{name}={os.getpid()}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and needle in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def test_output_held_open_by_a_child_is_not_waited_for():
    code = (
        "import subprocess\n"
        "print('done', flush=True); subprocess.Popen(['sleep', '60'], start_new_session=True)"
    )
    done = run(*PYTHON, code)
    assert done.stdout == b"done\n"
    assert done.seconds < 20


def test_program_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "TERMINATE_SECONDS", 0.2)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    done = run(*PYTHON, code, timeout=0.5)
    assert done.timed_out
    assert done.returncode == -signal.SIGKILL


def test_cancellation_ends_the_program_and_keeps_the_first_reason():
    cancellation = Cancellation()

    def cancel(_: bytes) -> None:
        cancellation.cancel("first")
        cancellation.cancel("second")

    code = "import os, sys, time; os.write(int(sys.argv[1]), b'up\\n'); time.sleep(60)"
    done = run(*PYTHON, code, "{records}", on_record=cancel, cancellation=cancellation)
    assert done.cancelled
    assert not done.timed_out
    assert cancellation.reason == "first"


def test_runs_at_the_same_time_do_not_end_each_other():
    # One ends, with a daemon to be found by its mark, while the other still works.
    results: dict[str, Completed] = {}
    daemon = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)"
    working = "import sys; sys.stdin.read(); import time; time.sleep(0.8); print('worked')"
    threads = [
        threading.Thread(target=lambda n=n, c=c: results.update({n: run(*PYTHON, c)}))
        for n, c in (("daemon", daemon), ("working", working))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results["working"].stdout == b"worked\n"
    assert results["working"].left_behind == 0
    assert results["daemon"].left_behind == 1


def test_a_stranger_is_never_ended():
    with subprocess.Popen(["sleep", "60"]) as stranger:
        run(*PYTHON, "import time; time.sleep(60)", timeout=0.2)
        alive = stranger.poll() is None
        stranger.kill()
    assert alive
