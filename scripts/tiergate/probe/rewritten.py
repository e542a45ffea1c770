"""Tests and plug-ins with their assertions rewritten: done once, by content, for many sessions."""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path
from types import CodeType
from typing import Any

from .garbage import held_back

_REWRITE = "_pytest.assertion.rewrite"


def rewritten_files() -> list[str]:
    """Return the files of the modules that pytest rewrote when it imported them."""
    hook: Any = getattr(sys.modules.get(_REWRITE), "AssertionRewritingHook", ())
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    return [str(spec.origin) for spec in specs if spec and isinstance(spec.loader, hook)]


class Rewritten:
    """The code of files, as pytest's own function for it returns it."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Any, CodeType]] = {}

    def compile(self, files: list[str]) -> None:
        """Rewrite files as pytest would; nothing is executed.

        What makes pytest or Python warn is left to the session, which has to hear of it.
        """
        rewrite: Any = sys.modules.get(_REWRITE)
        if not hasattr(rewrite, "_rewrite_test"):
            return  # a pytest that has another way: it does all itself
        for file in files:
            with held_back(), warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                about, code = rewrite._rewrite_test(Path(file), None)  # noqa: SLF001 - as said
            if not warned:
                self._known[_digest(Path(file))] = about, code

    def offer(self, rewrite: Any) -> None:
        """Have pytest take the code of a file with the same content."""
        if not self._known:
            return
        original = rewrite._rewrite_test  # noqa: SLF001 - as above

        def rewrite_test(path: Path, config: Any) -> tuple[Any, CodeType]:
            __tracebackhide__ = True
            about, code = self._known.get(_digest(path), (None, None))
            if code is None or config.getini("enable_assertion_pass_hook"):
                result: tuple[Any, CodeType] = original(path, config)
                return result
            return about, _placed(code, str(path))

        rewrite._rewrite_test = rewrite_test  # noqa: SLF001 - as above


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _placed(code: CodeType, file: str) -> CodeType:
    """Return the code as compiled from ``file``, with all the code in it."""
    constants = tuple(_placed(c, file) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=file, co_consts=constants)
