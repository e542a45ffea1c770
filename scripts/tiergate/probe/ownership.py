"""Which code is the repository's own, and which belongs to the interpreter's environment?"""

from __future__ import annotations

import os
import sysconfig
from functools import partial, partialmethod
from pathlib import Path
from types import CodeType, FunctionType


class Ownership:
    """Tells files and functions of the repository from installed ones.

    An environment may lie below the repository: what is installed there is not the repository's.

    Args:
        root: the repository's top folder.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        installed = {
            os.path.realpath(path)
            for name, path in sysconfig.get_paths().items()
            if name in ("stdlib", "platstdlib", "purelib", "platlib")
        }
        installed.add(str(Path(__file__).resolve().parent))
        self._known: dict[str, bool] = {}
        self._relative: dict[str, str] = {}
        self._installed = tuple(path + os.sep for path in installed if path != self.root)

    def file(self, path: str) -> bool:
        """Tell whether a file or folder is the repository's own."""
        if path not in self._known:
            real = os.path.realpath(path)
            inside = real == self.root or real.startswith(self.root + os.sep)
            self._known[path] = inside and not (real + os.sep).startswith(self._installed)
        return self._known[path]

    def function(self, function: object) -> bool:
        """Tell whether a function was written in the repository, or made from text at run time."""
        code = code_of(function)
        if code is None:
            return False
        return self.file(code.co_filename) or not Path(code.co_filename).is_absolute()

    def relative(self, where: object) -> str:
        """Return a path as the repository names it; one outside as it is."""
        path = str(where)
        known = self._relative.get(path)
        if known is None:
            relative = os.path.relpath(path, self.root) if Path(path).is_absolute() else path
            known = self._relative[path] = path if relative.startswith("..") else relative
        return known

    def place(self, function: object) -> tuple[str, int]:
        """Return the file and line of a function; the file is empty where it has no code."""
        code = code_of(function)
        return (self.relative(code.co_filename), code.co_firstlineno) if code else ("", 0)


def code_of(function: object) -> CodeType | None:
    """Return the code under decorators, methods and partials, or None where there is none."""
    for _ in range(20):
        under = getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)
        if under is None:
            if type(function) is FunctionType:
                return function.__code__
            if not isinstance(function, (partial, partialmethod)):
                break
            under = function.func
        function = under
    return function.__code__ if isinstance(function, FunctionType) else None
