"""Attacks by tests whose body never runs, or runs for two, though each is collected and passes."""

from __future__ import annotations

from attack_bodies import DECORATED, TEST
from attack_case import Attack, Control
from attack_outcomes import PRICES
from attack_sample import BROKEN, Changes, code

NEVER_RAN = "reported as passed, but its body never ran"


def _test(text: str) -> Changes:
    return {PRICES: (TEST, code(text))}


AWAITED = Control(
    "coroutines in a `TestCase` that awaits them, one of them patched",
    _test("""
        import unittest
        from unittest import mock


        class TestPrices(unittest.IsolatedAsyncioTestCase):
            @mock.patch("os.getcwd")
            async def test_total(self, getcwd):
                assert total([1, 2]) == 3
    """),
)
IN_A_CHILD = Control(
    "a decorator has a child process run the test",
    _test("""
        import functools
        import os


        def forked(test):
            @functools.wraps(test)
            def run():
                child = os.fork()
                if child == 0:
                    try:
                        test()
                    finally:
                        os._exit(0)
                os.waitpid(child, 0)

            return run


        @forked
        def test_total():
            assert total([1, 2]) == 3
    """),
)

ATTACKS = [
    Attack(
        "decorated-away",
        "a decorator calls the test only where a variable is set",
        "tests",
        {
            **BROKEN,
            **_test("""
                import functools
                import os


                def slow(test):
                    @functools.wraps(test)
                    def run():
                        if "RUN_SLOW" in os.environ:
                            test()

                    return run


                @slow
                def test_total():
                    assert total([1, 2]) == 3
            """),
        },
        NEVER_RAN,
        IN_A_CHILD,
    ),
    Attack(
        "decorated-by-nothing",
        "a decorator puts a function that does nothing in the test's place",
        "tests",
        {
            **BROKEN,
            **_test("""
                @(lambda test: lambda: None)
                def test_total():
                    assert total([1, 2]) == 3
            """),
        },
        NEVER_RAN,
        DECORATED,
    ),
    Attack(
        "decorated-coroutine",
        "a decorator calls a coroutine function, and nobody awaits it",
        "tests",
        {
            **BROKEN,
            **_test("""
                def logged(test):
                    def run():
                        test()

                    return run


                @logged
                async def test_total():
                    assert total([1, 2]) == 3
            """),
        },
        NEVER_RAN,
        Control(
            "a decorator runs a coroutine function in an event loop",
            _test("""
                import asyncio


                def awaited(test):
                    def run():
                        asyncio.run(test())

                    return run


                @awaited
                async def test_total():
                    assert total([1, 2]) == 3
            """),
        ),
    ),
    Attack(
        "coroutine-in-a-testcase",
        "a coroutine in a `TestCase` that awaits nothing",
        "tests",
        {
            **BROKEN,
            **_test("""
                import unittest


                class TestPrices(unittest.TestCase):
                    async def test_total(self):
                        self.assertEqual(total([1, 2]), 3)
            """),
        },
        NEVER_RAN,
        AWAITED,
    ),
    Attack(
        "generator-in-a-testcase",
        "a method of a `TestCase` that yields",
        "tests",
        {
            **BROKEN,
            **_test("""
                import unittest


                class TestPrices(unittest.TestCase):
                    def test_total(self):
                        self.assertEqual(total([1, 2]), 3)
                        yield
            """),
        },
        NEVER_RAN,
        AWAITED,
    ),
    Attack(
        "counted-twice",
        "a test gets the name of a deleted one as well",
        "some",
        {
            **BROKEN,
            PRICES: (TEST, "def test_a_price():\n    assert 1\n\n\ntest_total = test_a_price\n"),
        },
        "test_total is test_a_price under another name: one test counts twice",
        Control(
            "a class of tests inherits tests",
            _test("""
                class TestPrices:
                    def test_total(self):
                        assert total([1, 2]) == 3


                class TestMore(TestPrices):
                    def test_more(self):
                        assert total([]) == 0
            """),
        ),
    ),
]
