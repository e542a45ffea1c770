"""Pytest's plug-ins, rewritten once: else each session does it where no bytecode is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType
from typing import Any

_REWRITE = "_pytest.assertion.rewrite"


def rewritten_files() -> list[str]:
    """Return the files of the modules that pytest has rewritten while it imported them."""
    rewrite = sys.modules.get(_REWRITE)
    hook: Any = getattr(rewrite, "AssertionRewritingHook", ())
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    return [str(spec.origin) for spec in specs if spec and isinstance(spec.loader, hook)]


class Rewritten:
    """Code objects of rewritten files, for a pytest that has not started yet."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[tuple[int, int], CodeType]] = {}

    def compile(self, files: list[str]) -> None:
        """Rewrite files as pytest would; where this pytest has another way, none."""
        rewrite: Any = sys.modules.get(_REWRITE)
        if not hasattr(rewrite, "_rewrite_test") or not hasattr(rewrite, "_read_pyc"):
            return
        for file in files:
            state = _state(file)
            code = rewrite._rewrite_test(Path(file), None)[-1]  # noqa: SLF001 - no public way
            if state is not None and isinstance(code, CodeType):
                self._codes[file] = (state, code)

    def offer(self, rewrite: Any) -> None:
        """Have pytest find the code where it looks for its bytecode."""
        if not self._codes:
            return
        read = rewrite._read_pyc  # noqa: SLF001 - as above

        def read_known(source: Any, *arguments: Any, **keywords: Any) -> Any:
            state, code = self._codes.get(str(source), (None, None))
            if code is not None and state == _state(str(source)):
                return code
            return read(source, *arguments, **keywords)

        rewrite._read_pyc = read_known  # noqa: SLF001 - as above


def _state(file: str) -> tuple[int, int] | None:
    try:
        about = Path(file).stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size
