"""Imports modules ahead of time and hides them: nobody sees one before it is imported.

To the code that runs afterwards, ``sys.modules`` looks as it would in a fresh process: an import
of a hidden module brings back the very module, with those that its own import had brought in.
"""

from __future__ import annotations

import builtins
import importlib
import os
import site
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_IMPORTING = "_find_and_load_unlocked"


class Ahead:
    """Modules of the environment, and which of them each one imports.

    What is imported when it is made stays visible: the probe needs it in a fresh process, too.
    """

    def __init__(self) -> None:
        self._known = frozenset(sys.modules)
        self._needs: dict[str, set[str]] = defaultdict(set)
        self._modules: dict[str, ModuleType] = {}

    def load(self, names: Iterable[str]) -> None:
        """Import the installed ones of ``names``; what their import raises is raised."""
        with self.recording():
            for name in names:
                if name not in sys.modules and _is_installed(name.split(".")[0]):
                    before = set(sys.modules)
                    importlib.import_module(name)
                    self._adopt(name, set(sys.modules) - before)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write down which module imports which."""
        recorder = _Recorder(self._needs)
        original = builtins.__import__
        builtins.__import__ = recorder.importing(original)
        sys.meta_path.insert(0, recorder)
        try:
            yield
        finally:
            sys.meta_path.remove(recorder)
            builtins.__import__ = original

    def _adopt(self, root: str, found: set[str]) -> None:
        """Give each module that no import brought in to the one that was complete next.

        ``sys.modules`` is in the order in which modules were complete: that one put it there, or
        was loaded by the one that did.
        """
        imported = {root}.union(*self._needs.values())
        owner = root
        for name in reversed(list(sys.modules)):
            if name in imported:
                owner = name
            elif name in found:
                self._needs[owner].add(name)

    def top_level(self) -> list[str]:
        """Return the top-level names of what was loaded."""
        return sorted({name.split(".")[0] for name in sys.modules if name not in self._known})

    def get(self, name: str) -> ModuleType | None:
        """Return a hidden module."""
        return self._modules.get(name)

    def hide(self) -> None:
        """Take what was loaded out of sight, until it is imported."""
        for name, module in list(sys.modules.items()):
            if name not in self._known:
                self._modules[name] = module
                del sys.modules[name]
        for name, module in self._modules.items():
            package, _, leaf = name.rpartition(".")
            if package in sys.modules and vars(sys.modules[package]).get(leaf) is module:
                delattr(sys.modules[package], leaf)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find a hidden module for an import; other questions are answered as ever."""
        if name not in self._modules:
            return None
        # _find_spec, and what asked it: an import, or importlib.util.find_spec.
        if sys._getframe(2).f_code.co_name != _IMPORTING:  # noqa: SLF001 - there is no other way
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the hidden module; the import system now overwrites its ``__spec__``."""
        module = self._modules[spec.name]
        spec.loader_state = getattr(module, "__spec__", None)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Make it visible, with everything that its own import had brought in."""
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state
        wanted = self._closure(spec.name)
        for name in [name for name in self._modules if name in wanted]:
            restored = self._modules.pop(name)
            if name not in sys.modules:
                sys.modules[name] = restored
                package, _, leaf = name.rpartition(".")
                if package in self._known and package in sys.modules:
                    setattr(sys.modules[package], leaf, restored)

    def _closure(self, name: str) -> set[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name in self._modules and name not in found:
                found.add(name)
                waiting.extend(self._needs.get(name, ()))
                waiting.append(name.rpartition(".")[0])
        return found


class _Recorder:
    """Writes down which module imports which."""

    def __init__(self, needs: dict[str, set[str]]) -> None:
        self._needs = needs

    def importing(self, original: Any) -> Any:
        """Return an ``__import__`` that records what a statement names."""

        def recorded(
            name: str,
            globals: Any = None,  # noqa: A002 - as the built-in function names it
            locals: Any = None,  # noqa: A002
            fromlist: Any = (),
            level: int = 0,
        ) -> Any:
            result = original(name, globals, locals, fromlist, level)
            importer = (globals or {}).get("__name__")
            if importer:
                self._needs[importer].update(_named(name, globals, fromlist, level))
            return result

        return recorded

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Record a module that is loaded now, by whatever kind of import; find nothing."""
        frame = sys._getframe(1)  # noqa: SLF001 - there is no other way
        while frame is not None:
            importer = frame.f_globals.get("__name__", "")
            if importer != __name__ and not importer.startswith("importlib"):
                self._needs[importer].add(name)
                return
            frame = frame.f_back  # type: ignore[assignment]


def installed_modules() -> list[str]:
    """Return the modules that are imported now and that can be imported ahead of time.

    All of the environment's own folders, but for pytest's plug-ins: pytest rewrites their
    assertions when it imports them itself.
    """
    from importlib import metadata  # noqa: PLC0415 - it brings in a lot, and few jobs ask

    plugins = {
        Path(file.parts[0]).stem
        for distribution in metadata.distributions()
        if any(point.group == "pytest11" for point in distribution.entry_points)
        for file in distribution.files or ()
    }
    return [
        name
        for name, module in list(sys.modules.items())
        if _lies_in_environment(getattr(module, "__spec__", None))
        and name.split(".")[0] not in plugins
    ]


def _named(name: str, globals_: Any, fromlist: Any, level: int) -> Iterator[str]:
    """Yield the modules that an import statement names."""
    if level:
        package = globals_.get("__package__") or globals_.get("__name__", "").rpartition(".")[0]
        parts = package.split(".")
        name = ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])
    for item in fromlist or ():
        if f"{name}.{item}" in sys.modules:
            yield f"{name}.{item}"


def _is_installed(name: str) -> bool:
    """Tell whether a top-level module comes from the environment's own folders."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    return _lies_in_environment(spec)


def _lies_in_environment(spec: ModuleSpec | None) -> bool:
    folders = tuple(folder + os.sep for folder in site.getsitepackages())
    return str(getattr(spec, "origin", None)).startswith(folders)
