"""The code that pytest compiled from the repository's test files, known by identity."""

from __future__ import annotations

import importlib
from types import CodeType
from typing import TYPE_CHECKING, Any

from .garbage import held_back

if TYPE_CHECKING:
    from pathlib import Path


class Compiled:
    """Remembers all code of the files that are rewritten from now on."""

    def __init__(self) -> None:
        self._codes: dict[str, dict[int, CodeType]] = {}
        rewrite: Any = importlib.import_module("_pytest.assertion.rewrite")
        original = getattr(rewrite, "_rewrite_test", None)
        if original is None:
            return  # a pytest that has another way: then nothing is known

        def rewrite_test(path: Path, config: Any) -> tuple[Any, CodeType]:
            __tracebackhide__ = True
            with held_back():
                about, code = original(path, config)
            self._keep(code)
            return about, code

        rewrite._rewrite_test = rewrite_test  # noqa: SLF001 - pytest has no public way

    def is_foreign(self, code: CodeType) -> bool:
        """Tell whether code says that it is of a file, but was not compiled from it."""
        known = self._codes.get(code.co_filename)
        return known is not None and id(code) not in known

    def _keep(self, code: CodeType) -> None:
        self._codes.setdefault(code.co_filename, {})[id(code)] = code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._keep(constant)
