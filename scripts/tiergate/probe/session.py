"""A pytest session that reports every item and every outcome through the probe's pipe."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from . import sources, standins, written
from .body import digest
from .compiled import Compiled
from .ownership import Ownership, code_of
from .records import Channel
from .text import cause, clip
from .witness import Witness

_TRACEBACK = 6000
_SECTION = 1500
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
    recorder = Recorder(channel, owned, job["pythonpath"], job["arguments"])
    plugins: list[Any] = [recorder]
    if "share" in job:
        from .share import Share  # noqa: PLC0415 - it imports pytest

        plugins.append(Share(owned, **job["share"]))
    status = pytest.main(job["arguments"], plugins=plugins)
    if job["device"] == "cuda":
        channel.send("cuda", allocations=_cuda_allocations())
    return int(status)


def _cuda_allocations() -> int:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0))


class Recorder:
    """A pytest plugin; it counts nothing, it only tells."""

    def __init__(
        self, channel: Channel, owned: Ownership, pythonpath: list[str], arguments: list[str]
    ) -> None:
        self._channel = channel
        self._owned = owned
        self._witness = Witness(owned, self._doubt, channel.flush)
        self._search = pythonpath or [str(Path(owned.root, "src")), owned.root]
        self._chosen = {arg.split("::")[0] for arg in arguments if "::" in arg}
        self._compiled = Compiled()
        self._files: dict[str, written.Found] = {}
        self._names = written.Names((), ())
        self._visited: set[str] = set()
        self._collecting: dict[str, float] = {}
        self._doubts: set[tuple[str, str, str, int]] = set()

    def pytest_addhooks(self, pluginmanager: Any) -> None:
        self._witness.watch(pluginmanager)

    def pytest_sessionstart(self, session: Any) -> None:
        import pytest  # noqa: PLC0415 - it is there: this is its hook

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
        self._witness.collected(item)
        self._remember(path, item)

    def _remember(self, path: str, item: Any) -> None:
        """Keep what a file's items show of the tests that are written in it."""
        if not hasattr(item, "function"):
            return
        names = item.nodeid.split("[")[0].split("::")[1:]
        self._file(path).names.add(tuple(names))
        code = code_of(item.obj)
        if code is not None and not self._compiled.is_foreign(code):
            self._file(self._owned.relative(code.co_filename)).lines.add(code.co_firstlineno)

    def _file(self, path: str) -> written.Found:
        return self._files.setdefault(path, written.Found())

    def pytest_deselected(self, items: Any) -> None:
        for item in items:
            self._channel.send("deselected", id=item.nodeid)

    def pytest_collection_finish(self, session: Any) -> None:
        self._channel.send("selected", ids=[item.nodeid for item in session.items])
        for path in self._visited - self._chosen:
            self._read(path)
        self._find_standins()

    def pytest_sessionfinish(self, session: Any) -> None:
        self._find_standins()

    def _read(self, path: str) -> None:
        """Compare what a test file says with what was collected of it."""
        try:
            source = Path(self._owned.root, path).read_bytes()
            doubts = written.doubts(source, self._names, self._file(path))
        except (OSError, SyntaxError, ValueError):
            return  # then it did not collect either, which is reported
        for doubt in doubts:
            name = f"{path}::{doubt.name}" if doubt.name else path
            self._doubt(doubt.outcome, name, doubt.message, path, doubt.line)

    def _find_standins(self) -> None:
        exempt = {str(Path(self._owned.root, path).resolve()) for path in self._visited}
        for name, expected, actual in standins.standins(self._search, exempt):
            path = self._owned.relative(expected)
            instead = self._owned.relative(actual)
            self._doubt("suspect", name, f"{instead} stands in for {path} in sys.modules", path, 1)

    def _doubt(self, outcome: str, test: str, message: str, path: str, line: int) -> None:
        """Tell of something that casts doubt on the outcomes, once."""
        key = (outcome, message if outcome == "suspect" else "", path, line)
        if key in self._doubts or len(self._doubts) >= _MOST_DOUBTS:
            return
        self._doubts.add(key)
        message = clip(message, 1000)
        self._channel.send("doubt", outcome=outcome, id=test, message=message, path=path, line=line)

    def pytest_collectstart(self, collector: Any) -> None:
        self._collecting[collector.nodeid] = time.perf_counter()

    def pytest_collectreport(self, report: Any) -> None:
        if report.nodeid.endswith(".py") and report.outcome == "passed":
            self._visited.add(report.nodeid)
        # Its children were collected meanwhile.
        now = time.perf_counter()
        seconds = now - self._collecting.pop(report.nodeid, now)
        said = {"details": clip(report.longreprtext, _TRACEBACK)}
        if report.failed:
            said = self._explain(report)
        self._channel.send("collect-" + report.outcome, id=report.nodeid, seconds=seconds, **said)

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self._channel.send("start", id=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        values: dict[str, Any] = {
            "id": report.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "seconds": report.duration,
            "xfail": hasattr(report, "wasxfail"),
            "subtest": type(report).__name__ == "SubtestReport",
        }
        if report.outcome != "passed":
            values.update(self._explain(report))
        elif not values["subtest"]:
            values["raised"] = self._witness.raised(report.nodeid, report.when)
            if report.when == "call" and not self._witness.ran(report.nodeid):
                values["unrun"] = True
        # What passed waits for the next test's start, which is written before that test runs.
        tell = self._channel.defer if report.outcome == "passed" else self._channel.send
        tell("phase", **values)

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        self._channel.defer("finish", id=nodeid)

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

    def _is_own(self, path: str) -> bool:
        # A test may have left another working directory behind.
        return self._owned.file(str(Path(self._owned.root, path)))

    def _explain(self, report: Any) -> dict[str, Any]:
        crash = getattr(report.longrepr, "reprcrash", None)
        raised, places = cause(report.longreprtext)
        if crash is not None:
            raised = crash.message
            places.append((crash.path, crash.lineno))
        elif isinstance(report.longrepr, tuple):
            *place, raised = report.longrepr
            places.append(tuple(place))
        # What an installed module raised is mended where the repository calls it.
        own = [place for place in places if self._is_own(place[0])]
        path, line, _ = report.location
        if own:
            path, line = own[-1]
        elif line is not None:
            line += 1
        sections = [f"{title}\n{clip(text, _SECTION)}" for title, text in report.sections if text]
        return {
            "message": clip(raised, 1000),
            "details": clip("\n".join([report.longreprtext, *sections]), _TRACEBACK),
            "path": self._owned.relative(path),
            "line": line,
        }
