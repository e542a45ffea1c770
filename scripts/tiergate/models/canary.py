"""Proof, in every run, that the examination is alive: files that it must find, and one it must not.

They are made of bytes and never unpickled; what they would call does nothing.
"""

from __future__ import annotations

import io
import zipfile
import zlib

from tiergate.models import policy

_CALLS = b"\x80\x02cposix\ngetpid\n)R."
_COMPUTED = b"\x80\x04\x8c\x05posix\x94\x8c\x06getpid\x94\x8c\x01x00h\x00h\x01\x93)R."
_WEIGHTS = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00wq\x02K\x01s."


def dead(asked: policy.Policy) -> str:
    """Return which canary the examination overlooks under a policy, or an empty string."""
    for name, content in {
        "canary.pkl": _CALLS,
        "canary.txt": _COMPUTED,
        "canary.pt": _zipped(_CALLS),
        "canary.joblib": zlib.compress(_CALLS),
    }.items():
        breaches = policy.examine_stream(io.BytesIO(content), name, asked).breaches
        if not any(breach.rule in {"dangerous-import", "pickle"} for breach in breaches):
            return name
    harmless = policy.examine_stream(io.BytesIO(_zipped(_WEIGHTS)), "canary.pt", asked)
    return "canary of weights" if bool(harmless.breaches) != (asked == "none") else ""


def _zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
    return stream.getvalue()
