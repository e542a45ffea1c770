"""Attacks on what is known of model files: mislabelled, packed, or read in two ways.

What they would call does nothing, and nothing here loads them.
"""

from __future__ import annotations

import gzip
import io
import zipfile

from attack_case import Attack, Control

CALL = b"\x80\x02cposix\ngetpid\n)R."
# The names that are called lie in the memo; the last ones to be seen are others.
DECOYS = (
    b"\x80\x04\x8c\x05posix\x94\x8c\x06getpid\x94"
    b"\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93)R."
)
WEIGHTS = b"\x80\x02ccollections\nOrderedDict\n)R."


def _zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"\0" * 8)
    return stream.getvalue()


SAFE = Control("weights that `weights_only=True` takes", {"models/m.pt": _zipped(WEIGHTS)})
PACKED = Control("a compressed text", {"models/notes.gz": gzip.compress(b"no model\n")})
TEXT = Control("a text that begins like an import", {"models/notes.md": "costs are\nhigh\n"})

ATTACKS = [
    Attack(
        "pickle-in-model",
        "a model file pickles a call",
        "models",
        {"models/m.pt": _zipped(CALL)},
        "models/m.pt",
        SAFE,
    ),
    Attack(
        "pickle-mislabelled",
        "the pickle is called `.md`",
        "models",
        {"models/notes.md": CALL},
        "models/notes.md",
        TEXT,
    ),
    Attack(
        "pickle-decoys",
        "the call's name comes from the memo, behind decoys that are allowed",
        "models",
        {"models/m.pt": _zipped(DECOYS)},
        "models/m.pt",
        SAFE,
    ),
    Attack(
        "pickle-and-zip",
        "the pickle stands in front of a harmless archive",
        "models",
        {"models/m.pt": CALL + _zipped(WEIGHTS)},
        "models/m.pt",
        SAFE,
    ),
    Attack(
        "pickle-compressed",
        "the pickle is compressed",
        "models",
        {"models/notes.gz": gzip.compress(CALL)},
        "models/notes.gz",
        PACKED,
    ),
]
