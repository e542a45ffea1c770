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
    sha = hashlib.sha256()
    _update(sha, code)
    callspec = getattr(item, "callspec", None)
    sha.update(str(getattr(callspec, "id", "")).encode("utf-8", "replace"))
    return sha.hexdigest()[:16]


def _update(sha: Any, code: CodeType) -> None:
    sha.update(code.co_code)
    sha.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _update(sha, constant)
        else:
            sha.update(repr(constant).encode("utf-8", "replace"))
