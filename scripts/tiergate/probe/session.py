"""A pytest session that reports every item and every outcome through the probe's pipe."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import Any

from .records import Channel
from .text import clip

_TRACEBACK = 6000
_SECTION = 1500


def run(job: dict[str, Any], channel: Channel) -> int:
    """Run or collect ``job["paths"]`` and return pytest's exit status."""
    try:
        import pytest  # noqa: PLC0415 - reported, not raised, where the candidate has none
    except ImportError as error:
        channel.send("unusable", reason=f"pytest cannot be imported: {error}")
        return 1
    # On a timeout the judge ends the group with SIGTERM: show where the session was.
    faulthandler.register(signal.SIGTERM, all_threads=True, chain=True)
    os.chdir(job["repository"])
    recorder = Recorder(channel, job["repository"])
    status = pytest.main(job["arguments"], plugins=[recorder])
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

    def __init__(self, channel: Channel, root: str) -> None:
        self._channel = channel
        self._root = root

    def pytest_sessionstart(self, session: Any) -> None:
        import pytest  # noqa: PLC0415 - it is there: this is its hook

        config = session.config
        self._channel.send(
            "session",
            pytest=pytest.__version__,
            inifile=str(config.inipath or ""),
            root=str(config.rootpath),
            file_patterns=config.getini("python_files"),
        )

    def pytest_itemcollected(self, item: Any) -> None:
        self._channel.send("item", id=item.nodeid, path=self._relative(item.path))

    def pytest_deselected(self, items: Any) -> None:
        for item in items:
            self._channel.send("deselected", id=item.nodeid)

    def pytest_collection_finish(self, session: Any) -> None:
        self._channel.send("selected", ids=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report: Any) -> None:
        details = clip(report.longreprtext, _TRACEBACK)
        self._channel.send("collect-" + report.outcome, id=report.nodeid, details=details)

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
        self._channel.send("phase", **values)

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        self._channel.send("finish", id=nodeid)

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: Any
    ) -> None:
        self._channel.send(
            "warning",
            id=nodeid,
            category=warning_message.category.__name__,
            message=clip(warning_message.message, 500),
        )

    def _explain(self, report: Any) -> dict[str, Any]:
        crash = getattr(report.longrepr, "reprcrash", None)
        path, line, _ = report.location
        message = ""
        if crash is not None:
            path, line, message = crash.path, crash.lineno, crash.message
        elif isinstance(report.longrepr, tuple):
            path, line, message = report.longrepr
        elif line is not None:
            line += 1
        sections = [f"{title}\n{clip(text, _SECTION)}" for title, text in report.sections if text]
        return {
            "message": clip(message, 1000),
            "details": clip("\n".join([report.longreprtext, *sections]), _TRACEBACK),
            "path": self._relative(path),
            "line": line,
        }

    def _relative(self, where: object) -> str:
        path = str(where)
        if not Path(path).is_absolute():
            return path
        relative = os.path.relpath(path, self._root)
        return path if relative.startswith("..") else relative
