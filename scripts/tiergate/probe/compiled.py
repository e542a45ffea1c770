"""The code that pytest compiled from the repository's test files, known by identity."""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from types import CodeType
from typing import TYPE_CHECKING, Any

from .garbage import held_back

if TYPE_CHECKING:
    from pathlib import Path

    from .ownership import Ownership

_ASSERTS_AT_IMPORT = re.compile(rb"^assert\b", re.MULTILINE)


class Compiled:
    """Remembers all code of the files that are rewritten from now on.

    Args:
        owned: tells the repository's own files.
        plain: whether these are compiled as they stand: no assertion in them is explained.
    """

    def __init__(self, owned: Ownership, *, plain: bool = False) -> None:
        self._codes: dict[str, dict[int, CodeType]] = {}
        rewrite: Any = importlib.import_module("_pytest.assertion.rewrite")
        original = getattr(rewrite, "_rewrite_test", None)
        if original is None:
            return  # a pytest that has another way: then nothing is known

        def rewrite_test(path: Path, config: Any) -> tuple[Any, CodeType]:
            __tracebackhide__ = True
            with held_back():
                done = _as_it_stands(path) if plain and owned.file(str(path)) else None
                about, code = done or original(path, config)
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


def _as_it_stands(path: Path) -> tuple[bytes, CodeType] | None:
    """Compile a file; None where pytest has more to say of it.

    That is so of an assertion that fails when the file is imported, of what makes Python or pytest
    warn, and of what does not compile.
    """
    try:
        source = path.read_bytes()
        if _ASSERTS_AT_IMPORT.search(source):
            return None
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            code = compile(source, str(path), "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return None
    return None if warned else (importlib.util.source_hash(source), code)
