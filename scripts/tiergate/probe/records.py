"""The probe's own pipe to the judge: numbered JSON lines that carry the job's nonce."""

from __future__ import annotations

import json
import os
import threading
from collections import deque

_MOST_WAITING = 100
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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
        self._waiting: deque[bytes] = deque()
        # Threads and destructors report as well, these even while another record is written.
        self._lock = threading.RLock()
        self._writing = False

    def send(self, event: str, **values: object) -> None:
        """Write one record, and those before it that wait."""
        self.defer(event, **values)
        self.flush()

    def defer(self, event: str, **values: object) -> None:
        """Put one record behind the others, to be written with the next that is sent."""
        if os.getpid() != self._owner:
            return
        # A lone surrogate is no text: it becomes a question mark rather than an unreadable record.
        told = _encode({"nonce": self._nonce, "event": event, **values}).encode("utf-8", "replace")
        self._waiting.append(told[1:])
        if len(self._waiting) >= _MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._writing:
                return  # below, on this thread, which also writes what was added since
            self._writing = True
            try:
                while self._waiting:
                    self._write(self._numbered())
            finally:
                self._writing = False

    def _numbered(self) -> bytes:
        lines = []
        while self._waiting:
            lines.append(b'{"number":%d,%b\n' % (self._count, self._waiting.popleft()))
            self._count += 1
        return b"".join(lines)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self, status: int) -> None:
        """Write the closing record; a job without one counts as not evaluated."""
        self.send("closed", status=status)
