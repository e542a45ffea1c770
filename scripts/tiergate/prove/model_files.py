"""Generic counter-examples of ``checkpoints``: files that would run code, and ones beyond reading.

They are bytes that nothing here loads, and what they would call does nothing.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import zipfile
from collections.abc import Iterator

from tiergate.checkers.checkpoints import With
from tiergate.prove.counter_examples import CounterExample, Tree

_CALL = b"\x80\x02cposix\ngetpid\n)R."
_TEXT = b"cposix\ngetpid\n(tR."
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def counter_examples(parameters: With, tree: Tree) -> Iterator[CounterExample]:
    """Yield what must make the criterion fail, or make it impossible to evaluate."""
    known = tree.known
    folder = next((p for p in parameters.paths if posixpath.normpath(p) not in known), None)
    if folder is None:
        # Only single files are examined: each may be replaced by what runs code.
        for path in parameters.paths:
            yield _made("file-replaced", posixpath.normpath(path), "is replaced by a call", _CALL)
        return
    archive = _zipped(_CALL)
    for kind, name, what, content in (
        ("call-added", "counter_example.pkl", "pickles a call", _CALL),
        ("archive-added", "counter_example.pt", "is a zip archive that pickles a call", archive),
        ("mislabelled", "counter_example.md", "pickles a call, as text", _TEXT),
        ("compressed", "counter_example.dat", "is a call, compressed", gzip.compress(_CALL)),
        ("ignored-by-name", "tests/counter_example.bin", "pickles a call", _CALL),
        ("truncated", "counter_example.pth", "is cut off", archive[: len(archive) // 2]),
        ("no-model", "counter_example.safetensors", "is no safetensors file", b"no tensors"),
    ):
        yield _made(kind, posixpath.normpath(posixpath.join(folder, name)), what, content)
    pointer = posixpath.normpath(posixpath.join(folder, "counter_example.ckpt"))
    what = f"{pointer} only points to its content, by Git LFS"
    yield CounterExample("pointer", what, {pointer: _POINTER}, status="error", named=(pointer,))


def _made(kind: str, file: str, what: str, content: bytes) -> CounterExample:
    added = {"findings": 1}
    return CounterExample(
        kind, f"{file} {what}", {file: content}, named=(f"{file}:",), effect=added
    )


def _zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"\0" * 64)
    return stream.getvalue()
