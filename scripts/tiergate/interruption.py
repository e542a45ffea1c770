"""Signals that end what runs, and leave time to write the report."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tiergate.processes import Cancellation


@contextmanager
def cancelled_by_signals() -> Iterator[Cancellation]:
    """Turn Ctrl-C, SIGTERM or a closed terminal into an end that still writes the report."""
    cancellation = Cancellation()

    def cancel(number: int, _: object) -> None:
        name = signal.Signals(number).name
        cancellation.cancel(f"interrupted by {name}")
        # Not by a stream, which the signal may have found in the middle of writing.
        message = f"\ntiergate: {name}: ending what runs, then writing the report\n"
        with suppress(OSError):
            os.write(2, message.encode())

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, cancel) for number in numbers}
    try:
        yield cancellation
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
