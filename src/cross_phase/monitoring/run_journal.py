"""A run's metrics in a local file, one JSON object a line."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunJournal:
    """Appends events to a JSON Lines file, each on disk as soon as it is written.

    Every line has ``event`` and ``time`` (seconds since the epoch). NaN and infinity, which
    JSON lacks, are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``; what
    JSON cannot say otherwise, as its ``repr``.

    Args:
        path: The file. It is made, with its folders, and appended to where it exists.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a killed run has lost no line, and a full disk leaves none pending.
        self._file = path.open("ab", buffering=0)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event.

        Raises:
            OSError: It cannot be written.
        """
        record = {"event": event, "time": time.time(), **fields}
        line = json.dumps(_plain(record), allow_nan=False, default=repr).encode("ascii") + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"{self.path} took only a part of a line: is the disk full?")

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        self._file.close()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
