"""Calls that must not keep training waiting."""

import queue
import threading
from collections.abc import Callable

# So many calls may wait; a backend that hangs must not take all memory.
MAX_WAITING = 10_000


class BackgroundCalls:
    """Runs calls one after another in a thread of its own.

    After the first one that fails, the others are dropped.

    Args:
        on_error: Called once, in that thread, with what failed first.
    """

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self._on_error = on_error
        self._waiting: queue.SimpleQueue[Callable[[], object] | threading.Event | None]
        self._waiting = queue.SimpleQueue()
        self._failed = False
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
        if self._waiting.qsize() >= MAX_WAITING:
            self._fail(RuntimeError(f"{MAX_WAITING} calls are waiting: is the network down?"))
        else:
            self._waiting.put(call)

    def flush(self) -> None:
        """Wait until all calls so far have been made, or dropped."""
        done = threading.Event()
        self._waiting.put(done)
        done.wait()

    def close(self, timeout: float) -> bool:
        """Take no more calls, and wait for those so far.

        Args:
            timeout: In seconds.

        Returns:
            Whether all of them have been made, or dropped, in that time.
        """
        self._waiting.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            if isinstance(call, threading.Event):
                call.set()
                continue
            if self._failed:
                continue
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever it is must not stop training
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._on_error(error)
