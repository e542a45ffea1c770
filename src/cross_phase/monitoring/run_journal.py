"""A run's metrics in a local file, one JSON object a line."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# For what JSON can say, which is nearly always: several times faster than looking first.
ENCODER = json.JSONEncoder(allow_nan=False)

# Metrics are written on training's own time, mostly under the same names: those are encoded once.
MAX_TEMPLATES = 256


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
        torn = _ends_within_a_line(path)
        # Unbuffered: a killed run has lost no line, and a full disk leaves none pending.
        self._file = path.open("ab", buffering=0)
        self._templates: dict[tuple[str, ...], str] = {}
        if torn:
            self._file.write(b"\n")

    def write(self, event: str, **fields: Any) -> None:
        """Append one event.

        Raises:
            OSError: It cannot be written.
        """
        record = {"event": event, "time": time.time(), **fields}
        try:
            text = ENCODER.encode(record)
        except (TypeError, ValueError):
            text = json.dumps(_plain(record), allow_nan=False, default=repr)
        self._append(text)

    def write_metrics(self, step: int | None, metrics: Mapping[str, float]) -> None:
        """Append an event ``metrics``, as :meth:`write` does, but faster.

        Raises:
            OSError: It cannot be written.
        """
        names, values = tuple(metrics), tuple(metrics.values())
        if not (_are_plain(names, values) and (step is None or type(step) is int)):
            self.write("metrics", step=step, metrics=metrics)
            return
        template = self._templates.get(names) or self._new_template(names)
        self._append(template % (time.time(), "null" if step is None else step, *values))

    def _new_template(self, names: tuple[str, ...]) -> str:
        """Make the line of these metrics, with a place for each number."""
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        fields = ", ".join(f"{json.dumps(name)}: ".replace("%", "%%") + "%r" for name in names)
        template = f'{{"event": "metrics", "time": %r, "step": %s, "metrics": {{{fields}}}}}'
        self._templates[names] = template
        return template

    def _append(self, text: str) -> None:
        line = text.encode("ascii") + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"{self.path} took only a part of a line: is the disk full?")

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Read a run's events.

    Args:
        path: The journal; it may still be written to.

    Returns:
        The events in order. A line that a full disk or a crash cut off is left out.

    Raises:
        OSError: The file cannot be read.
    """
    events: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "event" in record:
            events.append(record)
    return events


def _are_plain(names: tuple[object, ...], values: tuple[float, ...]) -> bool:
    """Tell whether these are strings and finite numbers, which Python shows as JSON does."""
    if not ({str}.issuperset(map(type, names)) and {float, int}.issuperset(map(type, values))):
        return False
    try:
        return math.isfinite(sum(values))
    except OverflowError:  # an integer beyond all floats
        return False


def _ends_within_a_line(path: Path) -> bool:
    """Tell whether a crash cut off the last line."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
