"""The probe's own pipe to the judge: numbered JSON lines that carry the job's nonce."""

from __future__ import annotations

import json
import os


class Channel:
    """Writes records; only the process that made it can.

    A child that candidate code forks inherits the object but not the right to speak: what it
    would write is dropped, and the descriptor is not passed on to programs that it starts.
    """

    def __init__(self, descriptor: int, nonce: str) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._nonce = nonce
        self._owner = os.getpid()
        self._count = 0

    def send(self, event: str, **values: object) -> None:
        """Write one record."""
        if os.getpid() != self._owner:
            return
        record = {"nonce": self._nonce, "number": self._count, "event": event, **values}
        # A lone surrogate is no text: it becomes a question mark rather than an unreadable record.
        data = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._count += 1
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self, status: int) -> None:
        """Write the closing record; a job without one counts as not evaluated."""
        self.send("closed", status=status)
