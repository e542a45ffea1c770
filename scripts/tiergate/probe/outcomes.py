"""Tells what came of each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .reports import explain

if TYPE_CHECKING:
    from .hooks import Look
    from .ownership import Ownership
    from .records import Channel
    from .witness import Witness


class Outcomes:
    """It counts nothing, it only tells, by a look at the hooks that pytest tells of tests with.

    It is no plugin: those of the repository can neither come before it nor take it out.

    Nearly all tests just pass: their three phases are told as one record, ``passed``. Where
    anything is out of the ordinary, each phase is told as a record of its own, in order.
    """

    def __init__(self, channel: Channel, owned: Ownership, witness: Witness) -> None:
        self._channel = channel
        self._owned = owned
        self._witness = witness
        self._passed: list[tuple[str, str]] = []
        """Of phases that passed and were not told yet: test, phase."""
        self._seconds: list[float] = []
        """How long each of them took."""

    def looks(self) -> dict[str, Look]:
        """Return what is to be called at the calls of which hooks."""
        return {
            "pytest_runtest_logstart": self._started,
            "pytest_runtest_logreport": self._reported,
            "pytest_runtest_logfinish": self._finished,
        }

    def _started(self, implementations: list[Any], values: dict[str, Any]) -> None:
        if self._passed:
            self.tell()
        # Written before the test runs, with all that waits: it may end the process.
        self._channel.send("start", id=values["nodeid"])

    def _reported(self, implementations: list[Any], values: dict[str, Any]) -> None:
        report = values["report"]
        test, when, outcome = report.nodeid, report.when, report.outcome
        xfail = hasattr(report, "wasxfail")
        subtest = type(report).__name__ == "SubtestReport"
        raised, unrun = "", False
        if outcome == "passed" and not subtest:
            witness = self._witness
            raised = witness.raised(test, when) if witness.failures else ""
            unrun = when == "call" and not witness.ran(test)
            if not (xfail or raised or unrun):
                self._passed.append((test, when))
                self._seconds.append(report.duration)
                return
        self.tell()
        told: dict[str, Any] = {"xfail": xfail, "subtest": subtest}
        if raised:
            told["raised"] = raised
        if unrun:
            told["unrun"] = True
        if outcome != "passed":
            told.update(explain(report, self._owned))
        tell = self._channel.defer if outcome == "passed" else self._channel.send
        tell("phase", id=test, when=when, outcome=outcome, seconds=report.duration, **told)

    def _finished(self, implementations: list[Any], values: dict[str, Any]) -> None:
        nodeid = values["nodeid"]
        if self._passed == [(nodeid, "setup"), (nodeid, "call"), (nodeid, "teardown")]:
            self._channel.defer("passed", id=nodeid, seconds=sum(self._seconds))
            self._passed.clear()
            self._seconds.clear()
        else:
            self.tell()
            self._channel.defer("finish", id=nodeid)

    def tell(self) -> None:
        """Tell the phases that passed one by one."""
        waiting = [(*phase, self._seconds[at]) for at, phase in enumerate(self._passed)]
        self._passed.clear()
        self._seconds.clear()
        for test, when, seconds in waiting:
            values = {"outcome": "passed", "seconds": seconds, "xfail": False, "subtest": False}
            self._channel.defer("phase", id=test, when=when, **values)
