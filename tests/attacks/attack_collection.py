"""Attacks on which tests there are: deleted, dropped, hidden, or written so that none is one."""

from __future__ import annotations

from pathlib import Path

from attack_case import Attack, Control
from attack_outcomes import ASSERTION, CONFTEST, INCREMENTAL, MARKED, PRICES, RAISED, TOTAL
from attack_sample import BROKEN, FILES, Changes, code

CONFIGURATION = "[tool.pytest.ini_options]"
MORE_NAMES = "python_functions = ['test', 'check']\npython_files = ['test_*.py', 'check_*.py']"
IGNORED = "ignored: expected 0, observed 1"


def _configured(line: str) -> Changes:
    return {**BROKEN, "pyproject.toml": (CONFIGURATION, f"{CONFIGURATION}\n{line}")}


def _linked_outside(path: Path) -> None:
    """Make a link to a file beside the repository."""
    root = path.parents[1]
    target = root.with_name(f"{root.name}-elsewhere.py")
    target.write_text("def test_total():\n    pass\n", encoding="utf-8")
    path.symlink_to(target)


def _linked_inside(path: Path) -> None:
    path.symlink_to("test_import.py")


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())


_TESTS = FILES[PRICES].split("\n\n\n", 1)
IN_A_CLASS = _TESTS[0] + "\n\n\nclass TestPrices:\n" + _indented(_TESTS[1]).replace("()", "(self)")

CLASS = Control("tests as methods of a class", {PRICES: IN_A_CLASS})
BASE_CLASS = Control(
    "tests that two classes inherit from one that is not collected itself",
    {
        PRICES: code("""
            from shop import total


            class TestAnyPrices:
                __test__ = False
                prices = []

                def test_total(self):
                    assert total(self.prices) == sum(self.prices)


            class TestNoPrices(TestAnyPrices):
                __test__ = True


            class TestPrices(TestAnyPrices):
                __test__ = True
                prices = [1, 2]
        """)
    },
)
ALTERNATIVES = Control(
    "a test that is defined in one of two branches",
    {
        PRICES: (
            TOTAL + "\n" + ASSERTION,
            (
                "import os\n\nif os.name == 'posix':\n"
                "    def test_total():\n        assert total([1, 2]) == 3\n"
                "else:\n    def test_total():\n        assert total([3]) == 3\n"
            ),
        )
    },
)
OPTIONS = Control(
    "addopts that only change the output",
    {"pyproject.toml": (CONFIGURATION, f"{CONFIGURATION}\naddopts = '-ra -v'")},
)
HELPER = Control(
    "a conftest leaves out a file that is no test",
    {CONFTEST: 'collect_ignore = ["data.py"]\n', "tests/data.py": "raise RuntimeError\n"},
)
ADDED_NAMES = Control(
    "a configuration that adds names of tests",
    {
        "pyproject.toml": (
            CONFIGURATION,
            f"{CONFIGURATION}\n{MORE_NAMES}",
        )
    },
)

ATTACKS = [
    Attack(
        "deleted",
        "the failing test is deleted",
        "tests",
        {**BROKEN, PRICES: (TOTAL + "\n" + ASSERTION, "")},
        "passed: expected 3, observed 2",
        RAISED,
    ),
    Attack(
        "emptied",
        "all tests of the file are gone, another file still passes",
        "tests",
        {**BROKEN, PRICES: "from shop import discount, total\n"},
        "passed: expected 3, observed 0",
        RAISED,
    ),
    Attack(
        "file-deleted",
        "the test file is deleted",
        "tests",
        {**BROKEN, PRICES: None},
        "does not exist",
        Control("another test file is deleted", {"tests/test_import.py": None}),
    ),
    Attack(
        "dropped",
        "a conftest drops tests in `pytest_collection_modifyitems`",
        "some",
        {
            **BROKEN,
            CONFTEST: code("""
                def pytest_collection_modifyitems(items):
                    items[:] = [item for item in items if item.name != "test_total"]
            """),
        },
        "deselected: expected 0, observed 1",
        MARKED,
    ),
    Attack(
        "dropped-later",
        "a conftest drops tests when the collection is finished",
        "some",
        {
            **BROKEN,
            CONFTEST: code("""
                import pytest


                @pytest.hookimpl(trylast=True)
                def pytest_collection_finish(session):
                    session.items[:] = [i for i in session.items if i.name != "test_total"]
            """),
        },
        "never reported an outcome",
        MARKED,
    ),
    Attack(
        "stopped-early",
        "a conftest stops the session after the tests that pass",
        "some",
        {
            **BROKEN,
            CONFTEST: code("""
                def pytest_collection_modifyitems(items):
                    items.reverse()


                def pytest_runtest_logreport(report):
                    if report.when == "teardown" and report.nodeid.endswith("test_discount"):
                        stopping.shouldstop = "enough"


                def pytest_sessionstart(session):
                    global stopping
                    stopping = session
            """),
        },
        "interrupted from inside",
        MARKED,
    ),
    Attack(
        "makeitem",
        "a conftest's `pytest_pycollect_makeitem` makes nothing of a test",
        "some",
        {
            **BROKEN,
            CONFTEST: code("""
                def pytest_pycollect_makeitem(collector, name, obj):
                    return [] if name == "test_total" else None
            """),
        },
        "test_total was never collected",
        INCREMENTAL,
    ),
    Attack(
        "ignore-hook",
        "a conftest's `pytest_ignore_collect` hides the file",
        "suite",
        {
            **BROKEN,
            CONFTEST: code("""
                def pytest_ignore_collect(collection_path):
                    return True if collection_path.name == "test_prices.py" else None
            """),
        },
        IGNORED,
        HELPER,
    ),
    Attack(
        "collect-ignore",
        "`collect_ignore` in a conftest hides a file that does not import",
        "collection",
        {CONFTEST: 'collect_ignore = ["test_new.py"]\n', "tests/test_new.py": "import absent\n"},
        IGNORED,
        HELPER,
    ),
    Attack(
        "python-files",
        "`python_files` no longer matches the failing file",
        "suite",
        _configured("python_files = ['test_import.py']"),
        IGNORED,
        ADDED_NAMES,
    ),
    Attack(
        "python-functions",
        "`python_functions` no longer matches the failing test",
        "some",
        _configured("python_functions = ['test_discount*']"),
        "test_total was never collected",
        ADDED_NAMES,
    ),
    Attack(
        "python-classes",
        "`python_classes` no longer matches the class of tests",
        "some",
        {
            **_configured("python_classes = ['Check*']"),
            PRICES: IN_A_CLASS + "\n\ndef test_nothing():\n    assert total([]) is not None\n",
        },
        "TestPrices was never collected",
        CLASS,
    ),
    Attack(
        "norecursedirs",
        "`norecursedirs` hides a folder of tests",
        "collection",
        {
            "pyproject.toml": (CONFIGURATION, f"{CONFIGURATION}\nnorecursedirs = ['slow']"),
            "tests/slow/test_slow.py": "def test_slow():\n    assert not 'implemented'\n",
        },
        IGNORED,
        Control("a folder of tests", {"tests/slow/test_slow.py": FILES[PRICES]}),
    ),
    Attack(
        "testpaths",
        "`testpaths` points elsewhere",
        "suite",
        {
            **BROKEN,
            "pyproject.toml": ('testpaths = ["tests"]', 'testpaths = ["tests/test_import.py"]'),
        },
        "failed: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "addopts-deselect",
        "`addopts` deselects the failing test",
        "some",
        _configured("addopts = '--deselect=tests/test_prices.py::test_total -k discount'"),
        "failed: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "addopts-collect-only",
        "`addopts` has `--collect-only`",
        "some",
        _configured("addopts = '--collect-only'"),
        "failed: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "addopts-setup-plan",
        "`addopts` has `--setup-plan`",
        "some",
        _configured("addopts = '--setup-plan'"),
        "failed: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "addopts-markers",
        "`addopts` has `--markers`",
        "some",
        _configured("addopts = '--markers'"),
        "failed: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "addopts-plugin",
        "`addopts` loads a plugin that the repository ships",
        "some",
        {
            **_configured("addopts = '-p evil'\npythonpath = ['src', '.']"),
            "pyproject.toml": f"{CONFIGURATION}\naddopts = '-p evil'\npythonpath = ['src', '.']\n",
            "evil.py": "def pytest_pyfunc_call(pyfuncitem):\n    return True\n",
        },
        "failed: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "addopts-last-failed",
        "`--lf` with a cache that names another test",
        "some",
        {
            **_configured("addopts = '--lf'"),
            ".pytest_cache/v/cache/lastfailed": '{"tests/test_prices.py::test_discount": true}',
        },
        "failed: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "addopts-environment",
        "PYTEST_ADDOPTS deselects the failing test",
        "some",
        BROKEN,
        "failed: expected 0, observed 1",
        Control("PYTEST_ADDOPTS changes the output", {}, {"PYTEST_ADDOPTS": "-v"}),
        {"PYTEST_ADDOPTS": "--deselect=tests/test_prices.py::test_total"},
    ),
    Attack(
        "ignore-environment",
        "PYTEST_ADDOPTS ignores the failing file",
        "suite",
        BROKEN,
        "failed: expected 0, observed 1",
        Control("PYTEST_ADDOPTS changes the output", {}, {"PYTEST_ADDOPTS": "-v"}),
        {"PYTEST_ADDOPTS": "--ignore=tests/test_prices.py"},
    ),
    Attack(
        "empty-configuration",
        "a new, empty pytest.toml hides `xfail_strict`",
        "some",
        {
            "pyproject.toml": (CONFIGURATION, f"{CONFIGURATION}\nxfail_strict = true"),
            "pytest.toml": "",
            PRICES: (TOTAL, "@pytest.mark.xfail\n" + TOTAL),
        },
        "xpassed: expected 0, observed 1",
        Control("a new, empty pytest.toml", {"pytest.toml": ""}),
    ),
    Attack(
        "shadowed",
        "a second test of the same name stands for the failing one",
        "some",
        {
            **BROKEN,
            PRICES: (
                ASSERTION,
                ASSERTION + "\n\ndef test_total():\n    assert total([1, 2]) > 2\n",
            ),
        },
        "shadowed: expected 0, observed 1",
        ALTERNATIVES,
    ),
    Attack(
        "shadowed-method",
        "a second method of the same name stands for the failing one",
        "some",
        {
            **BROKEN,
            PRICES: IN_A_CLASS
            + "\n    def test_total(self):\n        assert total([]) is not None\n",
        },
        "TestPrices::test_total is defined again",
        CLASS,
    ),
    Attack(
        "class-with-init",
        "a class of tests gets `__init__`",
        "some",
        {
            **BROKEN,
            PRICES: IN_A_CLASS.replace(
                "class TestPrices:\n",
                "class TestPrices:\n    def __init__(self):\n        pass\n\n",
            )
            + "\n\ndef test_nothing():\n    assert total([]) is not None\n",
        },
        "TestPrices was never collected",
        CLASS,
    ),
    Attack(
        "dunder-test",
        "`__test__ = False`",
        "some",
        {
            **BROKEN,
            PRICES: (ASSERTION, ASSERTION + "\n\ntest_total.__test__ = False\n"),
        },
        "test_total was never collected",
        BASE_CLASS,
    ),
    Attack(
        "unbound",
        "a test's name is deleted again",
        "some",
        {**BROKEN, PRICES: (ASSERTION, ASSERTION + "\n\ndel test_total\n")},
        "test_total was never collected",
        ALTERNATIVES,
    ),
    Attack(
        "conditional",
        "a test is only defined where a variable is set",
        "some",
        {
            **BROKEN,
            PRICES: (
                TOTAL + "\n" + ASSERTION,
                (
                    "import os\n\nif os.environ.get('FULL'):\n    def test_total():\n"
                    "        assert total([1, 2]) == 3\n"
                ),
            ),
        },
        "test_total was never collected",
        ALTERNATIVES,
    ),
    Attack(
        "generator",
        "a test that yields, which never runs",
        "some",
        {**BROKEN, PRICES: (ASSERTION, ASSERTION + "    yield\n")},
        "errors: expected 0, observed 1",
        Control(
            "a fixture that yields",
            {PRICES: (TOTAL, "@pytest.fixture\ndef prices():\n    yield [1, 2]\n\n\n" + TOTAL)},
        ),
    ),
    Attack(
        "coroutine",
        "a test that nobody awaits",
        "some",
        {**BROKEN, PRICES: (TOTAL, "async " + TOTAL)},
        "failed: expected 0, observed 1",
        Control(
            "a test that runs a coroutine",
            {
                PRICES: (
                    ASSERTION,
                    "    import asyncio\n    asyncio.run(asyncio.sleep(0))\n" + ASSERTION,
                )
            },
        ),
    ),
    Attack(
        "load-tests",
        "unittest's `load_tests` leaves tests out",
        "some",
        {
            **BROKEN,
            PRICES: (
                TOTAL,
                "def load_tests(*_):\n    return __import__('unittest').TestSuite()\n\n\n" + TOTAL,
            ),
        },
        "failed: expected 0, observed 1",
        CLASS,
    ),
    Attack(
        "linked-tests",
        "the tests are a link to a file outside of the repository",
        "suite",
        {
            **BROKEN,
            "tests/test_linked.py": _linked_outside,
            PRICES: None,
        },
        "leads out of the repository",
        Control(
            "a link to a file of the repository",
            {"tests/test_linked.py": _linked_inside},
        ),
    ),
    Attack(
        "syntax-error",
        "a test file that does not compile, hidden from the collection",
        "collection",
        {
            "tests/test_new.py": "def test_new(:\n",
            CONFTEST: 'collect_ignore_glob = ["*new*"]\n',
        },
        IGNORED,
        HELPER,
    ),
]
