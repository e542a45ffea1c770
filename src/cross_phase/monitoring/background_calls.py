"""Calls that must not keep training waiting."""

import queue
import threading
import time
from collections.abc import Callable

# So many calls may wait; a backend that hangs must not take all memory.
MAX_WAITING = 10_000

# Calls are gathered for so long, in seconds: to wake a thread costs the one that does it, too.
GATHERED = 0.2

# Between calls, in seconds: who waits for Python's lock gets it.
PAUSE = 0.0002

# From so many on, there is no time for either.
MANY_WAITING = 1_000


class BackgroundCalls:
    """Runs calls one after another in a thread of its own, some time later.

    After the first one that fails, the others are dropped.

    Args:
        on_error: Called once, in that thread, with what failed first.
    """

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self._on_error = on_error
        self._waiting: queue.SimpleQueue[Callable[[], object] | threading.Event | None]
        self._waiting = queue.SimpleQueue()
        self._failed = False
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._work, name="run-tracking", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether a call has failed."""
        return self._failed

    def submit(self, call: Callable[[], object]) -> None:
        """Have a call made soon; where too many are waiting, that is the failure."""
        if self._failed:
            return
        waiting = self._waiting.qsize()
        if waiting >= MAX_WAITING:
            self._fail(RuntimeError(f"{MAX_WAITING} calls are waiting: is the network down?"))
            return
        self._waiting.put(call)
        if waiting == MANY_WAITING:
            self._urgent.set()

    def flush(self) -> None:
        """Wait until all calls so far have been made, or dropped."""
        done = threading.Event()
        self._waiting.put(done)
        self._urgent.set()
        done.wait()

    def close(self, timeout: float) -> bool:
        """Take no more calls, and wait for those so far.

        Args:
            timeout: In seconds.

        Returns:
            Whether all of them have been made, or dropped, in that time.
        """
        self._waiting.put(None)
        self._urgent.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            call = self._waiting.get()
            if call is None:
                return
            if isinstance(call, threading.Event):
                call.set()
                continue
            if self._failed:
                continue
            if self._waiting.empty():
                self._urgent.wait(GATHERED)
                self._urgent.clear()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever it is must not stop training
                self._fail(error)
            if self._waiting.qsize() < MANY_WAITING:
                time.sleep(PAUSE)

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._on_error(error)
