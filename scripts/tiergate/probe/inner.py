"""Is the body under a test's decorators ever called? A decorator can leave it out."""

from __future__ import annotations

import resource
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from .ownership import Ownership


class Inner:
    """A function as it stands in a file, under whatever was put around it.

    Args:
        owned: knows how the repository names files.
        path: the file.
        name: the function's own name.
        lines: where it may begin, as its code gives it: it can be written several times.
    """

    def __init__(self, owned: Ownership, path: str, name: str, lines: Collection[int]) -> None:
        self._owned = owned
        self._path = path
        self._name = name
        self._lines = lines
        self.called = False
        """Whether it was called while it was last watched, or whether that cannot be told."""

    def stands_for(self, function: object) -> bool:
        """Tell whether a function is this one itself, with nothing around it."""
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        return code is not None and self._is(code)

    def _is(self, code: Any) -> bool:
        return (
            code.co_firstlineno in self._lines
            and code.co_name == self._name
            and self._owned.relative(code.co_filename) == self._path
        )

    @contextmanager
    def watch(self) -> Iterator[None]:
        """See whether it is called in this thread, or in one that is started meanwhile."""
        self.called = sys.getprofile() is not None
        if self.called:  # there is one such function at a time, and this is another's
            yield
            return

        def look(frame: Any, event: str, _: Any) -> None:
            if self.called or (event == "call" and self._is(frame.f_code)):
                self.called = True
                sys.setprofile(None)

        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        threading.setprofile(look)
        sys.setprofile(look)
        try:
            yield
        finally:
            displaced = sys.getprofile() is not look
            sys.setprofile(None)
            threading.setprofile(None)
            # A decorator may have a child process run the test, and wait for it.
            ran_elsewhere = children != resource.getrusage(resource.RUSAGE_CHILDREN)
            self.called = self.called or displaced or ran_elsewhere
