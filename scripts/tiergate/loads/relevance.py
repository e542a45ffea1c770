"""Which files need a closer look: in the others nothing can name ``torch.load``.

Each test errs on the side of looking. What a file has from another file of the repository is found
from that file's side: ``may_import``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LOAD = rb"(?:_legacy_|_)?load\b"
_GAP = rb"(?:\s|\\|#[^\n]*\n)*"
_DIRECT = re.compile(rb"\b(?:torch|serialization)\b" + _GAP + rb"\." + _GAP + _LOAD)
_IMPORTED = re.compile(
    rb"\bfrom\s+[\w.]*torch(?:\.serialization)?\s+import\s*(?:\([^)]*\b(?:load|_load|_legacy_load)\b"
    rb"|[^\n(]*\b(?:load|_load|_legacy_load)\b|\*|[^\n]*\\)"
)
_MEMBER = re.compile(rb"(\w+|[)\]}\"'])" + _GAP + rb"\." + _GAP + _LOAD)
_STRING = re.compile(rb"[\"'][\w.: ]*\bload\b")
_BY_NAME = re.compile(
    rb"\b(?:getattr|__dict__|vars|attrgetter|methodcaller|__getattribute__|getattr_static|reduce"
    rb"|resolve_name|locate|setattr|globals|locals)\b|(?<![.\w])(?:eval|exec)\s*\("
)
_TORCH = rb"\b(?:torch|serialization|import_module|__import__|importorskip|modules)\b"
_ANY_TORCH = re.compile(_TORCH)
# The module itself as a value: returned, or alone on a line of a longer expression.
_HANDED_ON = re.compile(
    rb"\b(?:return|yield|lambda[^:\n]*:)\s*\(?\s*torch\b(?!\s*\.)|^[\s(\[]*torch[\s),\]]*$|^\s*torch\s*,"
    rb"|,\s*torch\s*$|=\s*\\?\n\s*torch\b",
    re.MULTILINE,
)
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
_TORCH_NAMES = frozenset(
    {b"torch", b"serialization", b"sys", b"importlib", b"__import__", b"import_module"}
)


def may_load(source: bytes) -> bool:
    """Tell whether a file may name ``torch.load``, directly or by a computed name."""
    if not _ANY_TORCH.search(source):
        return False
    if b"load" in source:
        if _DIRECT.search(source) or _IMPORTED.search(source):
            return True
        if _STRING.search(source) and _BY_NAME.search(source):
            return True
        bases = {match[1] for match in _MEMBER.finditer(source)}
        if any(_may_be_torch(source, base) for base in bases):
            return True
    if _INDIRECT.search(source):
        return True
    if b"getattr" not in source and b"vars" not in source and b"__dict__" not in source:
        return False
    names = {name for match in _COMPUTED.finditer(source) for name in match.groups() if name}
    return any(_may_be_torch(source, name) for name in names)


def _may_be_torch(source: bytes, name: bytes) -> bool:
    """Tell whether a name, or what ends in a bracket, may be the module torch."""
    if name in _TORCH_NAMES or _HANDED_ON.search(source):
        return True
    if name in _OFTEN:
        return False
    if not name.isalnum() and not name.replace(b"_", b"").isalnum():
        return re.search(_TORCH + rb"[^\n]*" + re.escape(name) + _GAP + rb"\." + _GAP + _LOAD, source) is not None
    word = rb"\b" + re.escape(name) + rb"\b"
    bound = rb"(?m)^[^\n#]*" + word + rb"[^\n=]*:?=(?!=)[^\n]*" + _TORCH
    bound += rb"|" + _TORCH + rb"\s+as\s+" + re.escape(name) + rb"\b"
    bound += rb"|\bfor\b[^\n]*" + word + rb"[^\n]*\bin\b[^\n]*" + _TORCH
    return re.search(bound, source) is not None


def may_import(source: bytes, module: str, names: frozenset[str]) -> bool:
    """Tell whether a file may have one of a module's names from it."""
    found = (re.escape(name.encode()) for name in sorted(names))
    called = rb"\b(?:" + b"|".join(found) + rb")\b(?![ \t]+(?!(?:and|as|else|for|if|in|is|or)\b)[A-Za-z])"
    return re.search(called, source) is not None and _names(source, module)


def may_rebind(source: bytes, module: str, name: str) -> bool:
    """Tell whether a file may bind a name of a module: ``module.NAME = …``, setattr, a patch."""
    if not _names(source, module):
        return False
    word = re.escape(name.encode())
    return (
        re.search(
            rb"(?<!\bself)(?<!\bcls)\s*\.\s*" + word + rb"\s*(?::[^=\n]+)?(?:[-+*/|&^%@]|//)?=(?!=)"
            rb"|(?:setattr|patch|setitem|__dict__|vars|globals)\b[^\n]*[\"'.]" + word + rb"[\"']",
            source,
        )
        is not None
    )


def may_change(source: bytes, module: str, name: str) -> bool:
    """Tell whether a file may reach something of a module by its name."""
    word = re.escape(name.encode())
    reached = rb"\.\s*" + word + rb"\b|[\"']" + word + rb"[\"']"
    reached += rb"|\bimport\b[^\n]*\b" + word + rb"\b|^\s*" + word + rb"\s*,?\s*$|\bimport\s*\*"
    return _names(source, module) and re.search(reached, source, re.MULTILINE) is not None


def _names(source: bytes, module: str) -> bool:
    """Tell whether a file may import a module: by its name, or relatively."""
    word = re.escape(module.encode())
    return re.search(rb"\b" + word + rb"\b|\bfrom\s+\.+\s+import\b", source) is not None


def rebinds_own_names(source: bytes) -> bool:
    """Tell whether a file may bind its own names by way of a dictionary or as text."""
    return _NAMESPACE.search(source) is not None


_NAMESPACE = re.compile(
    rb"\bglobals\s*\(|(?<![.\w])(?:exec|eval|vars|locals)\s*\(|\bsys\s*\.\s*modules\b|__dict__"
)


def passed_on(source: bytes) -> dict[str, list[tuple[int, str, str]]]:
    """Return where a file that does not load has its names from: level, module, name there.

    Under ``*`` stand the modules of which it has all names.
    """
    found: dict[str, list[tuple[int, str, str]]] = {}

    def add(name: bytes, level: int, module: bytes, there: bytes) -> None:
        found.setdefault(name.decode(), []).append((level, module.decode(), there.decode()))

    for match in _FROM.finditer(source):
        level, module = len(match[1]), match[2]
        for part in re.sub(rb"#[^\n]*|[()\\]", b"", match[3]).split(b","):
            words = part.split()
            if words == [b"*"]:
                add(b"*", level, module, b"")
            elif len(words) in {1, 3}:
                add(words[-1], level, module, words[0])
    for match in _AS.finditer(source):
        add(match[2], 0, match[1], b"")
    for match in _EQUALS.finditer(source):
        add(match[1], 0, match[2], b"")
    return found


def other_names_of_torch(sources: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Return what finds a load under any other name that some file has for torch."""
    names: set[bytes] = set()
    for source in sources:
        if b"torch as" in source or b"serialization as" in source:
            names |= {match[2] for match in _AS.finditer(source)}
        if b"= torch" in source or b"=torch" in source:
            names |= {match[1] for match in _EQUALS.finditer(source)}
    if not names:
        return None
    words = b"|".join(re.escape(name) for name in sorted(names))
    return re.compile(rb"\b(?:" + words + rb")" + _GAP + rb"\." + _GAP + _LOAD)


_FROM = re.compile(
    rb"^[ \t]*from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]+import[ \t]*(\([\w\s,#.]*\)|[\w \t,*]*(?:\\\r?\n[\w \t,]*)*)",
    re.MULTILINE,
)
_AS = re.compile(rb"\b(torch(?:\.serialization)?)[ \t]+as[ \t]+(\w+)")
_EQUALS = re.compile(rb"^[ \t]*(\w+)[ \t]*=[ \t]*(torch(?:\.serialization)?)[ \t]*(?:[;#\r\n]|$)", re.MULTILINE)
