"""Which files does this interpreter itself not compile?  Nothing is executed."""

from __future__ import annotations

import tokenize
import warnings
from pathlib import Path
from typing import Any

from .records import Channel
from .text import clip


def run(job: dict[str, Any], channel: Channel) -> int:
    """Compile each of ``job["files"]`` and report the ones that fail."""
    warnings.simplefilter("ignore")
    for name in job["files"]:
        problem = _problem(Path(job["repository"], name))
        if problem is not None:
            channel.send("unreadable", path=name, **problem)
    channel.send("compiled", files=len(job["files"]))
    return 0


def _problem(path: Path) -> dict[str, Any] | None:
    try:
        source = path.read_bytes()
        with path.open("rb") as stream:
            encoding, _ = tokenize.detect_encoding(stream.readline)
        if encoding not in ("utf-8", "utf-8-sig"):
            return {"line": 1, "message": f"declares the encoding {encoding!r}; only UTF-8 is read"}
        compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        return {
            "line": error.lineno or 1,
            "message": clip(f"{type(error).__name__}: {error.msg}", 300),
        }
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return {"line": 1, "message": clip(f"{type(error).__name__}: {error}", 300)}
    return None
