"""A pytest session that reports every item and every outcome through the probe's pipe."""

import faulthandler
import os
import signal
import sys

from .text import clip

_TRACEBACK = 6000
_SECTION = 1500


def run(job, channel):
    """Run or collect ``job["paths"]`` and return pytest's exit status."""
    try:
        import pytest  # noqa: PLC0415 - reported, not raised, where the candidate has none
    except ImportError as error:
        channel.send("unusable", reason="pytest cannot be imported: %s" % error)
        return 1
    # On a timeout the judge ends the group with SIGTERM: show where the session was.
    faulthandler.register(signal.SIGTERM, all_threads=True, chain=True)
    os.chdir(job["repository"])
    recorder = Recorder(channel, job["repository"])
    status = pytest.main(job["arguments"], plugins=[recorder])
    if job["device"] == "cuda":
        channel.send("cuda", allocations=_cuda_allocations())
    return int(status)


def _cuda_allocations():
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0))


class Recorder:
    """A pytest plugin; it counts nothing, it only tells."""

    def __init__(self, channel, root):
        self._channel = channel
        self._root = root

    def pytest_sessionstart(self, session):
        import pytest  # noqa: PLC0415 - it is there: this is its hook

        config = session.config
        self._channel.send(
            "session",
            pytest=pytest.__version__,
            inifile=str(config.inipath or ""),
            root=str(config.rootpath),
            file_patterns=config.getini("python_files"),
        )

    def pytest_itemcollected(self, item):
        self._channel.send("item", id=item.nodeid, path=self._relative(item.path))

    def pytest_deselected(self, items):
        for item in items:
            self._channel.send("deselected", id=item.nodeid)

    def pytest_collection_finish(self, session):
        self._channel.send("selected", ids=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report):
        if report.outcome == "passed":
            path = getattr(report, "fspath", "") or report.nodeid
            self._channel.send("collected-node", id=report.nodeid, path=str(path))
            return
        self._channel.send(
            "collect-" + report.outcome,
            id=report.nodeid,
            details=clip(report.longreprtext, _TRACEBACK),
        )

    def pytest_runtest_logstart(self, nodeid, location):
        self._channel.send("start", id=nodeid)

    def pytest_runtest_logreport(self, report):
        values = {
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

    def pytest_runtest_logfinish(self, nodeid, location):
        self._channel.send("finish", id=nodeid)

    def pytest_warning_recorded(self, warning_message, when, nodeid, location):
        self._channel.send(
            "warning",
            id=nodeid,
            category=warning_message.category.__name__,
            message=clip(warning_message.message, 500),
        )

    def _explain(self, report):
        crash = getattr(report.longrepr, "reprcrash", None)
        path, line, _ = report.location
        message = ""
        if crash is not None:
            path, line, message = crash.path, crash.lineno, crash.message
        elif isinstance(report.longrepr, tuple):
            path, line, message = report.longrepr
        elif line is not None:
            line += 1
        sections = [
            "%s\n%s" % (title, clip(text, _SECTION)) for title, text in report.sections if text
        ]
        return {
            "message": clip(message, 1000),
            "details": clip("\n".join([report.longreprtext, *sections]), _TRACEBACK),
            "path": self._relative(path),
            "line": line,
        }

    def _relative(self, path):
        path = str(path)
        if not os.path.isabs(path):
            return path
        relative = os.path.relpath(path, self._root)
        return path if relative.startswith("..") else relative
