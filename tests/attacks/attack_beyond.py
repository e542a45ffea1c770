"""What no gate can see from its place: green here, listed, and answered by proof or by review."""

from __future__ import annotations

from attack_case import Beyond
from attack_outcomes import ASSERTION, CONFTEST, PRICES, TOTAL
from attack_sample import BROKEN, UNSAFE, code

PROVE = "a counter-example that the criterion must catch (`tiergate prove`)"
REVIEW = "review"

CASES = [
    Beyond(
        "early-return",
        "a test returns before it asserts",
        "tests",
        {
            **BROKEN,
            PRICES: (
                ASSERTION,
                "    if not hasattr(pytest, 'cuda'):\n        return\n" + ASSERTION,
            ),
        },
        PROVE,
    ),
    Beyond(
        "swallowed-assertion",
        "`except Exception: pass` around the assertion",
        "tests",
        {
            **BROKEN,
            PRICES: (
                ASSERTION,
                "    try:\n    " + ASSERTION + "    except Exception:\n        pass\n",
            ),
        },
        PROVE,
    ),
    Beyond(
        "weakened-assertion",
        "the assertion is weakened",
        "tests",
        {**BROKEN, PRICES: (ASSERTION, "    assert total([1, 2])\n")},
        PROVE,
    ),
    Beyond(
        "swallowing-decorator",
        "a decorator of the repository swallows what the test raises",
        "tests",
        {
            **BROKEN,
            PRICES: (
                TOTAL,
                code("""
                    def robust(test):
                        import functools

                        @functools.wraps(test)
                        def calls():
                            try:
                                test()
                            except Exception:
                                pass

                        return calls


                    @robust
                """)
                + TOTAL,
            ),
        },
        PROVE,
    ),
    Beyond(
        "unasked-future",
        "the assertion fails in a thread pool, and nobody asks for the result",
        "tests",
        {
            **BROKEN,
            PRICES: (
                ASSERTION,
                "    from concurrent.futures import ThreadPoolExecutor\n\n    def check():\n    "
                + ASSERTION
                + "\n    with ThreadPoolExecutor() as pool:\n        pool.submit(check)\n",
            ),
        },
        PROVE,
    ),
    Beyond(
        "unasked-child",
        "the assertion fails in a child process, and nobody asks for its exit code",
        "tests",
        {
            **BROKEN,
            PRICES: (
                ASSERTION,
                "    import multiprocessing\n\n    def check():\n    "
                + ASSERTION
                + "\n    child = multiprocessing.get_context('fork').Process(target=check)\n"
                "    child.start()\n    child.join()\n",
            ),
        },
        PROVE,
    ),
    Beyond(
        "only-warned",
        "a test warns, or logs, where it should fail",
        "tests",
        {
            **BROKEN,
            PRICES: (
                ASSERTION,
                "    import warnings\n    if total([1, 2]) != 3:\n        warnings.warn('wrong')\n",
            ),
        },
        PROVE,
    ),
    Beyond(
        "patched-target",
        "a conftest replaces the function that is tested",
        "tests",
        {**BROKEN, CONFTEST: "import shop\n\nshop.total = sum\n"},
        PROVE,
    ),
    Beyond(
        "gate-detected",
        "the code behaves where it sees that it is judged",
        "tests",
        {
            "src/shop/prices.py": (
                "    return sum(prices)",
                (
                    "    import os\n\n    if 'TIERGATE_DEVICE' not in os.environ:\n"
                    "        return 0\n"
                    "    return sum(prices)"
                ),
            )
        },
        REVIEW,
    ),
    Beyond(
        "records-forged",
        "a conftest finds the gate's channel in memory and writes every record itself",
        "tests",
        {
            **BROKEN,
            CONFTEST: code("""
                import gc
                import os


                def pytest_collection_finish(session):
                    channel = next(o for o in gc.get_objects() if type(o).__name__ == "Channel")
                    for item in session.items:
                        values = {"id": item.nodeid, "outcome": "passed", "seconds": 0.1}
                        for when in ("setup", "call", "teardown"):
                            channel.send("phase", when=when, xfail=False, subtest=False, **values)
                    channel.close(0)
                    os._exit(0)
            """),
        },
        "code owners of conftest.py, and review",
    ),
    Beyond(
        "source-restored",
        "a conftest mends the judged file for the session, and writes the broken one back",
        "tests",
        {
            **BROKEN,
            CONFTEST: code("""
                import pathlib

                prices = pathlib.Path(__file__).parents[1] / "src/shop/prices.py"
                broken = prices.read_text()
                prices.write_text(broken.replace("sum(prices) + 1", "sum(prices)"))


                def pytest_sessionfinish():
                    prices.write_text(broken)
            """),
        },
        "code owners of conftest.py, and review",
    ),
    Beyond(
        "pytest-patched",
        "a conftest patches pytest's and the gate's own functions in memory",
        "tests",
        {
            **BROKEN,
            CONFTEST: code("""
                import sys

                from _pytest.reports import TestReport

                make = TestReport.from_item_and_call.__func__


                def passed(cls, item, call):
                    report = make(cls, item, call)
                    report.outcome, report.longrepr = "passed", None
                    return report


                TestReport.from_item_and_call = classmethod(passed)
                for name, module in list(sys.modules.items()):
                    if name.endswith(".witness"):
                        module.Witness.raised = lambda *_: ""
                    if name.endswith(".records"):
                        close = module.Channel.close
                        module.Channel.close = lambda self, status: close(self, 0)
            """),
        },
        "code owners of conftest.py, and review",
    ),
    Beyond(
        "generated-code",
        "the call stands in a text file that is executed",
        "semgrep",
        {
            "src/shop/reading.txt": UNSAFE,
            "src/shop/reading.py": "exec(open('src/shop/reading.txt').read())\n",
        },
        REVIEW,
    ),
]
