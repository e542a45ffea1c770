"""A digest of what a test does, so that a test is known again under another name."""

from __future__ import annotations

import hashlib
from types import CodeType
from typing import Any


def digest(item: Any) -> str:
    """Return the digest of a test's code and parameters, or an empty string where it has none.

    Neither its name, nor its file, nor its place in the file count.
    """
    code = getattr(getattr(item, "function", None), "__code__", None)
    if code is None:
        return ""
    callspec = getattr(item, "callspec", None)
    parts = [*_parts(code), str(getattr(callspec, "id", "")).encode("utf-8", "replace")]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _parts(code: CodeType) -> list[bytes]:
    parts = [code.co_code, repr((code.co_names, code.co_varnames, code.co_freevars)).encode()]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            parts += _parts(constant)
        else:
            parts.append(_text(constant).encode("utf-8", "replace"))
    return parts


def _text(constant: object) -> str:
    # The order in a set of strings is another one in each process.
    if isinstance(constant, frozenset):
        return f"{{{', '.join(sorted(map(_text, constant)))}}}"
    if isinstance(constant, tuple):
        return f"({', '.join(map(_text, constant))})"
    return repr(constant)
