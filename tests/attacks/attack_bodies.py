"""Attacks on the body of a test: another one runs, it is steered, or its failure is nobody's."""

from __future__ import annotations

from attack_case import Attack, Control
from attack_outcomes import ASSERTION, CONFTEST, MONKEYPATCHED, PRICES, TIMED, TOTAL
from attack_process import EXITS, MOVES, UNCLOSED
from attack_sample import BROKEN, FILES, Changes, code

TEST = TOTAL + "\n" + ASSERTION
ANOTHER_BODY = "was collected with another body than the one that stands here"
ENCODED = "in which ASCII is not what it seems"


def _conftest(text: str) -> Changes:
    return {**BROKEN, CONFTEST: code(text)}


def _body(text: str) -> Changes:
    """The lines stand in the place of the test's assertion."""
    return {PRICES: (ASSERTION, "".join(f"    {line}\n" for line in code(text).splitlines()))}


def _subtest(*lines: str) -> Changes:
    block = "".join(f"        {line}\n" for line in lines)
    with_fixture = TOTAL.replace("()", "(subtests)")
    return {PRICES: (TEST, f"{with_fixture}\n    with subtests.test('a sum'):\n{block}")}


SUM = ASSERTION.strip()
ONE_PRICE = code("""
    from hypothesis import given, strategies


    @given(strategies.integers())
    def test_total(price):
        assert total([price]) == price
""")
SUBTESTS = Control("a test with subtests", _subtest(SUM))
DECORATED = Control(
    "a decorator of the repository calls the test",
    {
        PRICES: (
            TOTAL,
            code("""
                def twice(test):
                    def calls():
                        test()
                        test()

                    return calls


                @twice
            """)
            + TOTAL,
        )
    },
)
TRACED = Control(
    "a test that sets and removes a trace function",
    _body(f"""
        import sys
        sys.settrace(lambda *_: None)
        sys.settrace(None)
        {SUM}
    """),
)
LATIN = Control(
    "a test file in Latin-1",
    {
        PRICES: ("# coding: latin-1\n# Preise in \xa3\n" + FILES[PRICES]).encode("latin-1"),
    },
)
TASK = Control(
    "a task that is awaited, and one whose failure a handler of the test receives",
    _body(f"""
        import asyncio
        failed = []
        async def fails():
            raise ValueError("expected")
        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda *_: failed.append(1))
            asyncio.create_task(fails())
            await asyncio.sleep(0)
        asyncio.run(main())
        import gc
        gc.collect()
        assert failed
        {SUM}
    """),
)
EXITING_THREAD = Control(
    "a thread that ends itself by SystemExit",
    _body(f"""
        import sys, threading
        worker = threading.Thread(target=sys.exit)
        worker.start()
        worker.join()
        {SUM}
    """),
)

ATTACKS = [
    Attack(
        "subtest-fails",
        "a subtest fails in a test that goes on",
        "some",
        {**BROKEN, **_subtest(SUM)},
        "failed: expected 0",
        SUBTESTS,
    ),
    Attack(
        "subtest-skips",
        "a subtest skips itself",
        "some",
        {**BROKEN, **_subtest("pytest.skip('later')", SUM)},
        "skipped: expected 0",
        SUBTESTS,
    ),
    Attack(
        "subtest-xfails",
        "a subtest says that it is expected to fail",
        "some",
        {**BROKEN, **_subtest("pytest.xfail('later')", SUM)},
        "xfailed: expected 0",
        SUBTESTS,
    ),
    Attack(
        "subtest-of-a-case-skips",
        "a subtest of a `TestCase` skips itself",
        "some",
        {
            **BROKEN,
            PRICES: code("""
                import unittest

                from shop import total


                class Prices(unittest.TestCase):
                    def test_total(self):
                        with self.subTest("a sum"):
                            self.skipTest("later")
                            self.assertEqual(total([1, 2]), 3)
            """),
        },
        "skipped: expected 0",
        SUBTESTS,
    ),
    Attack(
        "code-replaced",
        "a conftest replaces the code of a test before it is collected",
        "some",
        _conftest("""
            def pytest_pycollect_makeitem(collector, name, obj):
                if name == "test_total":
                    obj.__code__ = (lambda: None).__code__
        """),
        ANOTHER_BODY,
        DECORATED,
    ),
    Attack(
        "code-disguised",
        "the same, and the code says that it stands where the test does",
        "some",
        _conftest("""
            def pytest_pycollect_makeitem(collector, name, obj):
                if name == "test_total":
                    own = obj.__code__
                    obj.__code__ = (lambda: None).__code__.replace(
                        co_filename=own.co_filename,
                        co_firstlineno=own.co_firstlineno,
                        co_name=own.co_name,
                    )
        """),
        ANOTHER_BODY,
        DECORATED,
    ),
    Attack(
        "rebound",
        "a test's name is bound to something else further down",
        "some",
        {**BROKEN, PRICES: (ASSERTION, ASSERTION + "\n\ntest_total = lambda: None\n")},
        ANOTHER_BODY,
        DECORATED,
    ),
    Attack(
        "own-codec",
        "a conftest registers an encoding that reads `assert` away, and a test file declares it",
        "some",
        {
            **_conftest("""
                import codecs

                utf8 = codecs.lookup("utf-8")


                def decode(data, errors="strict"):
                    return bytes(data).decode().replace("assert total", "total"), len(data)


                class Incremental(codecs.BufferedIncrementalDecoder):
                    def _buffer_decode(self, data, errors, final):
                        return decode(data) if final else ("", 0)


                def find(name):
                    if name == "shop":
                        return codecs.CodecInfo(
                            utf8.encode,
                            decode,
                            utf8.streamreader,
                            utf8.streamwriter,
                            utf8.incrementalencoder,
                            Incremental,
                            name="shop",
                        )


                codecs.register(find)
            """),
            PRICES: ("import pytest\n", "# coding: shop\nimport pytest\n"),
        },
        ENCODED,
        LATIN,
    ),
    Attack(
        "utf-7-test",
        "a test file in UTF-7, whose comment is a `return`",
        "some",
        {
            **BROKEN,
            PRICES: "# coding: utf-7\n"
            + FILES[PRICES].replace(TOTAL, TOTAL + "\n    # +AAo-    return", 1),
        },
        ENCODED,
        LATIN,
    ),
    Attack(
        "traced",
        "a conftest's trace function jumps over the assertion",
        "some",
        {
            **_conftest("""
                import sys


                def jump(frame, event, argument):
                    if event == "line":
                        try:
                            frame.f_lineno = frame.f_code.co_firstlineno + 2
                        except ValueError:
                            pass
                    return jump


                def trace(frame, event, argument):
                    return jump if frame.f_code.co_name == "test_total" else None


                sys.settrace(trace)
            """),
            PRICES: (ASSERTION, ASSERTION + "    return None\n"),
        },
        "a trace function of the repository steps through the tests",
        TRACED,
    ),
    Attack(
        "profiled",
        "a conftest's profile function looks into the calls of a test",
        "some",
        _conftest("""
            import sys


            def profile(frame, event, argument):
                if event == "call" and frame.f_code.co_name == "total":
                    frame.f_locals["prices"] = [1, 1]


            sys.setprofile(profile)
        """),
        "a profile function of the repository steps through the tests",
        TIMED,
    ),
    Attack(
        "isclose-replaced",
        "a conftest replaces `math.isclose`",
        "some",
        {
            **_conftest("import math\n\nmath.isclose = lambda *_, **__: True\n"),
            **_body("""
                import math
                assert math.isclose(total([1, 2]), 3)
            """),
        },
        "math.isclose, which tests assert with, was replaced",
        MONKEYPATCHED,
    ),
    Attack(
        "mock-assertion-replaced",
        "a conftest replaces an assertion of mocks",
        "some",
        {
            CONFTEST: code("""
                from unittest import mock

                mock.NonCallableMock.assert_called_once = lambda self: None
            """),
            **_body("""
                from unittest import mock
                printed = mock.Mock()
                printed.assert_called_once()
            """),
        },
        "NonCallableMock.assert_called_once, which tests assert with, was replaced",
        MONKEYPATCHED,
    ),
    Attack(
        "task",
        "the assertion fails in an asyncio task that nobody awaits",
        "some",
        {
            **BROKEN,
            **_body(f"""
                import asyncio
                async def check():
                    {SUM}
                async def main():
                    asyncio.create_task(check())
                    await asyncio.sleep(0)
                asyncio.run(main())
            """),
        },
        "a task that nobody waited for raised, which fails no test",
        TASK,
    ),
    Attack(
        "thread-exits",
        "a thread sees the failure and ends itself by `SystemExit(1)`",
        "some",
        {
            **BROKEN,
            **_body("""
                import threading
                def check():
                    if total([1, 2]) != 3:
                        raise SystemExit(1)
                worker = threading.Thread(target=check)
                worker.start()
                worker.join()
            """),
        },
        "a thread raised, which fails no test: SystemExit: 1",
        EXITING_THREAD,
    ),
    Attack(
        "finalizer",
        "the assertion fails in a finalizer",
        "some",
        {
            **BROKEN,
            **_body(f"""
                import weakref
                class Basket: pass
                def check():
                    {SUM}
                basket = Basket()
                weakref.finalize(basket, check)
                del basket
            """),
        },
        "a destructor raised, which fails no test: AssertionError",
        EXITING_THREAD,
    ),
    Attack(
        "garbage-collector",
        "the assertion fails in a callback of the garbage collector",
        "some",
        {
            **BROKEN,
            **_body(f"""
                import gc
                def check(phase, about):
                    {SUM}
                gc.callbacks.append(check)
                gc.collect()
                gc.callbacks.remove(check)
            """),
        },
        "a destructor raised, which fails no test: AssertionError",
        EXITING_THREAD,
    ),
    Attack(
        "alarm",
        "an alarm interrupts the test by a skip",
        "some",
        {
            **BROKEN,
            **_body(f"""
                import signal, threading
                def later(*_):
                    pytest.skip("slow")
                signal.signal(signal.SIGALRM, later)
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                threading.Event().wait(30)
                {SUM}
            """),
        },
        "skipped: expected 0, observed 1",
        EXITS,
    ),
    Attack(
        "watchdog",
        "`faulthandler` ends the process after a while",
        "some",
        {
            **BROKEN,
            **_body(f"""
                import faulthandler, threading
                faulthandler.dump_traceback_later(0.01, exit=True)
                threading.Event().wait(30)
                {SUM}
            """),
        },
        UNCLOSED,
        MOVES,
    ),
    Attack(
        "hang-ignores-signals",
        "a test that hangs, and ignores that it is asked to end",
        "some",
        {
            **BROKEN,
            "gate.yaml": ("timeout: 60", "timeout: 1.5"),
            **_body("""
                import signal, threading
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                threading.Event().wait(3600)
            """),
        },
        "tests/test_prices.py::test_total was running",
        MOVES,
    ),
    Attack(
        "exit-at-unconfigure",
        "`os._exit(0)` when pytest has finished",
        "some",
        _conftest("""
            import os


            def pytest_unconfigure():
                os._exit(0)
        """),
        UNCLOSED,
        TIMED,
    ),
    Attack(
        "hypothesis-profile",
        "a conftest loads a hypothesis profile that makes no examples",
        "some",
        {
            **_conftest("""
                import hypothesis

                hypothesis.settings.register_profile("none", phases=())
                hypothesis.settings.load_profile("none")
            """),
            PRICES: (
                TEST,
                ONE_PRICE,
            ),
        },
        "skipped: expected 0, observed 1",
        Control(
            "a conftest loads a hypothesis profile with fewer examples",
            {
                CONFTEST: code("""
                    import hypothesis

                    hypothesis.settings.register_profile("few", max_examples=5, database=None)
                    hypothesis.settings.load_profile("few")
                """),
                PRICES: (
                    TEST,
                    ONE_PRICE,
                ),
            },
        ),
    ),
]
