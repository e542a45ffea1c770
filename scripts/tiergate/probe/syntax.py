"""Which files does this interpreter itself not compile?  Nothing is executed.

The judge uses it too, where it runs on the candidate's interpreter itself.
"""

from __future__ import annotations

import io
import tokenize
import unicodedata
import warnings
from pathlib import Path
from typing import Any

from .records import Channel
from .text import clip


def run(job: dict[str, Any], channel: Channel) -> int:
    """Compile each of ``job["files"]`` and report the ones that fail."""
    warnings.simplefilter("ignore")
    for name in job["files"]:
        found = _read_and_compile(Path(job["repository"], name))
        if found is not None:
            channel.send("unreadable", path=name, **found)
    channel.send("compiled", files=len(job["files"]))
    return 0


def problem(source: bytes, name: str) -> dict[str, Any] | None:
    """Return why this interpreter does not compile a source, or why tools would misread it."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        if encoding not in ("utf-8", "utf-8-sig"):
            return {"line": 1, "message": f"declares the encoding {encoding!r}; only UTF-8 is read"}
        compile(source, name, "exec", dont_inherit=True)
        return None if source.isascii() else _misleading_name(source)
    except SyntaxError as error:
        return {
            "line": error.lineno or 1,
            "message": clip(f"{type(error).__name__}: {error.msg}", 300),
        }
    except (ValueError, RecursionError, MemoryError) as error:
        return {"line": 1, "message": clip(f"{type(error).__name__}: {error}", 300)}


def _read_and_compile(path: Path) -> dict[str, Any] | None:
    try:
        source = path.read_bytes()
    except OSError as error:
        return {"line": 1, "message": clip(f"{type(error).__name__}: {error}", 300)}
    return problem(source, str(path))


def _misleading_name(source: bytes) -> dict[str, Any] | None:
    """Find a name that Python reads as another one, which tools that read text do not see."""
    text = source.decode("utf-8")
    if unicodedata.is_normalized("NFKC", text):
        return None
    # To take a text apart takes long: not for the sake of what stands in no name, as an ellipsis.
    foreign = {ord(c): " " for c in set(text) if not c.isascii() and not f"a{c}".isidentifier()}
    if unicodedata.is_normalized("NFKC", text.translate(foreign)):
        return None
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type == tokenize.NAME:
            read_as = unicodedata.normalize("NFKC", token.string)
            if read_as != token.string:
                message = f"the name {token.string!r} is read as {read_as!r}; write it so"
                return {"line": token.start[0], "message": clip(message, 300)}
    return None
