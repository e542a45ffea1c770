"""What the probe's jobs report from inside the candidate's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pluggy
import pytest
from samples import Sample

from tiergate.candidate import ProbeResult
from tiergate.probe import text
from tiergate.probe.hooks import monitor
from tiergate.probe.records import Channel


def session(sample: Sample, *arguments: str, timeout: float = 30) -> ProbeResult:
    return sample.candidate().run_job(
        "session", "cpu", timeout, {"arguments": ["-p", "no:cacheprovider", "-q", *arguments]}
    )


def read_pipe(write: Any) -> list[dict[str, Any]]:
    reader, writer = os.pipe()
    write(Channel(writer, "n"))
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        return [json.loads(line) for line in stream]


def test_records_are_numbered_and_carry_the_nonce():
    def write(channel: Channel) -> None:
        channel.send("a", x=1)
        channel.send("b", y="ü\n")
        channel.close(3)

    assert read_pipe(write) == [
        {"nonce": "n", "number": 0, "event": "a", "x": 1},
        {"nonce": "n", "number": 1, "event": "b", "y": "ü\n"},
        {"nonce": "n", "number": 2, "event": "closed", "status": 3},
    ]


def test_lone_surrogate_makes_no_unreadable_record():
    (record,) = read_pipe(lambda channel: channel.send("a", x="\ud800"))
    assert record["x"] == "?"


def test_forked_child_cannot_speak():
    def write(channel: Channel) -> None:
        if not (pid := os.fork()):
            channel.send("from the child")
            os._exit(0)
        os.waitpid(pid, 0)
        channel.send("from the owner")

    assert [record["event"] for record in read_pipe(write)] == ["from the owner"]


def test_what_waits_is_written_in_order_by_the_owner_with_the_next_that_is_sent():
    def write(channel: Channel) -> None:
        channel.defer("a")
        if not (pid := os.fork()):
            channel.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        channel.send("b")
        channel.defer("never written")

    assert [(r["number"], r["event"]) for r in read_pipe(write)] == [(0, "a"), (1, "b")]


def test_reports_within_a_report_and_from_threads_keep_the_numbers_whole(
    monkeypatch: pytest.MonkeyPatch,
):
    write_to = os.write

    def write(channel: Channel) -> None:
        def interrupted(descriptor: int, data: bytes) -> int:
            monkeypatch.setattr(os, "write", write_to)
            channel.send("within")
            return write_to(descriptor, data)

        monkeypatch.setattr(os, "write", interrupted)
        channel.send("outer")
        threads = [Thread(target=channel.send, args=("thread",)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    records = read_pipe(write)
    assert [record["number"] for record in records] == list(range(52))
    assert [record["event"] for record in records[:2]] == ["outer", "within"]


def test_channel_is_not_inherited_by_programs():
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    Channel(writer, "n")
    assert not os.get_inheritable(writer)
    os.close(reader)
    os.close(writer)


class Hooks:
    """The implementation of two hooks."""

    @pluggy.HookimplMarker("sample")
    def watched(self, value: int) -> int:
        return value + 1

    @pluggy.HookimplMarker("sample")
    def other(self, value: int) -> int:
        return value + 2


class OtherManager(pluggy.PluginManager):
    """Calls hooks with one more parameter, as another pluggy might."""

    def __init__(self) -> None:
        super().__init__("sample")
        execute = self._inner_hookexec

        def with_more(name: str, hooks: Any, values: Any, first: bool, more: Any = None) -> Any:
            return execute(name, hooks, values, first)

        self._inner_hookexec = with_more


@pytest.mark.parametrize("kind", [lambda: pluggy.PluginManager("sample"), OtherManager])
def test_monitor_looks_at_the_named_hooks_before_they_are_called(kind: Any):
    manager = kind()
    manager.register(Hooks())
    seen: list[Any] = []
    monitor(manager, {"watched": lambda hooks, values: seen.append((len(hooks), values))})
    assert manager.hook.watched(value=1) == [2]
    assert manager.hook.other(value=1) == [3]
    assert seen == [(1, {"value": 1})]


def test_clip_keeps_both_ends():
    assert text.clip("x" * 10, 10) == "x" * 10
    clipped = text.clip("a" * 50 + "b" * 50, 10)
    assert clipped == "aaaaa\n[... 90 characters left out ...]\nbbbbb"


def test_session_tells_items_selection_and_each_phase(sample: Sample):
    result = session(sample, "tests/test_prices.py")
    assert (result.problem, result.status) == ("", 0)
    ids = [f"tests/test_prices.py::test_{name}" for name in ("total", "nothing_costs_nothing")]
    assert [record["id"] for record in result.of("item")] == ids
    assert {record["path"] for record in result.of("item")} == {"tests/test_prices.py"}
    assert [record["ids"] for record in result.of("selected")] == [ids]
    assert [record["id"] for record in result.of("start")] == ids
    assert [record["id"] for record in result.of("passed")] == ids
    assert all(record["seconds"] > 0 for record in result.of("passed"))
    assert (result.of("phase"), result.of("finish")) == ([], [])


def test_each_phase_is_told_where_not_all_just_passed(sample: Sample):
    sample.write(
        "tests/test_odd.py",
        "import pytest\n\n\n"
        "@pytest.fixture\ndef leaky():\n    yield\n    raise RuntimeError('leaked')\n\n\n"
        "def test_leaks(leaky):\n    pass\n\n\n"
        "@pytest.mark.xfail\ndef test_passes_all_the_same():\n    pass\n\n\n"
        "def test_passes():\n    pass\n",
    )
    # A conftest reports a test twice: nothing of it is a test that just passed.
    sample.write(
        "tests/conftest.py",
        "from _pytest.runner import runtestprotocol\n\n\n"
        "def pytest_runtest_protocol(item, nextitem):\n"
        "    if item.name == 'test_passes':\n"
        "        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)\n"
        "        runtestprotocol(item, nextitem=nextitem)\n"
        "        runtestprotocol(item, nextitem=nextitem)\n"
        "        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)\n"
        "        return True\n",
    )
    result = session(sample, "tests/test_odd.py")
    whens = ("setup", "call", "teardown")
    told = {
        name: [(r["when"], r["outcome"]) for r in result.of("phase") if r["id"].endswith(name)]
        for name in ("test_leaks", "test_passes_all_the_same", "test_passes")
    }
    assert told == {
        "test_leaks": [("setup", "passed"), ("call", "passed"), ("teardown", "failed")],
        "test_passes_all_the_same": [(when, "passed") for when in whens],
        "test_passes": [(when, "passed") for when in whens] * 2,
    }
    assert result.of("passed") == []
    assert len(result.of("finish")) == 3


def test_reports_are_told_as_they_were_before_a_conftest_saw_them(sample: Sample):
    sample.write(
        "tests/conftest.py",
        "import pytest\n\n\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_logreport(report):\n    report.outcome = 'passed'\n",
    )
    sample.write("tests/test_red.py", "def test_red():\n    assert False\n")
    told = session(sample, "tests/test_red.py").of("phase")
    assert [(r["when"], r["outcome"]) for r in told] == [
        ("setup", "passed"),
        ("call", "failed"),
        ("teardown", "passed"),
    ]


def test_session_whose_hooks_cannot_be_seen_is_unusable(sample: Sample):
    sample.write(
        "conftest.py",
        "from pluggy._callers import _multicall\n\n\n"
        "def pytest_configure(config):\n    config.pluginmanager._inner_hookexec = _multicall\n",
    )
    (told,) = session(sample, "tests").of("unusable")
    assert told["reason"] == "the calls of pytest's hooks cannot be seen"


@pytest.mark.parametrize(
    ("place", "running"),
    [("tests/test_prices_end.py", True), ("conftest.py", False)],
    ids=["in a test", "after the last test"],
)
def test_crash_leaves_the_records_of_what_had_ended(sample: Sample, place: str, running: bool):
    crash = "def test_end():\n" if running else "def pytest_sessionfinish():\n"
    sample.write(place, f"import os\n\n\n{crash}    os._exit(3)\n")
    result = session(sample, "tests")
    assert "closing record" in result.problem
    ended = {record["id"] for record in result.of("passed")}
    assert len(ended) == 2
    began = {record["id"] for record in result.of("start")}
    assert began - ended == ({f"{place}::test_end"} if running else set())


def test_replaced_assertion_is_known_whatever_it_says_that_it_equals(sample: Sample):
    sample.write(
        "tests/test_equal.py",
        "import math\n\n\n"
        "class Same:\n"
        "    __hash__ = None\n\n"
        "    def __eq__(self, other):\n        return True\n\n"
        "    def __call__(self, *numbers):\n        return True\n\n\n"
        "math.isclose = Same()\n\n\n"
        "def test_equal():\n    assert math.isclose(1, 2)\n",
    )
    doubts = session(sample, "tests/test_equal.py").of("doubt")
    assert [doubt["message"] for doubt in doubts] == [
        "math.isclose, which tests assert with, was replaced"
    ]


def test_failure_carries_message_place_and_traceback(sample: Sample):
    sample.write(
        "tests/test_bad.py",
        "def helper():\n    raise LookupError('no such thing')\n\n\n"
        "def test_bad():\n    print('said so')\n    helper()\n",
    )
    (failed,) = [
        record
        for record in session(sample, "tests/test_bad.py").of("phase")
        if record["outcome"] == "failed"
    ]
    assert failed["message"] == "LookupError: no such thing"
    assert (failed["path"], failed["line"]) == ("tests/test_bad.py", 2)
    assert "helper()" in failed["details"]
    assert "Captured stdout call\nsaid so" in failed["details"]


def test_standard_input_of_tests_is_empty(sample: Sample):
    # The job was read from there, and it holds what proves that a record is genuine.
    sample.write(
        "tests/test_input.py",
        "import os, subprocess\n\n\n"
        "def test_own():\n"
        "    try:\n        os.lseek(0, 0, os.SEEK_SET)\n    except OSError:\n        pass\n"
        "    assert os.read(0, 10) == b''\n\n\n"
        "def test_childs():\n"
        "    assert subprocess.run(['cat'], capture_output=True).stdout == b''\n",
    )
    result = session(sample, "-s", "tests/test_input.py")
    assert result.status == 0, result.output


def test_candidate_code_sees_no_arguments_of_the_probe(sample: Sample):
    sample.write(
        "tests/test_argv.py", "import sys\n\n\ndef test_argv():\n    assert not sys.argv[1:]\n"
    )
    assert session(sample, "tests/test_argv.py").status == 0


def test_modules_named_like_the_probes_own_do_not_meet_them(sample: Sample):
    for name in ("records", "session", "text", "imports", "start", "probe"):
        sample.write(f"src/{name}.py", f"WHOSE = 'the candidate {name}'\n")
    sample.write(
        "tests/test_names.py",
        "import imports, probe, records, session, start, text\n\n\n"
        "def test_names():\n"
        "    for module in (imports, probe, records, session, start, text):\n"
        "        assert module.WHOSE.startswith('the candidate')\n",
    )
    result = session(sample, "tests/test_names.py")
    assert (result.problem, result.status) == ("", 0), result.output


def test_session_that_is_ended_shows_where_it_was(sample: Sample):
    sample.write(
        "tests/test_hang.py",
        "import threading\n\n\ndef test_hang():\n    threading.Event().wait()  # for ever\n",
    )
    result = session(sample, "tests/test_hang.py", timeout=1.5)
    assert result.problem.startswith("timed out after 1.5 s")
    assert 'test_hang.py", line 5 in test_hang' in result.output


def test_no_bytecode_is_left_in_the_repository(sample: Sample):
    session(sample, "tests")
    assert list(sample.root.rglob("*.pyc")) == []


def test_interpreter_without_pytest_says_so(sample: Sample, tmp_path: Path):
    python = tmp_path / "bare"
    python.write_text(f'#!/bin/sh\nshift\nexec "{os.path.realpath(sys.executable)}" -I -S "$@"\n')
    python.chmod(0o755)
    sample.python = python
    result = session(sample, "tests")
    assert result.of("unusable") == [
        {
            **result.of("unusable")[0],
            "reason": "pytest cannot be imported: No module named 'pytest'",
        }
    ]


def test_device_without_torch_is_no_device(sample: Sample):
    sample.python = Path(sys.executable)  # the judge's own environment has no torch
    result = sample.candidate().run_job("cuda", "cuda", 30, {})
    assert result.of("device") == []
    assert "torch cannot be imported" in result.of("no-device")[0]["reason"]


def test_environment_is_a_fingerprint_without_imports(sample: Sample):
    values = sample.candidate().run_job("environment", "cpu", 30, {}).of("environment")[0]["values"]
    assert values["pytest"].split(".")[0].isdigit()
    assert values["python"].startswith("3.")
    assert len(values["distributions-digest"]) == 64
    assert values == {
        **sample.candidate().run_job("environment", "cpu", 30, {}).of("environment")[0]["values"]
    }


_INSTALLED = """
import hashlib, json, platform, sys
from importlib import metadata

sys.path.insert(0, sys.argv[1])
found = {}
for distribution in metadata.distributions():
    name = distribution.metadata["Name"].lower().replace("_", "-")
    found.setdefault(name, distribution.version)
listing = "\\n".join(f"{name}=={version}" for name, version in sorted(found.items()))
digest = hashlib.sha256(listing.encode()).hexdigest()
print(json.dumps([str(len(found)), digest, platform.platform(), platform.machine()]))
"""


@pytest.mark.parametrize(
    "metadata",
    [
        "src/plain-3.dist-info/METADATA",
        "src/old.egg-info/PKG-INFO",
        "src/unnamed-3.dist-info/elsewhere",
    ],
)
def test_environment_names_what_the_standard_library_finds(sample: Sample, metadata: str):
    sample.write(
        "src/known-1_2.dist-info/METADATA", "Name: known\r\nVersion: 1\r\n\r\nName: no\r\n"
    )
    sample.write(metadata, "Metadata-Version: 2.1\nAuthor: A\n Name: no\nName: odd\nVersion: 3\n")
    if metadata.endswith("elsewhere"):
        sample.write("src/unnamed-3.dist-info/METADATA", "name: unnamed\nversion: 3\n")
    values = sample.candidate().run_job("environment", "cpu", 30, {}).of("environment")[0]["values"]
    command = [str(sample.python), "-I", "-c", _INSTALLED, str(sample.root / "src")]
    expected = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    names = ("distributions", "distributions-digest", "platform", "machine")
    assert [values[name] for name in names] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"def broken(:\n", "SyntaxError"),
        (b"print 1\n", "SyntaxError"),
        (b"x = 1\n  y = 2\n", "IndentationError"),
        (b"# coding: latin-1\nx = '\xe9'\n", "declares the encoding 'iso-8859-1'"),
        (b"# coding: utf-7\n", "declares the encoding 'utf-7'"),
        (b"# coding: no-such\n", "SyntaxError"),
        (b"x = '\xff'\n", "SyntaxError"),
        (b"x = 1\0\n", "null bytes"),
        ("x = 1".encode("utf-16"), "SyntaxError"),
        ("import torch  # …\ntorch.\uff4c\uff4f\uff41\uff44(p)\n".encode(), "is read as 'load'"),
    ],
)
def test_file_that_tools_would_misread_is_told(sample: Sample, content: bytes, message: str):
    sample.write("src/odd.py", content)
    result = sample.candidate().run_job("syntax", "cpu", 30, {"files": ["src/odd.py"]})
    assert result.problem == ""
    (unreadable,) = result.of("unreadable")
    assert message in unreadable["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x = 1\n",
        b"\xef\xbb\xbfx = 1\n",
        "größe = '\uff4c\uff4f\uff41\uff44'  # \uff4c\uff4f\uff41\uff44\n".encode(),
        b"# -*- coding: utf-8 -*-\r\nx = 1\r\n",
        b"raise SystemExit  # never executed\n",
    ],
)
def test_file_that_is_plain_python_is_compiled_and_not_run(sample: Sample, content: bytes):
    sample.write("src/plain.py", content)
    result = sample.candidate().run_job("syntax", "cpu", 30, {"files": ["src/plain.py"]})
    assert (result.problem, result.of("unreadable")) == ("", [])
    assert result.of("compiled")[0]["files"] == 1


IMPORT_ERROR = """ImportError while importing test module '/r/tests/test_a.py'.
Hint: make sure your test modules/packages have valid Python names.
Traceback:
/usr/lib/python3.11/importlib/__init__.py:126: in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
tests/test_a.py:3: in <module>
    import pkg.mod
pkg/mod.py:8: in <module>
    import nothere
E   ModuleNotFoundError: No module named 'nothere'"""


@pytest.mark.parametrize(
    ("trace", "raised", "place"),
    [
        (IMPORT_ERROR, "ModuleNotFoundError: No module named 'nothere'", ("pkg/mod.py", 8)),
        (
            'a.py:1: in f\nE     File "/r/b.py", line 7\nE       (\nE   SyntaxError: never closed',
            '  File "/r/b.py", line 7\n    (\nSyntaxError: never closed',
            ("/r/b.py", 7),
        ),
        (
            "a.py:1: in f\nE   KeyError: 1\n\nThen:\na.py:3: in f\nE   ValueError: two\nE   lines",
            "ValueError: two\nlines",
            ("a.py", 3),
        ),
        (
            "001 >>> 1 + 1\nExpected:\n    3\nGot:\n    2\n\n/r/a.py:1: DocTestFailure",
            "Expected:\n    3\nGot:\n    2",
            ("/r/a.py", 1),
        ),
        ("tests: nothing of the kind\n  x.py:1: indented", "", None),
    ],
)
def test_cause_is_what_was_raised_last_and_where(trace, raised, place):
    message, places = text.cause(trace)
    assert message == raised.strip()
    assert (places[-1] if places else None) == place


def test_failure_says_what_was_raised_and_where_the_repository_called_it(sample: Sample):
    sample.write("broken.py", "import json\n\n\njson.loads('{')\n")
    sample.write("test_import.py", "import broken\n")
    sample.write(
        "test_call.py",
        "import json\n\n\ndef test_call():\n    parse('{')\n\n\ndef parse(text):\n"
        "    json.loads(text)\n",
    )
    sample.write(
        "test_argument.py",
        "import pytest\n\n\n@pytest.mark.parametrize('a', [1])\ndef test_argument(): ...\n",
    )
    result = session(sample, "--continue-on-collection-errors")
    collected = {record["id"]: record for record in result.of("collect-failed")}
    imported, argument = collected["test_import.py"], collected["test_argument.py"]
    assert (imported["path"], imported["line"]) == ("broken.py", 4)
    assert imported["message"].startswith("json.decoder.JSONDecodeError: Expecting property name")
    assert (argument["path"], argument["line"]) == ("test_argument.py", None)
    assert argument["message"].endswith("function uses no argument 'a'")
    (called,) = [record for record in result.of("phase") if record["outcome"] == "failed"]
    assert (called["path"], called["line"]) == ("test_call.py", 9)
