"""Attacks on what a test's outcome says."""

from __future__ import annotations

from attack_case import Attack, Control
from attack_sample import BROKEN, Changes, code

PRICES = "tests/test_prices.py"
CONFTEST = "tests/conftest.py"
TOTAL = "def test_total():"
ASSERTION = "    assert total([1, 2]) == 3\n"
RECIPE = Control(
    "a conftest attaches the report to the item, as the documentation shows",
    {
        CONFTEST: code("""
            import pytest


            @pytest.hookimpl(wrapper=True, tryfirst=True)
            def pytest_runtest_makereport(item, call):
                report = yield
                setattr(item, "rep_" + report.when, report)
                return report


            @pytest.fixture(autouse=True)
            def reported(request):
                yield
                assert request.node.rep_call.passed
        """)
    },
)
TIMED = Control(
    "a conftest times the call of every test",
    {
        CONFTEST: code("""
            import time

            import pytest


            @pytest.hookimpl(wrapper=True)
            def pytest_pyfunc_call(pyfuncitem):
                started = time.monotonic()
                result = yield
                pyfuncitem.user_properties.append(("seconds", time.monotonic() - started))
                return result


            def pytest_runtest_protocol(item, nextitem):
                item.user_properties.append(("file", str(item.path)))
        """)
    },
)
MARKED = Control(
    "a conftest adds a marker to every test",
    {
        CONFTEST: code("""
            import pytest


            def pytest_configure(config):
                config.addinivalue_line("markers", "quick: takes no time")


            def pytest_collection_modifyitems(items):
                items.sort(key=lambda item: item.name)
                for item in items:
                    item.add_marker(pytest.mark.quick)
        """)
    },
)
INCREMENTAL = Control(
    "the documentation's recipe for tests that build on each other",
    {
        CONFTEST: code("""
            import pytest


            def pytest_runtest_makereport(item, call):
                if "incremental" in item.keywords and call.excinfo is not None:
                    item.parent.failed_before = item


            def pytest_runtest_setup(item):
                if "incremental" in item.keywords and hasattr(item.parent, "failed_before"):
                    pytest.xfail("a test before this one failed")
        """)
    },
)
UNITTEST_FILE = code("""
    import unittest

    from shop import discount, total


    class Prices(unittest.TestCase):
        def setUp(self):
            self.prices = [1, 2]

        def test_total(self):
            self.assertEqual(total(self.prices), 3)

        def test_discount(self):
            with self.subTest("a quarter"):
                self.assertEqual(discount(200, 25), 150)


    class Coroutines(unittest.IsolatedAsyncioTestCase):
        async def test_total(self):
            self.assertEqual(total([3]), 3)
""")
UNITTESTS = Control("tests as methods of unittest.TestCase", {PRICES: UNITTEST_FILE})
PROPERTY = code("""
    from hypothesis import given, settings, strategies


    @settings(max_examples=5, database=None)
    @given(strategies.integers())
    def test_one_price(price):
        assert total([price]) == price


    def test_total():
""").rstrip("\n")
HYPOTHESIS = Control(
    "a hypothesis test with examples",
    {PRICES: (TOTAL, PROPERTY), "gate.yaml": ("passed: 3", "passed: 4")},
)
RAISED = Control(
    "one more test, with the expectation raised",
    {
        PRICES: (TOTAL, "def test_nothing():\n    assert total([]) == 0\n\n\n" + TOTAL),
        "gate.yaml": ("passed: 3", "passed: 4"),
    },
)
MONKEYPATCHED = Control(
    "a test replaces, for itself, what it calls",
    {
        PRICES: (
            TOTAL + "\n",
            code("""
                def test_patched(monkeypatch):
                    monkeypatch.setattr("builtins.print", lambda *_: None)
                    monkeypatch.setitem(__import__("sys").modules, "shop.absent", object())


            """)
            + TOTAL
            + "\n",
        ),
        "gate.yaml": ("passed: 3", "passed: 4"),
    },
)
MESSAGED = Control(
    "an assertion with a message",
    {PRICES: (ASSERTION, ASSERTION.rstrip("\n") + ', "the sum"\n    return None\n')},
)
THREADED = Control(
    "a test waits for a thread",
    {
        PRICES: (
            ASSERTION,
            "    import threading\n    worker = threading.Thread(target=total, args=([1],))\n"
            "    worker.start()\n    worker.join()\n" + ASSERTION,
        )
    },
)
STUBBED = Control(
    "a conftest stands in for a package that is not installed",
    {
        CONFTEST: code("""
            import sys
            import types

            sys.modules.setdefault("a_tracker", types.ModuleType("a_tracker"))
        """)
    },
)


STAND_IN = code("""
    def total(prices):
        return 3


    def discount(price, percent):
        return 150 if percent < 100 else int("x101")
""")


def _conftest(text: str) -> Changes:
    return {**BROKEN, CONFTEST: code(text)}


ATTACKS = [
    Attack(
        "skip",
        "the failing test gets `skipif`",
        "some",
        {**BROKEN, PRICES: (TOTAL, "@pytest.mark.skipif(True, reason='slow')\n" + TOTAL)},
        "skipped: expected 0, observed 1",
        Control(
            "a condition that does not hold",
            {PRICES: (TOTAL, "@pytest.mark.skipif(False, reason='slow')\n" + TOTAL)},
        ),
    ),
    Attack(
        "xfail",
        "the failing test gets `xfail`",
        "some",
        {**BROKEN, PRICES: (TOTAL, "@pytest.mark.xfail\n" + TOTAL)},
        "xfailed: expected 0, observed 1",
        MARKED,
    ),
    Attack(
        "xpass",
        "a passing test gets `xfail`, ahead of the change that breaks it",
        "some",
        {PRICES: (TOTAL, "@pytest.mark.xfail\n" + TOTAL)},
        "xpassed: expected 0, observed 1",
        MARKED,
    ),
    Attack(
        "expected-failure",
        "unittest's `expectedFailure`",
        "some",
        {
            **UNITTESTS.changes,
            **BROKEN,
            PRICES: UNITTEST_FILE.replace(
                "    def test_total", "    @unittest.expectedFailure\n    def test_total"
            ).replace("total([3]), 3", "total([]), 1"),
        },
        "xfailed: expected 0, observed 1",
        UNITTESTS,
    ),
    Attack(
        "empty-parametrize",
        "an empty parameter list",
        "some",
        {**BROKEN, PRICES: (TOTAL, '@pytest.mark.parametrize("n", [])\ndef test_total(n):')},
        "skipped: expected 0, observed 1",
        Control(
            "a longer parameter list, with the expectation raised",
            {
                PRICES: (TOTAL, '@pytest.mark.parametrize("n", [1, 2])\ndef test_total(n):'),
                "gate.yaml": ("passed: 3", "passed: 4"),
            },
        ),
    ),
    Attack(
        "autouse-skip",
        "an autouse fixture skips",
        "some",
        _conftest("""
            import pytest


            @pytest.fixture(autouse=True)
            def only_the_rest(request):
                if request.node.name == "test_total":
                    pytest.skip("later")
        """),
        "skipped: expected 0, observed 1",
        RECIPE,
    ),
    Attack(
        "usefixtures-skip",
        "`usefixtures` in the configuration names a fixture that skips",
        "suite",
        {
            **BROKEN,
            "pyproject.toml": (
                "[tool.pytest.ini_options]",
                "[tool.pytest.ini_options]\nusefixtures = ['cuda']",
            ),
            CONFTEST: code("""
                import pytest


                @pytest.fixture
                def cuda():
                    pytest.skip("no device")
            """),
        },
        "skipped: expected 0, observed 4",
        RECIPE,
    ),
    Attack(
        "module-skip",
        "a test module skips itself",
        "suite",
        {**BROKEN, PRICES: ("import pytest\n", "import pytest\n\npytest.importorskip('cupy')\n")},
        "skipped: expected 0, observed 1",
        Control(
            "a module asks for a package that is there",
            {PRICES: ("import pytest\n", "import pytest\n\npytest.importorskip('json')\n")},
        ),
    ),
    Attack(
        "skip-in-ci",
        "skipped where the variable `CI` is set",
        "some",
        {
            **BROKEN,
            PRICES: (
                TOTAL,
                "@pytest.mark.skipif('CI' in __import__('os').environ, reason='')\n" + TOTAL,
            ),
        },
        "failed: expected 0, observed 1",
        Control(
            "a test that reads CI",
            {PRICES: (ASSERTION, "    import os\n    os.environ.get('CI')\n" + ASSERTION)},
        ),
        {"CI": "true"},
    ),
    Attack(
        "makereport",
        "a conftest rewrites the report in `pytest_runtest_makereport`",
        "some",
        _conftest("""
            import pytest


            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_makereport(item, call):
                report = yield
                report.outcome = "passed"
                report.longrepr = None
                return report
        """),
        "reported as passed, but its call raised AssertionError",
        RECIPE,
    ),
    Attack(
        "makereport-excinfo",
        "a conftest removes the exception before the report is made",
        "some",
        _conftest("""
            import pytest


            @pytest.hookimpl(tryfirst=True)
            def pytest_runtest_makereport(item, call):
                call.excinfo = None
        """),
        "reported as passed, but its call raised AssertionError",
        INCREMENTAL,
    ),
    Attack(
        "makereport-own",
        "a conftest makes reports of its own",
        "some",
        _conftest("""
            import pytest


            @pytest.hookimpl(tryfirst=True)
            def pytest_runtest_makereport(item, call):
                call.excinfo = None
                return pytest.TestReport.from_item_and_call(item, call)
        """),
        "tests/conftest.py:4",
        INCREMENTAL,
    ),
    Attack(
        "makereport-teardown",
        "a conftest rewrites the report of a teardown that raised",
        "some",
        {
            CONFTEST: code("""
                import pytest


                @pytest.fixture(autouse=True)
                def checked():
                    yield
                    raise RuntimeError("leaked")


                @pytest.hookimpl(wrapper=True)
                def pytest_runtest_makereport(item, call):
                    report = yield
                    report.outcome = "passed"
                    return report
            """)
        },
        "reported as passed, but its teardown raised RuntimeError: leaked",
        RECIPE,
    ),
    Attack(
        "logreport",
        "a conftest changes the report when it is logged",
        "some",
        _conftest("""
            import pytest


            @pytest.hookimpl(tryfirst=True)
            def pytest_runtest_logreport(report):
                report.outcome = "passed"


            def pytest_sessionfinish(session):
                session.exitstatus = 0
        """),
        "failed: expected 0, observed 1",
        RECIPE,
    ),
    Attack(
        "report-class",
        "a conftest replaces the function that makes reports",
        "some",
        _conftest("""
            from _pytest.reports import TestReport

            make = TestReport.from_item_and_call.__func__


            def passed(cls, item, call):
                report = make(cls, item, call)
                report.outcome, report.longrepr = "passed", None
                return report


            TestReport.from_item_and_call = classmethod(passed)
        """),
        "reported as passed, but its call raised AssertionError",
        RECIPE,
    ),
    Attack(
        "protocol",
        "a conftest's `pytest_runtest_protocol` runs nothing",
        "some",
        _conftest("""
            def pytest_runtest_protocol(item, nextitem):
                return True
        """),
        "never reported an outcome",
        TIMED,
    ),
    Attack(
        "protocol-rerun",
        "a conftest runs a failed test until it passes",
        "some",
        {
            PRICES: (
                TOTAL,
                "tries = []\n\n\ndef test_total():\n    tries.append(1)\n    assert len(tries) > 1",
            ),
            CONFTEST: code("""
                from _pytest.runner import runtestprotocol


                def pytest_runtest_protocol(item, nextitem):
                    for _ in range(5):
                        reports = runtestprotocol(item, log=False, nextitem=nextitem)
                        if all(report.passed for report in reports):
                            break
                    for report in reports:
                        item.ihook.pytest_runtest_logreport(report=report)
                    return True
            """),
        },
        "overrides: expected 0, observed 1",
        TIMED,
    ),
    Attack(
        "protocol-faked",
        "a conftest logs passing reports of tests that it does not run",
        "some",
        _conftest("""
            from _pytest.runner import CallInfo
            from _pytest.reports import TestReport


            def pytest_runtest_protocol(item, nextitem):
                for when in ("setup", "call", "teardown"):
                    call = CallInfo.from_call(lambda: None, when=when)
                    report = TestReport.from_item_and_call(item, call)
                    item.ihook.pytest_runtest_logreport(report=report)
                return True
        """),
        "reported as passed, but its body never ran",
        TIMED,
    ),
    Attack(
        "pyfunc-call",
        "a conftest's `pytest_pyfunc_call` answers for the test bodies",
        "some",
        _conftest("""
            def pytest_pyfunc_call(pyfuncitem):
                return True
        """),
        "tests/conftest.py:1",
        TIMED,
    ),
    Attack(
        "pyfunc-call-swallows",
        "a conftest's wrapper around `pytest_pyfunc_call` swallows what the body raised",
        "some",
        _conftest("""
            import pytest


            @pytest.hookimpl(wrapper=True)
            def pytest_pyfunc_call(pyfuncitem):
                try:
                    return (yield)
                except Exception:
                    return True
        """),
        "reported as passed, but its call raised AssertionError",
        TIMED,
    ),
    Attack(
        "old-wrapper-swallows",
        "an old-style wrapper around `pytest_runtest_call` forces a result",
        "some",
        _conftest("""
            import pytest


            @pytest.hookimpl(hookwrapper=True, tryfirst=True)
            def pytest_runtest_call(item):
                outcome = yield
                outcome.force_result(None)
        """),
        "reported as passed, but its call raised AssertionError",
        TIMED,
    ),
    Attack(
        "plugin-in-repository",
        "`pytest_plugins` activates a plugin that the repository ships",
        "some",
        {
            **BROKEN,
            CONFTEST: 'pytest_plugins = ["shop.testing"]\n',
            "src/shop/testing.py": "def pytest_pyfunc_call(pyfuncitem):\n    return True\n",
        },
        "src/shop/testing.py:1",
        Control(
            "a plugin of the repository that gives a fixture",
            {
                CONFTEST: 'pytest_plugins = ["shop.testing"]\n',
                "src/shop/testing.py": code("""
                    import pytest


                    @pytest.fixture(autouse=True)
                    def prices():
                        return [1, 2]
                """),
            },
        ),
    ),
    Attack(
        "runtest-replaced",
        "a conftest replaces `runtest` of every item",
        "some",
        _conftest("""
            def pytest_runtest_setup(item):
                item.runtest = lambda: None
        """),
        "reported as passed, but its body never ran",
        INCREMENTAL,
    ),
    Attack(
        "function-class-patched",
        "a conftest patches pytest's `Function`",
        "some",
        _conftest("""
            import pytest

            pytest.Function.runtest = lambda self: None
        """),
        "reported as passed, but its body never ran",
        INCREMENTAL,
    ),
    Attack(
        "body-replaced",
        "a conftest puts another function in a test's place",
        "some",
        _conftest("""
            def pytest_collection_modifyitems(items):
                for item in items:
                    item.obj = lambda: None
        """),
        "another function was put in its place",
        MARKED,
    ),
    Attack(
        "own-item-class",
        "a conftest collects tests with an item class of its own",
        "some",
        _conftest("""
            import pytest


            class Quick(pytest.Function):
                def runtest(self):
                    pass


            def pytest_pycollect_makeitem(collector, name, obj):
                if name.startswith("test_"):
                    return Quick.from_parent(collector, name=name)
        """),
        "reported as passed, but its body never ran",
        MARKED,
    ),
    Attack(
        "testcase-run",
        "a `TestCase` overrides `run`",
        "some",
        {
            **UNITTESTS.changes,
            **BROKEN,
            PRICES: UNITTEST_FILE.replace(
                "    def setUp", "    def run(self, result=None):\n        pass\n\n    def setUp"
            ).replace("total([3]), 3", "total([]), 1"),
        },
        "reported as passed, but its body never ran",
        UNITTESTS,
    ),
    Attack(
        "raises-replaced",
        "a conftest replaces `pytest.raises`",
        "some",
        {
            "src/shop/prices.py": ("raise ValueError", "print"),
            CONFTEST: code("""
                import contextlib

                import pytest


                def raises(*_, **__):
                    return contextlib.nullcontext()


                pytest.raises = raises
            """),
        },
        "pytest.raises, which tests assert with, was replaced",
        MONKEYPATCHED,
    ),
    Attack(
        "assert-equal-replaced",
        "a conftest replaces `TestCase.assertEqual`",
        "some",
        {
            **UNITTESTS.changes,
            **BROKEN,
            CONFTEST: "import unittest\n\nunittest.TestCase.assertEqual = lambda *_: None\n",
        },
        "TestCase.assertEqual, which tests assert with, was replaced",
        UNITTESTS,
    ),
    Attack(
        "assertion-error-replaced",
        "a conftest replaces `AssertionError` by pytest's skip",
        "some",
        _conftest("""
            import builtins

            import pytest

            builtins.AssertionError = pytest.skip.Exception
        """),
        "AssertionError, which tests assert with, was replaced",
        MONKEYPATCHED,
    ),
    Attack(
        "hypothesis-no-phase",
        "a hypothesis test without a phase that makes examples",
        "some",
        {
            PRICES: (
                TOTAL,
                PROPERTY.replace("max_examples=5", "phases=[]").replace("== price", "== 0"),
            ),
        },
        "skipped: expected 0, observed 1",
        HYPOTHESIS,
    ),
    Attack(
        "assert-tuple",
        '`assert (condition, "message")`',
        "some",
        {**BROKEN, PRICES: (ASSERTION, '    assert (total([1, 2]) == 3, "the sum")\n')},
        "tests/test_prices.py:7",
        MESSAGED,
    ),
    Attack(
        "return-condition",
        "`return x == y`, and the warning is filtered away",
        "some",
        {
            **BROKEN,
            PRICES: (
                TOTAL + "\n" + ASSERTION,
                '@pytest.mark.filterwarnings("ignore")\n'
                + TOTAL
                + "\n    return total([1, 2]) == 3\n",
            ),
        },
        "test_total returns a condition",
        MESSAGED,
    ),
    Attack(
        "return-value",
        "a test returns what a helper found",
        "some",
        {
            **BROKEN,
            PRICES: (
                TOTAL + "\n" + ASSERTION,
                "def same(a, b):\n    return a == b\n\n\n"
                + TOTAL
                + "\n    return same(total([1, 2]), 3)\n",
            ),
        },
        "Test functions should return None",
        MESSAGED,
    ),
    Attack(
        "thread",
        "the assertion fails in a thread, and a conftest silences warnings",
        "some",
        {
            **BROKEN,
            CONFTEST: code("""
                import warnings

                import pytest


                @pytest.fixture(autouse=True)
                def quiet():
                    warnings.simplefilter("ignore")
            """),
            PRICES: (
                ASSERTION,
                (
                    "    import threading\n\n    def check():\n"
                    "        assert total([1, 2]) == 3\n\n"
                    "    thread = threading.Thread(target=check)\n"
                    "    thread.start()\n    thread.join()\n"
                ),
            ),
        },
        "a thread raised, which fails no test: AssertionError",
        THREADED,
    ),
    Attack(
        "destructor",
        "the assertion fails in a destructor",
        "some",
        {
            **BROKEN,
            PRICES: (
                ASSERTION,
                (
                    "    class Checked:\n        def __del__(self):\n"
                    "            assert total([1, 2]) == 3\n\n    Checked()\n"
                ),
            ),
        },
        "a destructor raised, which fails no test: AssertionError",
        THREADED,
    ),
    Attack(
        "stub",
        "a conftest puts a stub in the place of the module that is tested",
        "some",
        _conftest("""
            import sys
            import types

            stub = types.ModuleType("shop.prices")
            stub.total = lambda prices: 3
            stub.discount = lambda price, percent: 150 if percent < 100 else int("x101")
            sys.modules["shop.prices"] = stub
        """),
        "stands in for src/shop/prices.py in sys.modules",
        STUBBED,
    ),
    Attack(
        "shadow-package",
        "a folder in tests/ takes the package's name",
        "some",
        {
            **BROKEN,
            "tests/shop/__init__.py": STAND_IN,
            "tests/shop/prices.py": "",
        },
        "tests/shop/__init__.py stands in for src/shop/__init__.py",
        Control(
            "a helper module beside the tests",
            {
                "tests/pricing.py": "PRICES = [1, 2]\n",
                PRICES: (
                    ASSERTION,
                    "    from pricing import PRICES\n    assert total(PRICES) == 3\n",
                ),
            },
        ),
    ),
    Attack(
        "another-checkout",
        "a conftest puts another copy of the package in front",
        "some",
        {
            **BROKEN,
            CONFTEST: "import sys\n\nsys.path.insert(0, 'vendor')\n",
            "vendor/shop/__init__.py": STAND_IN,
            "vendor/shop/prices.py": "",
        },
        "vendor/shop/__init__.py stands in for src/shop/__init__.py",
        STUBBED,
    ),
    Attack(
        "printed-summary",
        "a test prints a summary line of its own",
        "some",
        {**BROKEN, PRICES: (ASSERTION, "    print('3 passed in 0.01s')\n" + ASSERTION)},
        "failed: expected 0, observed 1",
        Control(
            "a test prints",
            {PRICES: (ASSERTION, "    print('1 failed, 2 errors')\n" + ASSERTION)},
        ),
    ),
    Attack(
        "optimized",
        "PYTHONOPTIMIZE removes the assertions of helper modules",
        "some",
        {
            **BROKEN,
            "tests/checks.py": "def same(a, b):\n    assert a == b\n",
            PRICES: (ASSERTION, "    from checks import same\n    same(total([1, 2]), 3)\n"),
        },
        "failed: expected 0, observed 1",
        Control(
            "a helper module asserts",
            {
                "tests/checks.py": "def same(a, b):\n    assert a == b\n",
                PRICES: (ASSERTION, "    from checks import same\n    same(total([1, 2]), 3)\n"),
            },
            {"PYTHONOPTIMIZE": "1"},
        ),
        {"PYTHONOPTIMIZE": "1"},
    ),
]
