"""Attacks on the process: it ends, or speaks, in the place of the tests."""

from __future__ import annotations

from attack_case import Attack, Control
from attack_outcomes import ASSERTION, CONFTEST, PRICES, RECIPE
from attack_sample import BROKEN, Changes, bytecode, code


def _test(*lines: str) -> Changes:
    """The lines stand in a test, before its assertion."""
    text = "".join(f"    {line}\n" for line in lines)
    return {**BROKEN, PRICES: (ASSERTION, text + ASSERTION)}


def _harmless(name: str, *lines: str) -> Control:
    text = "".join(f"    {line}\n" for line in lines)
    return Control(name, {PRICES: (ASSERTION, text + ASSERTION)})


def _conftest(text: str) -> Changes:
    return {**BROKEN, CONFTEST: code(text)}


UNCLOSED = "ended without its closing record"
FORKS = _harmless(
    "a test forks a child that ends",
    "import os",
    "child = os.fork()",
    "if child == 0:",
    "    os._exit(3)",
    "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3",
)
MOVES = _harmless("a test changes the working directory", "import os", "os.chdir('/')")
STREAMS = _harmless(
    "a test replaces and closes its output streams",
    "import io, sys",
    "sys.stdout = sys.stderr = io.StringIO()",
    "print('nobody reads this')",
)
FINISHES = Control(
    "a conftest writes a file at the end of the session",
    {
        CONFTEST: code("""
            import atexit


            def pytest_sessionfinish(session, exitstatus):
                atexit.register(print, "ended with", int(exitstatus))
        """)
    },
)
EXITS = _harmless(
    "tests that expect exits",
    "with pytest.raises(SystemExit):",
    "    raise SystemExit(0)",
    "with pytest.raises(KeyboardInterrupt):",
    "    raise KeyboardInterrupt",
    "with pytest.raises(pytest.exit.Exception):",
    "    pytest.exit('enough', returncode=0)",
)

ATTACKS = [
    Attack(
        "exit-in-test",
        "`os._exit(0)` in a test",
        "some",
        _test("__import__('os')._exit(0)"),
        UNCLOSED,
        FORKS,
    ),
    Attack(
        "exit-at-import",
        "`os._exit(0)` when a test module is imported",
        "some",
        {**BROKEN, PRICES: ("import pytest\n", "import os\n\nimport pytest\n\nos._exit(0)\n")},
        UNCLOSED,
        FORKS,
    ),
    Attack(
        "exit-in-conftest",
        "`os._exit(0)` when a conftest is imported",
        "some",
        _conftest("import os\n\nos._exit(0)\n"),
        UNCLOSED,
        FINISHES,
    ),
    Attack(
        "exit-at-finish",
        "`os._exit(0)` when the session finishes",
        "some",
        _conftest("""
            import os


            def pytest_sessionfinish():
                os._exit(0)
        """),
        UNCLOSED,
        FINISHES,
    ),
    Attack(
        "exit-at-exit",
        "an exit handler ends the process with 0, and writes a JUnit file",
        "some",
        _conftest("""
            import atexit
            import os
            import pathlib


            @atexit.register
            def passed():
                report = '<testsuites><testsuite tests="3" failures="0"/></testsuites>'
                pathlib.Path("junit.xml").write_text(report)
                os._exit(0)
        """),
        "failed: expected 0, observed 1",
        FINISHES,
    ),
    Attack(
        "exit-status",
        "a conftest sets the session's exit status to 0",
        "some",
        _conftest("""
            def pytest_sessionfinish(session):
                session.exitstatus = 0
        """),
        "failed: expected 0, observed 1",
        FINISHES,
    ),
    Attack(
        "exit-status-of-main",
        "a conftest answers `pytest_cmdline_main`",
        "some",
        _conftest("""
            def pytest_cmdline_main(config):
                return 0
        """),
        "pytest never started a session",
        FINISHES,
    ),
    Attack(
        "run-loop",
        "a conftest answers `pytest_runtestloop`",
        "some",
        _conftest("""
            def pytest_runtestloop(session):
                return True
        """),
        "never reported an outcome",
        FINISHES,
    ),
    Attack(
        "pytest-exit",
        "`pytest.exit(returncode=0)` in a test",
        "some",
        _test("pytest.exit('enough', returncode=0)"),
        "never reported an outcome",
        EXITS,
    ),
    Attack(
        "pytest-exit-last",
        "`pytest.exit(returncode=0)` in the last test",
        "some",
        {
            "src/shop/prices.py": ("raise ValueError", "print"),
            PRICES: (
                "    with pytest.raises(ValueError",
                "    pytest.exit('enough', returncode=0)\n    with pytest.raises(ValueError",
            ),
        },
        "never reported an outcome",
        EXITS,
    ),
    Attack(
        "pytest-exit-in-conftest",
        "`pytest.exit(returncode=0)` in a conftest",
        "some",
        _conftest("""
            import pytest


            def pytest_sessionstart():
                pytest.exit("enough", returncode=0)
        """),
        "pytest never started a session",
        EXITS,
    ),
    Attack(
        "system-exit",
        "`raise SystemExit(0)` in a test",
        "some",
        _test("raise SystemExit(0)"),
        "failed: expected 0, observed 1",
        EXITS,
    ),
    Attack(
        "system-exit-in-conftest",
        "`sys.exit(0)` when a conftest is imported",
        "some",
        _conftest("import sys\n\nsys.exit(0)\n"),
        "error",
        FINISHES,
    ),
    Attack(
        "keyboard-interrupt",
        "`raise KeyboardInterrupt` in a test",
        "some",
        _test("raise KeyboardInterrupt"),
        "interrupted from inside",
        EXITS,
    ),
    Attack(
        "signal",
        "a test that dies by a signal",
        "some",
        _test("import os", "os.kill(os.getpid(), 9)"),
        "signal SIGKILL",
        FORKS,
    ),
    Attack(
        "segmentation-fault",
        "a test that crashes the interpreter",
        "some",
        _test("import ctypes", "ctypes.string_at(0)"),
        "signal SIGSEGV",
        FORKS,
    ),
    Attack(
        "hang",
        "a test that hangs",
        "some",
        {
            **_test("import time", "time.sleep(3600)"),
            "gate.yaml": ("timeout: 60", "timeout: 1.5"),
        },
        "tests/test_prices.py::test_total was running",
        MOVES,
    ),
    Attack(
        "fork",
        "a test forks, and the child runs the rest of the session",
        "some",
        _test("import os", "if os.fork():", "    os._exit(0)"),
        UNCLOSED,
        FORKS,
    ),
    Attack(
        "fork-escapes",
        "the failing parent stays behind in a session of its own, the child goes on",
        "some",
        _test("import os", "if os.fork() == 0:", "    os.setsid()", "    return"),
        "failed: expected 0, observed 1",
        FORKS,
    ),
    Attack(
        "chdir",
        "a test changes the working directory to a copy that passes",
        "some",
        {
            **_test("import os", "os.chdir('copy')"),
            "copy/tests/test_prices.py": "def test(): pass\n",
        },
        "failed: expected 0, observed 1",
        MOVES,
    ),
    Attack(
        "descriptors-closed",
        "a test closes every file descriptor",
        "some",
        _test("import os", "os.closerange(0, 256)"),
        UNCLOSED,
        STREAMS,
    ),
    Attack(
        "descriptors-written",
        "a test writes to every file descriptor",
        "some",
        _test(
            "import contextlib, os",
            "for number in range(3, 64):",
            "    with contextlib.suppress(OSError):",
            r"        os.write(number, b'{\"event\": \"closed\", \"status\": 0}\n')",
        ),
        "its record pipe carried something that the probe did not write",
        STREAMS,
    ),
    Attack(
        "stdout-replaced",
        "a test replaces the output streams and prints another summary",
        "some",
        _test("import sys", "sys.stdout = sys.stderr = sys.__stdout__", "print('3 passed')"),
        "failed: expected 0, observed 1",
        STREAMS,
    ),
    Attack(
        "site-customization",
        "`sitecustomize` and `usercustomize` in the repository end the process with 0",
        "some",
        {
            **BROKEN,
            "src/sitecustomize.py": "import atexit, os\n\natexit.register(os._exit, 0)\n",
            "src/usercustomize.py": "import atexit, os\n\natexit.register(os._exit, 0)\n",
        },
        "failed: expected 0, observed 1",
        Control("a `sitecustomize` that does nothing", {"src/sitecustomize.py": "READ = True\n"}),
    ),
    Attack(
        "standard-library-shadowed",
        "a module of the repository takes the name of one that pytest imports",
        "some",
        {**BROKEN, "src/argparse.py": "import os\n\nos._exit(0)\n"},
        UNCLOSED,
        Control("a module beside the package", {"src/tools.py": "import argparse\n"}),
    ),
    Attack(
        "records-patched",
        "a conftest patches the gate's own recorder to drop failures",
        "some",
        _conftest("""
            import sys

            for name, module in list(sys.modules.items()):
                if name.endswith(".records"):
                    send = module.Channel.send

                    def quiet(self, event, **values):
                        if values.get("outcome") != "failed":
                            send(self, event, **values)

                    module.Channel.send = quiet
        """),
        "pytest ended with exit status 1, but no failure was reported",
        RECIPE,
    ),
    Attack(
        "records-closed",
        "a test finds the gate's channel and writes the closing record",
        "some",
        _test(
            "import gc",
            "for found in gc.get_objects():",
            "    if type(found).__name__ == 'Channel':",
            "        found.close(0)",
        ),
        "its record pipe carried something that the probe did not write",
        STREAMS,
    ),
    Attack(
        "stale-bytecode",
        "bytecode of other code with the size and time of the source",
        "some",
        {"src/shop/prices.py": ("sum(prices)", "max(prices)"), "src/shop/__pycache__": bytecode},
        "failed: expected 0, observed 1",
        Control("bytecode of the same code", {"src/shop/__pycache__": bytecode}),
    ),
]
