"""The probe's own pipe to the judge: numbered JSON lines that carry the job's nonce."""

from __future__ import annotations

import json
import os
import threading
from collections import deque

_MOST_WAITING = 100
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_text = json.encoder.encode_basestring


def _value(value: object) -> str:
    """Return the JSON form of a value; the usual ones without the set-up of an encoder."""
    kind = type(value)
    if kind is str:
        return _text(value)  # type: ignore[arg-type]
    return repr(value) if kind is float else _encode(value)


class Channel:
    """Writes records; only the process that made it can.

    A child that candidate code forks inherits the object but not the right to speak: what it
    would write is dropped, and the descriptor is not passed on to programs that it starts.
    """

    def __init__(self, descriptor: int, nonce: str) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._start = f'"nonce":"{nonce}","event":"'
        self._owner = os.getpid()
        self._count = 0
        self._waiting: deque[str] = deque()
        # Threads and destructors report as well, these even while another record is written.
        self._lock = threading.RLock()
        self._writing = False

    def send(self, event: str, **values: object) -> None:
        """Write one record, and those before it that wait."""
        self.defer(event, **values)
        self.flush()

    def defer(self, event: str, **values: object) -> None:
        """Put one record behind the others, to be written with the next that is sent."""
        record = f'{self._start}{event}"'
        for name, value in values.items():
            record += f',"{name}":{_value(value)}'
        self._waiting.append(record)
        if len(self._waiting) >= _MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if os.getpid() != self._owner:
            self._waiting.clear()
            return
        with self._lock:
            if self._writing:
                return  # below, on this thread, which also writes what was added since
            self._writing = True
            try:
                while self._waiting:
                    self._write_waiting()
            finally:
                self._writing = False

    def _write_waiting(self) -> None:
        waiting, lines = self._waiting, ""
        while waiting:
            number = self._count
            self._count = number + 1  # first: a record that is lost on the way leaves a gap
            lines += f'{{"number":{number},{waiting.popleft()}}}\n'
        # A lone surrogate is no text: it becomes a question mark rather than an unreadable record.
        data = lines.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self, status: int) -> None:
        """Write the closing record; a job without one counts as not evaluated."""
        self.send("closed", status=status)
