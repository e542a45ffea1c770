"""Which files need a closer look: a file without these words cannot name ``torch.load``."""

from __future__ import annotations

import re

# As a name it stands before an operator, a keyword or the end of a line; in prose, before a word.
_LOAD = re.compile(rb"\bload\b(?![ \t]+(?!(?:and|as|else|for|if|in|is|not|or)\b)[A-Za-z])")
_MODULE = re.compile(rb"\btorch\b|\bserialization\b|import_module|__import__|\bmodules\b")
# Ways to name an attribute or to run code without writing its name.
_INDIRECT = re.compile(
    rb"(?<![.\w])(?:eval|exec)\s*\(|\b(?:methodcaller|attrgetter|__getattribute__|getattr_static"
    rb"|resolve_name|locate)\b|\breduce\s*\(\s*getattr\b"
)
_COMPUTED = re.compile(
    rb"\bgetattr\s*\(\s*(\w+)[^,\n]*,\s*(?![\"']\w+[\"']\s*[,)])|\bvars\s*\(\s*(\w+)"
    rb"|\b(\w+)\b[\w.\"'()\[\]]*\s*\.\s*__dict__"
)
_OFTEN = frozenset({b"self", b"cls"})
_TORCH_NAMES = {b"torch", b"serialization", b"sys", b"importlib", b"__import__", b"import_module"}


def may_load(source: bytes) -> bool:
    """Tell whether a file may name ``torch.load``, directly or by a computed name."""
    if _LOAD.search(source):
        return True  # also without the word torch: another module may pass torch on
    if not _MODULE.search(source):
        return False
    if _INDIRECT.search(source):
        return True
    if b"getattr" not in source and b"vars" not in source and b"__dict__" not in source:
        return False
    names = {name for match in _COMPUTED.finditer(source) for name in match.groups() if name}
    return bool(names & _TORCH_NAMES) or any(
        re.search(
            rb"(?m)^[^\n]*?\b%b\b[^\n=]*:?=[^=][^\n]*(?:torch|serialization|import_module|__import__"
            rb"|modules)|\bas\s+%b\b" % (name, name),
            source,
        )
        for name in names
        if name not in _OFTEN
    )


def mentions(source: bytes, names: frozenset[str]) -> bool:
    """Tell whether a file has one of the names as a word."""
    found = (re.escape(name.encode()) for name in sorted(names))
    return bool(names) and re.search(rb"\b(?:" + b"|".join(found) + rb")\b", source) is not None


def may_rebind(source: bytes, name: str) -> bool:
    """Tell whether a file may bind a name in another module: ``m.NAME = …``, or by a string."""
    word = re.escape(name.encode())
    return re.search(
        rb"\.\s*" + word + rb"\s*(?::[^=\n]+)?(?:[-+*/|&^%@]|//|\*\*|<<|>>)?=(?!=)"
        rb"|[\"'.]" + word + rb"[\"']|\bglobals\s*\(\)",
        source,
    ) is not None


def may_change(source: bytes, name: str) -> bool:
    """Tell whether a file names something of another module at all."""
    return re.search(rb"\b" + re.escape(name.encode()) + rb"\b", source) is not None


def rebinds_own_names(source: bytes) -> bool:
    """Tell whether a file may bind its own names by way of a dictionary or as text."""
    return _NAMESPACE.search(source) is not None


_NAMESPACE = re.compile(
    rb"\bglobals\s*\(|(?<![.\w])(?:exec|eval|vars|locals)\s*\(|\bsys\s*\.\s*modules\b|__dict__"
)


def sources_of(source: bytes, name: str) -> list[tuple[int, str, str]]:
    """Return where a file that does not load may have a name from: level, module, name there."""
    word = re.escape(name.encode())
    if name.encode() not in source and b"import *" not in source:
        return []
    found = []
    for match in re.finditer(
        rb"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n]*)", source, re.MULTILINE
    ):
        level, module, names = len(match[1]), match[2].decode(), match[3]
        if names.strip() == b"*":
            found.append((level, module, name))
        elif renamed := re.search(rb"\b(\w+)\s+as\s+" + word + rb"\b", names):
            found.append((level, module, renamed[1].decode()))
        elif re.search(rb"(?<!as )\b" + word + rb"\b(?!\s+as\b)", names):
            found.append((level, module, name))
    for match in re.finditer(
        rb"(?:^|[;:,])[ \t]*(?:import[ \t]+)?([\w.]+)[ \t]+as[ \t]+" + word + rb"\b"
        rb"|^[ \t]*" + word + rb"[ \t]*=[ \t]*([\w.]+)[ \t]*(?:#[^\n]*)?$",
        source,
        re.MULTILINE,
    ):
        found.append((0, (match[1] or match[2]).decode(), ""))
    return found
