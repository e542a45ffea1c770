"""A pytest session that reports every item and every outcome through the probe's pipe."""

from __future__ import annotations

import ast
import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from types import CodeType
from typing import Any

from . import folders, reports, sources, standins, written
from .body import digest
from .compiled import Compiled
from .garbage import held_back
from .hooks import monitor
from .inner import Inner
from .outcomes import Outcomes
from .ownership import Ownership, code_of
from .records import Channel
from .text import clip
from .witness import Witness

_MOST_DOUBTS = 500

# Pytest's own warnings that something written as a test does not test.
_DOUBTFUL = frozenset(
    {
        "PytestCollectionWarning",
        "PytestReturnNotNoneWarning",
        "PytestUnhandledCoroutineWarning",
    }
)


def run(job: dict[str, Any], channel: Channel) -> int:
    """Run or collect ``job["paths"]`` and return pytest's exit status."""
    try:
        import pytest  # noqa: PLC0415 - reported, not raised, where the candidate has none
    except ImportError as error:
        channel.send("unusable", reason=f"pytest cannot be imported: {error}")
        return 1
    # On a timeout the judge ends the group with SIGTERM: show where the session was, on the
    # standard error of now, not on the file that pytest will capture it in.
    faulthandler.register(signal.SIGTERM, file=os.dup(2), all_threads=True, chain=True)
    os.chdir(job["repository"])
    owned = Ownership(job["repository"])
    sources.compile_own(owned)
    if not sources.rewrite_own(owned):
        # Slow, for installed packages as well, but right.
        sys.pycache_prefix = str(Path(owned.root, ".tiergate", "no-bytecode"))
    folders.collect_folders_once()
    doubts = Doubts(channel)
    witness = Witness(owned, doubts.tell, channel.flush)
    outcomes = Outcomes(channel, owned, witness)
    compiled = Compiled(owned, plain=job.get("plain", False))
    recorder = Recorder(
        channel, owned, doubts, witness, compiled, job["pythonpath"], job["arguments"]
    )
    plugins: list[Any] = [Monitor(witness, outcomes), recorder]
    if "share" in job:
        from .share import Share  # noqa: PLC0415 - it imports pytest

        plugins.append(Share(owned, **job["share"]))
    status = pytest.main(job["arguments"], plugins=plugins)
    outcomes.tell()
    if job["device"] == "cuda":
        channel.send("cuda", allocations=_cuda_allocations())
    return int(status)


def _cuda_allocations() -> int:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0))


class Doubts:
    """Tells of what casts doubt on the outcomes, each once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._told: set[tuple[str, str, str, int]] = set()

    def tell(self, outcome: str, test: str, message: str, path: str, line: int) -> None:
        """Tell of a doubt, unless the same was told before."""
        key = (outcome, message if outcome == "suspect" else "", path, line)
        if key in self._told or len(self._told) >= _MOST_DOUBTS:
            return
        self._told.add(key)
        message = clip(message, 1000)
        self._channel.send("doubt", outcome=outcome, id=test, message=message, path=path, line=line)


class Monitor:
    """A pytest plugin that has the calls of hooks looked at as soon as there are any."""

    def __init__(self, witness: Witness, outcomes: Outcomes) -> None:
        self._witness = witness
        self._outcomes = outcomes

    def pytest_addhooks(self, pluginmanager: Any) -> None:
        monitor(pluginmanager, {**self._witness.looks(pluginmanager), **self._outcomes.looks()})


class Recorder:
    """A pytest plugin that tells what is collected; it counts nothing."""

    def __init__(
        self,
        channel: Channel,
        owned: Ownership,
        doubts: Doubts,
        witness: Witness,
        compiled: Compiled,
        pythonpath: list[str],
        arguments: list[str],
    ) -> None:
        self._channel = channel
        self._owned = owned
        self._doubt = doubts.tell
        self._witness = witness
        self._search = pythonpath or [str(Path(owned.root, "src")), owned.root]
        self._chosen = {arg.split("::")[0] for arg in arguments if "::" in arg}
        self._compiled = compiled
        self._files: dict[str, written.Found] = {}
        self._names = written.Names((), ())
        self._functions: dict[str, list[tuple[str, tuple[str, ...], object]]] = {}
        """File → of each of its tests: id, names in it, function."""
        self._called: dict[tuple[str, tuple[str, ...], int], str] = {}
        """File, scope and function → the first name that it was collected by."""
        self._visited: set[str] = set()
        self._collecting: dict[str, float] = {}

    def pytest_sessionstart(self, session: Any) -> None:
        import pytest  # noqa: PLC0415 - it is there: this is its hook

        if not self._witness.watching:
            reason = "the calls of pytest's hooks cannot be seen"
            self._channel.send("unusable", reason=reason)
        config = session.config
        self._names = written.Names.of(
            config.getini("python_functions"), config.getini("python_classes")
        )
        self._channel.send(
            "session",
            pytest=pytest.__version__,
            inifile=str(config.inipath or ""),
            root=str(config.rootpath),
            file_patterns=config.getini("python_files"),
        )

    def pytest_itemcollected(self, item: Any) -> None:
        path = self._owned.relative(item.path)
        self._channel.defer("item", id=item.nodeid, path=path, body=digest(item))
        if hasattr(item, "function"):
            code = code_of(item.obj)
            self._witness.collected(item.nodeid, code)
            self._remember(path, item, code)

    def _remember(self, path: str, item: Any, code: CodeType | None) -> None:
        """Keep what a file's items show of the tests that are written in it."""
        names = tuple(item.nodeid.split("[", maxsplit=1)[0].split("::")[1:])
        self._file(path).names.add(names)
        self._functions.setdefault(path, []).append((item.nodeid, names, item.obj))
        first = self._called.setdefault((path, names[:-1], id(item.function)), names[-1])
        if first != names[-1]:
            message = f"{names[-1]} is {first} under another name: one test counts twice"
            self._doubt("suspect", item.nodeid, message, *self._owned.place(item.function))
        if code is not None and not self._compiled.is_foreign(code):
            self._file(self._owned.relative(code.co_filename)).lines.add(code.co_firstlineno)

    def _file(self, path: str) -> written.Found:
        found = self._files.get(path)
        if found is None:
            found = self._files[path] = written.Found()
        return found

    def pytest_deselected(self, items: Any) -> None:
        for item in items:
            self._channel.send("deselected", id=item.nodeid)

    def pytest_collection_finish(self, session: Any) -> None:
        self._channel.send("selected", ids=[item.nodeid for item in session.items])
        for path in self._visited:
            self._read(path)
        self._functions.clear()
        self._find_standins()

    def pytest_sessionfinish(self, session: Any) -> None:
        self._find_standins()

    def _read(self, path: str) -> None:
        """Compare what a test file says with what was collected of it."""
        try:
            source = Path(self._owned.root, path).read_bytes()
            with held_back():
                tree = ast.parse(source)
                self._find_decorated(path, written.lines(tree, self._names))
                doubts = written.doubts(source, tree, self._names, self._file(path))
        except (OSError, SyntaxError, ValueError):
            return  # then it did not collect either, which is reported
        if path in self._chosen:
            return  # of the tests that stand there, only some were asked for
        for doubt in doubts:
            name = f"{path}::{doubt.name}" if doubt.name else path
            self._doubt(doubt.outcome, name, doubt.message, path, doubt.line)

    def _find_decorated(self, path: str, lines: dict[tuple[str, ...], set[int]]) -> None:
        """Have those tests watched that are called through something else."""
        inners = {
            names: Inner(self._owned, path, names[-1], first) for names, first in lines.items()
        }
        for test, names, function in self._functions.get(path, ()):
            inner = inners.get(names)
            if inner is not None and not inner.stands_for(function):
                self._witness.decorated(test, inner)

    def _find_standins(self) -> None:
        exempt = {str(Path(self._owned.root, path).resolve()) for path in self._visited}
        for name, expected, actual in standins.standins(self._search, exempt):
            path = self._owned.relative(expected)
            instead = self._owned.relative(actual)
            self._doubt("suspect", name, f"{instead} stands in for {path} in sys.modules", path, 1)

    def pytest_collectstart(self, collector: Any) -> None:
        self._collecting[collector.nodeid] = time.perf_counter()

    def pytest_collectreport(self, report: Any) -> None:
        if report.nodeid.endswith(".py") and report.outcome == "passed":
            self._visited.add(report.nodeid)
        # Its children were collected meanwhile.
        now = time.perf_counter()
        seconds = now - self._collecting.pop(report.nodeid, now)
        said = {"details": reports.traceback(report)}
        if report.failed:
            said = reports.explain(report, self._owned)
        self._channel.send("collect-" + report.outcome, id=report.nodeid, seconds=seconds, **said)

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: Any
    ) -> None:
        category = warning_message.category.__name__
        message = clip(warning_message.message, 500)
        path, line = self._owned.relative(warning_message.filename), warning_message.lineno
        values = {"id": nodeid, "category": category, "message": message}
        self._channel.send("warning", path=path, line=line, **values)
        if category in _DOUBTFUL:
            self._doubt("suspect", nodeid or path, message, path, line)
