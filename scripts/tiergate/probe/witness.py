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
from operator import is_
from typing import TYPE_CHECKING, Any

from .ownership import code_of
from .text import clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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
_LATE = (
    "unittest.case:TestCase",
    "unittest.mock:NonCallableMock",
    "math",
    "numpy.testing",
    "torch.testing",
)
"""Where tests have their assertions from, and what is not loaded yet when a session starts."""


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
        self._watched: set[int] = set()
        self._kept: list[Any] = []
        self._codes: dict[str, Any] = {}
        self._ran: set[str] = set()
        self._raised: dict[tuple[str, str], str] = {}
        self._running = ""
        self._helpers = {label: dict(vars(holder)) for label, holder in _holders()}
        self._next_thread_hook: Any = None
        self._next_unraisable_hook: Any = None
        self._log_filter = self._logged
        self._thread_hook = self._thread_failed
        self._unraisable_hook = self._unraisable

    def watch(self, manager: Any) -> None:
        """See every hook call of a plugin manager."""
        manager.add_hookcall_monitoring(self._before, lambda *_: None)

    def collected(self, item: Any) -> None:
        """Remember the body that a test was collected with."""
        if hasattr(item, "function"):
            self._codes[item.nodeid] = code_of(item.obj)

    def raised(self, test: str, when: str) -> str:
        """Return what a phase of a test raised, in words; empty where it ended by itself."""
        return self._raised.get((test, when), "")

    def ran(self, test: str) -> bool:
        """Tell whether a test's body was called; always true for what is no Python function."""
        return test not in self._codes or test in self._ran

    def _before(self, name: str, implementations: list[Any], values: dict[str, Any]) -> None:
        if name in _DECIDING:
            for implementation in implementations:
                if id(implementation) not in self._watched:
                    self._watch_implementation(name, implementation)
        if name == "pytest_runtest_makereport":
            call = values["call"]
            test = values["item"].nodeid
            error = call.excinfo.value if call.excinfo is not None else None
            if error is not None:
                self._raised.setdefault((test, call.when), self._words(error))
        elif name == "pytest_runtest_setup":
            self._forget(values["item"].nodeid)
        elif name == "pytest_runtest_call":
            self._watch_method(values["item"])
        elif name == "pytest_sessionfinish":
            self._ended()

    def _forget(self, test: str) -> None:
        """Start afresh: a plugin may run a test again."""
        self._ran.discard(test)
        for when in ("setup", "call", "teardown"):
            self._raised.pop((test, when), None)
        self._running = test
        self._hold_hooks()

    def _watch_implementation(self, name: str, implementation: Any) -> None:
        """Put a watch around a hook's implementation."""
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
            if result is not None:
                path, line = self._owned.place(function)
                message = f"{name} is decided by the repository's own hook, in place of pytest's"
                self._doubt("overrides", f"{path}:{line}", message, path, line)
            return result

        return watched

    def _calling(self, implementation: Any, function: Any) -> Any:
        """Watch an implementation that calls test bodies: pytest's own, or a plugin's."""
        index = list(implementation.argnames).index("pyfuncitem")

        def watched(*arguments: Any) -> Any:
            item = arguments[index]
            self._check_body(item)
            try:
                result = function(*arguments)
            except BaseException as error:
                self._ran.add(item.nodeid)
                self._raised[item.nodeid, "call"] = self._words(error)
                raise
            if result is not None:
                self._ran.add(item.nodeid)
            return result

        return watched

    def _watch_method(self, item: Any) -> None:
        """Watch the body of a unittest test case, which pytest does not call itself."""
        if not hasattr(item, "_testcase") or item.nodeid not in self._codes:
            return
        self._check_body(item)
        method = item.obj
        if inspect.iscoroutinefunction(method):
            self._ran.add(item.nodeid)  # unittest looks the method up by itself
            return

        @functools.wraps(method)
        def watched(*arguments: Any, **keywords: Any) -> Any:
            self._ran.add(item.nodeid)
            try:
                return method(*arguments, **keywords)
            except BaseException as error:
                self._raised[item.nodeid, "call"] = self._words(error)
                raise

        item.obj = watched

    def _check_body(self, item: Any) -> None:
        """Doubt a test whose body is not the collected one, or that asserts with something else."""
        code = code_of(item.obj)
        if code is not self._codes.get(item.nodeid) and self._owned.function(item.obj):
            path, line = self._owned.place(item.obj)
            self._doubt("suspect", item.nodeid, "another function was put in its place", path, line)
        self._check_helpers()
        self._check_tracing()

    def _check_tracing(self) -> None:
        """Doubt a function of the repository that is called within tests, and can steer them."""
        for name, function in (("trace", sys.gettrace()), ("profile", sys.getprofile())):
            if function is not None and self._owned.function(function):
                path, line = self._owned.place(function)
                message = f"a {name} function of the repository steps through the tests"
                self._doubt("suspect", self._running, message, path, line)

    def _check_helpers(self) -> None:
        """Doubt what tests assert with where it is not what it was; look at the rest only once."""
        for label, holder in _holders():
            late = label not in self._helpers
            seen = self._helpers.setdefault(label, {})
            if _is_same(vars(holder), seen):
                continue
            for name, value in list(vars(holder).items()):
                if seen.get(name, seen) is not value:
                    known = name in seen
                    seen[name] = value
                    if (known or late) and callable(value) and not name.startswith("_"):
                        self._check_helper(f"{label}.{name}", value, replaced=known)

    def _check_helper(self, name: str, value: Any, *, replaced: bool) -> None:
        # What is loaded late may have been replaced before: it is known by where it was written.
        if self._owned.function(value) or (replaced and code_of(value) is None):
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
        logger = logging.getLogger("asyncio")
        if self._log_filter not in logger.filters:
            logger.addFilter(self._log_filter)

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


def _is_same(values: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Tell whether the same names, in the same order, are bound to the very same objects."""
    return list(values) == list(seen) and all(map(is_, values.values(), seen.values()))


def _holders() -> Iterator[tuple[str, Any]]:
    """What holds the functions that tests assert with, as far as it is loaded."""
    for name in ("builtins", "pytest", *_LATE):
        module, _, attribute = name.partition(":")
        holder = sys.modules.get(module)
        if holder is not None and attribute:
            holder = getattr(holder, attribute)
        if holder is not None:
            yield attribute or module, holder
