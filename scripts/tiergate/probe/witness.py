"""What really happened under the hooks that a repository can implement.

Pytest reports what its hooks make of a test. Here the innermost places are watched: the call of a
test's body, what it raised, which implementation of a hook decided, and what tests assert with.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from .helpers import Helpers
from .inner import Inner
from .ownership import code_of
from .text import clip

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from .hooks import Look
    from .ownership import Ownership

# Hooks whose first result stands for pytest's own work: who answers decides whether and how tests
# are collected, run and reported.
_DECIDING = frozenset(
    {
        "pytest_cmdline_main",
        "pytest_collection",
        "pytest_fixture_setup",
        "pytest_make_collect_report",
        "pytest_pyfunc_call",
        "pytest_runtest_makereport",
        "pytest_runtest_protocol",
        "pytest_runtestloop",
    }
)

_LAZY = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
"""Of functions that do nothing yet when they are called."""

_UNWATCHED = nullcontext()


def _is_just_called(case: type) -> bool:
    """Tell whether a unittest class has its methods called as unittest's own ``TestCase`` does."""
    from unittest import TestCase  # noqa: PLC0415 - it is there: this is of a subclass

    return all(
        getattr(case, name, None) is getattr(TestCase, name) for name in ("run", "_callTestMethod")
    )


class Witness:
    """Watches from outside every hook call, and from inside the calls of test bodies.

    Args:
        owned: tells the repository's own code.
        doubt: is told ``(outcome, test id, message, path, line)``.
        ended: is called when the last test has ended, before anything else hears of it.
    """

    def __init__(
        self,
        owned: Ownership,
        doubt: Callable[[str, str, str, str, int], None],
        ended: Callable[[], None],
    ) -> None:
        self._owned = owned
        self._doubt = doubt
        self._ended = ended
        self.watching = False
        """Whether the calls of hooks are seen."""
        self._watched: set[int] = set()
        self._kept: list[Any] = []
        self._trusted: set[int] = set()
        self._looked = False
        self._codes: dict[str, CodeType | None] = {}
        self._inner: dict[str, Inner] = {}
        self._ran: set[str] = set()
        self.failures: dict[tuple[str, str], str] = {}
        """Test and phase → what it raised, in words."""
        self._running = ""
        self._helpers = Helpers(owned)
        self._next_thread_hook: Any = None
        self._next_unraisable_hook: Any = None
        self._logger = logging.getLogger("asyncio")
        self._log_filter = self._logged
        self._thread_hook = self._thread_failed
        self._unraisable_hook = self._unraisable

    def looks(self, manager: Any) -> dict[str, Look]:
        """Return what is to be called at the calls of which of a plugin manager's hooks."""
        looks: dict[str, Look] = {
            name: functools.partial(self._watch_implementations, name) for name in _DECIDING
        }
        looks |= {
            "pytest_fixture_setup": self._before_fixture,
            "pytest_load_initial_conftests": lambda *_: self._trust(manager),
            "pytest_pyfunc_call": self._before_body,
            "pytest_runtest_call": lambda _, values: self._watch_method(values["item"]),
            "pytest_runtest_makereport": self._before_report,
            "pytest_runtest_setup": self._before_test,
            "pytest_sessionfinish": lambda *_: self._ended(),
            "pytest_sessionstart": self._before_session,
        }
        return looks

    def collected(self, test: str, code: CodeType | None) -> None:
        """Remember the body that a test was collected with."""
        self._codes[test] = code

    def decorated(self, test: str, inner: Inner) -> None:
        """Require of a test that is called through something else that its own body is called."""
        self._inner[test] = inner

    def raised(self, test: str, when: str) -> str:
        """Return what a phase of a test raised, in words; empty where it ended by itself."""
        return self.failures.get((test, when), "")

    def ran(self, test: str) -> bool:
        """Tell whether a test's body was called; always true for what is no Python function."""
        return test not in self._codes or test in self._ran

    def _before_session(self, implementations: list[Any], values: dict[str, Any]) -> None:
        self.watching = True

    def _before_test(self, implementations: list[Any], values: dict[str, Any]) -> None:
        """Start afresh: a plugin may run a test again."""
        self._running = test = values["item"].nodeid
        self._ran.discard(test)
        if self.failures:
            for when in ("setup", "call", "teardown"):
                self.failures.pop((test, when), None)
        self._hold_hooks()

    def _before_fixture(self, implementations: list[Any], values: dict[str, Any]) -> None:
        self._watch_implementations("pytest_fixture_setup", implementations)
        self._looked = False

    def _before_body(self, implementations: list[Any], values: dict[str, Any]) -> None:
        self._watch_implementations("pytest_pyfunc_call", implementations)
        self._looked = False

    def _before_report(self, implementations: list[Any], values: dict[str, Any]) -> None:
        self._watch_implementations("pytest_runtest_makereport", implementations)
        call = values["call"]
        if call.excinfo is not None:
            key = values["item"].nodeid, call.when
            self.failures.setdefault(key, self._words(call.excinfo.value))

    def _trust(self, manager: Any) -> None:
        """Know which implementations are there before any code of the repository is."""
        implementations = manager.hook.pytest_pyfunc_call.get_hookimpls()
        self._watch_implementations("pytest_pyfunc_call", implementations)
        self._trusted.update(map(id, implementations))

    def _watch_implementations(self, name: str, implementations: list[Any], *_: object) -> None:
        """Put a watch around each of a hook's implementations that has none yet."""
        if not self._watched.issuperset(map(id, implementations)):
            for implementation in implementations:
                if id(implementation) not in self._watched:
                    self._watch_implementation(name, implementation)

    def _watch_implementation(self, name: str, implementation: Any) -> None:
        self._watched.add(id(implementation))
        self._kept.append(implementation)  # so that the id stays its own
        if getattr(implementation, "wrapper", False) or implementation.hookwrapper:
            return
        function = implementation.function
        if self._owned.function(function):
            implementation.function = self._deciding(name, function)
        elif name == "pytest_pyfunc_call":
            implementation.function = self._calling(implementation, function)

    def _deciding(self, name: str, function: Any) -> Any:
        """Watch an implementation of the repository: a result of its own is an override."""

        def watched(*arguments: Any) -> Any:
            result = function(*arguments)
            self._looked = False
            if result is not None:
                path, line = self._owned.place(function)
                message = f"{name} is decided by the repository's own hook, in place of pytest's"
                self._doubt("overrides", f"{path}:{line}", message, path, line)
            return result

        return watched

    def _calling(self, implementation: Any, function: Any) -> Any:
        """Watch an implementation that calls test bodies: pytest's own, or a plugin's."""
        index = list(implementation.argnames).index("pyfuncitem")
        key = id(implementation)

        def watched(*arguments: Any) -> Any:
            item = arguments[index]
            if not self._looked:
                self._check_body(item)
            # Where this one leaves the body to the next, none of the repository's code ran in it.
            self._looked = key in self._trusted
            inner = self._inner.get(item.nodeid)
            try:
                with inner.watch() if inner else _UNWATCHED:
                    result = function(*arguments)
            except BaseException as error:
                self._looked = False
                self._ran.add(item.nodeid)
                self.failures[item.nodeid, "call"] = self._words(error)
                raise
            if result is not None:
                self._looked = False
                if inner is None or inner.called:
                    self._ran.add(item.nodeid)
            return result

        return watched

    def _watch_method(self, item: Any) -> None:
        """Watch the body of a unittest test case, which pytest does not call itself."""
        if not hasattr(item, "_testcase") or item.nodeid not in self._codes:
            return
        self._check_body(item)
        method = item.obj
        if any(is_lazy(method) for is_lazy in _LAZY) and _is_just_called(item.cls):
            return  # what it returns is dropped: its body never runs
        if inspect.iscoroutinefunction(method):
            self._ran.add(item.nodeid)  # unittest looks the method up by itself
            return
        inner = self._inner.get(item.nodeid)

        @functools.wraps(method)
        def watched(*arguments: Any, **keywords: Any) -> Any:
            try:
                with inner.watch() if inner else _UNWATCHED:
                    result = method(*arguments, **keywords)
            except BaseException as error:
                self._ran.add(item.nodeid)
                self.failures[item.nodeid, "call"] = self._words(error)
                raise
            if inner is None or inner.called:
                self._ran.add(item.nodeid)
            return result

        item.obj = watched

    def _check_body(self, item: Any) -> None:
        """Doubt a test whose body is not the collected one, or that asserts with something else."""
        code = code_of(item.obj)
        if code is not self._codes.get(item.nodeid) and self._owned.function(item.obj):
            path, line = self._owned.place(item.obj)
            self._doubt("suspect", item.nodeid, "another function was put in its place", path, line)
        if not self._helpers.are_same():
            self._check_helpers()
        if sys.gettrace() is not None or sys.getprofile() is not None:
            self._check_tracing()

    def _check_tracing(self) -> None:
        """Doubt a function of the repository that is called within tests, and can steer them."""
        for name, function in (("trace", sys.gettrace()), ("profile", sys.getprofile())):
            if function is not None and self._owned.function(function):
                path, line = self._owned.place(function)
                message = f"a {name} function of the repository steps through the tests"
                self._doubt("suspect", self._running, message, path, line)

    def _check_helpers(self) -> None:
        """Doubt what tests assert with and is not what it was."""
        for name, value in self._helpers.replaced():
            path, line = self._owned.place(value)
            message = f"{name}, which tests assert with, was replaced"
            self._doubt("suspect", name, message, path, line)

    def _hold_hooks(self) -> None:
        """Stand in front of what reports failures outside of the main thread's calls."""
        if threading.excepthook is not self._thread_hook:
            self._next_thread_hook = threading.excepthook
            threading.excepthook = self._thread_hook
        if sys.unraisablehook is not self._unraisable_hook:
            self._next_unraisable_hook = sys.unraisablehook
            sys.unraisablehook = self._unraisable_hook

        # What event loops say of tasks that failed and that nobody waited for.
        if logging.Logger.manager.loggerDict.get("asyncio") is not self._logger:
            self._logger = logging.getLogger("asyncio")
        if self._log_filter not in self._logger.filters:
            self._logger.addFilter(self._log_filter)

    def _logged(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and record.levelno >= logging.ERROR:
            self._outside("a task that nobody waited for", error)
        return True

    def _thread_failed(self, failed: Any) -> None:
        error = failed.exc_value or failed.exc_type()
        if not isinstance(error, SystemExit) or error.code not in {None, 0}:
            self._outside("a thread", error)
        self._next_thread_hook(failed)

    def _unraisable(self, failed: Any) -> None:
        if isinstance(failed.exc_value, BaseException):
            self._outside("a destructor", failed.exc_value)
        self._next_unraisable_hook(failed)

    def _outside(self, where: str, error: BaseException) -> None:
        path, line = self._raised_at(error)
        if path:
            message = f"{where} raised, which fails no test: {self._words(error)}"
            self._doubt("suspect", self._running, message, path, line)

    def _words(self, error: BaseException) -> str:
        path, line = self._raised_at(error)
        where = f" at {path}:{line}" if path else ""
        return clip(f"{type(error).__name__}: {error}", 500) + where

    def _raised_at(self, error: BaseException) -> tuple[str, int]:
        """The last line of the repository's own code that an exception went through."""
        path, line = "", 0
        trace = error.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if self._owned.file(file):
                path, line = self._owned.relative(file), trace.tb_lineno
            trace = trace.tb_next
        return path, line
