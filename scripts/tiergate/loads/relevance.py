"""Which files need a closer look: in the others nothing can name ``torch.load``.

Each test errs on the side of looking. What a file has from another file of the repository is found
from that file's side: ``may_import``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LOAD = rb"(?:_legacy_|_)?load\b"
_GAP = rb"(?:\s|\\|#[^\n]*\n)*"
_DIRECT = tuple(
    re.compile(module + rb"(?<!\w" + module + rb")(?!\w)" + _GAP + rb"\." + _GAP + _LOAD)
    for module in (b"torch", b"serialization")
)
_IMPORTED = re.compile(
    rb"from(?<!\wfrom)\s+[\w.]*torch(?:\.serialization)?\s+import\s*(?:\([^)]*\b(?:load|_load|_legacy_load)\b"
    rb"|[^\n(]*\b(?:load|_load|_legacy_load)\b|\*|[^\n]*\\)"
)
_BEFORE_DOT = re.compile(
    rb"(\w+|[)\]}\"'\x80-\xff])" + _GAP + rb"\." + _GAP + rb"(?:_legacy_|_)?\Z"
)
_STRING = re.compile(rb"[\"'][\w.:]*\bload[\"']")
_QUOTED = re.compile(rb"(?:getattr|__dict__|vars)\b[^;\"']{0,500}[\"']load[\"']")
_BY_NAME = re.compile(
    rb"\b(?:getattr|__dict__|vars|attrgetter|methodcaller|__getattribute__|getattr_static|reduce"
    rb"|resolve_name|locate|setattr|globals|locals)\b|(?<![.\w])(?:eval|exec)\s*\("
)
# The module itself, or what may give it, as a value: not `torch.nn`, and not `import torch`.
_VALUE = re.compile(
    rb"\b(?:torch(?!\w)(?!\s*\.\s*(?!serialization\b)\w)|serialization|import_module|__import__"
    rb"|importorskip|modules)\b"
)
_PLAIN_IMPORT = re.compile(
    rb"\s*import\s+torch\s*(?:#.*)?|\s*from\s+torch\s+import\s+(?!.*\b(?:serialization|load)\b).*|\s*#.*"
)
_HANDED_ON = re.compile(
    rb"\b(?:return|yield|lambda[^:\n]*:)\s*\(?\s*torch\b(?!\s*\.)|^[\s(\[]*torch[\s),\]]*$|,\s*torch\s*$"
    rb"|(?<!attr)(?<!vars)(?<!dir)\(\s*torch\s*[,)]|,\s*torch\s*[,)}\]]|[\[{:]\s*torch\s*[,}\]]",
    re.MULTILINE,
)
# Ways to name an attribute or to run code without writing its name. Each begins with what is
# searched for as plain text, which is many times faster than a look at every word.
_INDIRECT = tuple(
    re.compile(pattern)
    for pattern in (
        rb"eval(?<![.\w]eval)\s*\(", rb"exec(?<![.\w]exec)\s*\(", rb"methodcaller",
        rb"attrgetter", rb"__getattribute__", rb"getattr_static", rb"resolve_name",
        rb"locate(?<!\wlocate)\s*\(", rb"reduce\s*\(\s*getattr\b",
        rb"itemgetter", rb"getmembers",
    )
)  # fmt: skip
_COMPUTED = tuple(
    re.compile(pattern)
    for pattern in (
        rb"getattr\s*\(\s*(\w+)[^,\n]*,\s*(?![\"']\w+[\"']\s*[,)])",
        rb"setattr\s*\(\s*(\w+)[^,\n]*,\s*(?![\"']\w+[\"']\s*[,)])",
        rb"vars(?<!\wvars)\s*\(\s*(\w+)",
    )
)
_WORD = re.compile(rb"\w+")
_STAR = re.compile(rb"^[ \t]*from\b[^\n#]*\bimport[ \t]*\*", re.MULTILINE)
_ANY_STAR = re.compile(rb"import[ \t]*\*")
# To the end of its line; in a string, a line may begin with an escaped line end.
# Two patterns, so that each begins with a word that is searched for as plain text.
_IMPORTING = tuple(
    re.compile(before + rb"import\b(?:[^\n\\]|\\(?:\r?\n)?)*")
    for before in (rb"", rb"from(?:[ \t\f.\w]|\\\r?\n)*?")
)
_FIRST_QUOTED = re.compile(rb"[\"'][ \t]*(\w+)")
_LOOK_BACK = 80
_OFTEN = frozenset({b"self", b"cls"})
_TORCH_NAMES = frozenset(
    {b"torch", b"serialization", b"sys", b"importlib", b"__import__", b"import_module"}
)


def word(name: bytes) -> bytes:
    """Return a pattern for a name as a whole word.

    It begins with the name, which is searched for as plain text; a boundary is tried everywhere.
    """
    name = re.escape(name)
    return name + rb"(?<!\w" + name + rb")(?!\w)"


def may_load(source: bytes) -> bool:
    """Tell whether a file may name ``torch.load``, directly or by a computed name."""
    if b"load" in source:
        if _names_load(source):
            return True
        if _STRING.search(source) and _BY_NAME.search(source):
            return True
    values = _values(source)
    if values:
        bases = _loading(source)
        bases |= {match[1] for computed in _COMPUTED for match in computed.finditer(source)}
        bases |= _with_dictionary(source)
        if bases - _OFTEN and _HANDED_ON.search(values):
            return True
        if any(_may_be_torch(values, base) for base in bases):
            return True
    return b"torch" in source and any(indirect.search(source) for indirect in _INDIRECT)


def may_match(source: bytes) -> bool:
    """Tell whether semgrep's own rule may match a file: by the names that stand in it."""
    if b"load" not in source or b"torch" not in source:
        return False
    if _names_load(source) or _QUOTED.search(source):
        return True
    names = other_names_of_torch([source])
    return names is not None and names.search(source) is not None


def _names_load(source: bytes) -> bool:
    """Tell whether ``torch.load`` stands there, or an import of it."""
    return any(d.search(source) for d in _DIRECT) or _IMPORTED.search(source) is not None


def _loading(source: bytes) -> set[bytes]:
    """Return what stands before ``.load``: a name, or a bracket or quote that ends there."""
    found = set()
    at = source.find(b"load")
    while at >= 0:
        start = max(0, at - _LOOK_BACK)
        if source[at + 4 : at + 5].isalnum() or source[at + 4 : at + 5] == b"_":
            pass
        elif b"." in source[start:at] and (match := _BEFORE_DOT.search(source, start, at)):
            found.add(match[1])
        at = source.find(b"load", at + 4)
    return found


def _with_dictionary(source: bytes) -> set[bytes]:
    """Return the words before ``.__dict__`` in its line."""
    found = set[bytes]()
    at = source.find(b"__dict__")
    while at >= 0:
        found |= set(_WORD.findall(source[source.rfind(b"\n", 0, at) + 1 : at]))
        at = source.find(b"__dict__", at + 8)
    return found


def _values(source: bytes) -> bytes:
    """Return the lines in which torch itself is a value."""
    lines = []
    end = 0
    for match in _VALUE.finditer(source):
        if match.start() < end:
            continue
        start = source.rfind(b"\n", 0, match.start()) + 1
        end = source.find(b"\n", match.end())
        end = len(source) if end < 0 else end
        line = source[start:end]
        if not _PLAIN_IMPORT.fullmatch(line.rstrip()):
            lines.append(line)
    return b"\n".join(lines)


def _may_be_torch(values: bytes, name: bytes) -> bool:
    """Tell whether a name, or what ends in a bracket or a quote, may be the module torch."""
    if name in _TORCH_NAMES:
        return True
    if not name.replace(b"_", b"a").isalnum():
        return True
    return name not in _OFTEN and re.search(word(name), values) is not None


def imported_words(source: bytes) -> set[bytes]:
    """Return the words of import statements, also of those in strings, and words in quotes."""
    found = set(_FIRST_QUOTED.findall(source))
    for importing in _IMPORTING:
        for statement in importing.finditer(source):
            found |= set(_WORD.findall(statement[0]))
    return found


def may_import(source: bytes, module: str, names: frozenset[str]) -> bool:
    """Tell whether a file may have one of a module's names from it."""
    present = [name.encode() for name in sorted(names) if name.encode() in source]
    star = _ANY_STAR.search(source) and _STAR.search(source)
    if not (present or star) or not _names(source, module):
        return False
    if star:
        return True
    found = (re.escape(name) for name in present)
    called = (
        rb"(?<!\w)(?:"
        + b"|".join(found)
        + rb")(?!\w)(?![ \t]+(?!(?:and|as|else|for|if|in|is|or)\b)[A-Za-z])"
    )
    return re.search(called, source) is not None


def may_rebind(source: bytes, module: str, name: str) -> bool:
    """Tell whether a file may bind a name of a module: ``module.NAME = …``, setattr, a patch."""
    if name.encode() not in source or not _names(source, module):
        return False
    bound = re.escape(name.encode())
    return (
        re.search(
            rb"(?<!\bself)(?<!\bcls)\s*\.\s*"
            + bound
            + rb"\s*(?::[^=\n]+)?(?:[-+*/|&^%@]|//)?=(?!=)"
            rb"|(?:setattr|patch|setitem|__dict__|vars|globals)\b[^\n]*[\"'.]" + bound + rb"[\"']",
            source,
        )
        is not None
    )


def may_change(source: bytes, module: str, name: str) -> bool:
    """Tell whether a file may reach something of a module by its name."""
    text = re.escape(name.encode())
    reached = rb"\.\s*" + text + rb"\b|[\"']" + text + rb"[\"']"
    reached += rb"|\bimport\b[^\n]*\b" + text + rb"\b|^\s*" + text + rb"\s*,?\s*$|\bimport\s*\*"
    return _names(source, module) and re.search(reached, source, re.MULTILINE) is not None


def _names(source: bytes, module: str) -> bool:
    """Tell whether a file may import a module: by its name, or relatively."""
    if module and re.search(word(module.encode()), source):
        return True
    return _FROM_HERE.search(source) is not None


_FROM_HERE = re.compile(rb"from(?<!\wfrom)\s+\.+\s+import\b")


def may_bind_torch(source: bytes) -> bool:
    """Tell whether a package may have torch itself under that name, and not a module of its own."""
    return _BINDS_TORCH.search(source) is not None


_BINDS_TORCH = re.compile(
    rb"(?:^|[;:])[ \t]*import\b[^\n]*\btorch\b|from[ \t]+\w[\w.]*[ \t]+import\b[^\n]*\btorch\b"
    rb"|import[ \t]*\*|\btorch[ \t]*=|__getattr__",
    re.MULTILINE,
)


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
        imported, origin, original = (
            part.decode("utf-8", "replace") for part in (name, module, there)
        )
        found.setdefault(imported, []).append((level, origin, original))

    at = source.find(b"from")
    while at >= 0:
        before = source[source.rfind(b"\n", 0, at) + 1 : at]
        match = None if before.strip(b" \t") else _FROM.match(source, at)
        at = source.find(b"from", match.end() if match else at + 4)
        if match is None:
            continue
        level, module = len(match[1]), match[2]
        for part in re.sub(rb"#[^\n]*|[()\\]", b"", match[3]).split(b","):
            words = part.split()
            if words == [b"*"]:
                add(b"*", level, module, b"")
            elif len(words) in {1, 3}:
                add(words[-1], level, module, words[0])
    for match in _AS.finditer(source):
        add(match[2], 0, match[1], b"")
    for match in _EQUALS.finditer(source) if _IS_TORCH.search(source) else ():
        add(match[1], 0, match[2], b"")
    return found


def other_names_of_torch(sources: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Return what finds a load under any other name that some file has for torch."""
    names: set[bytes] = set()
    for source in sources:
        if b"torch as" in source or b"serialization as" in source:
            names |= {match[2] for match in _AS.finditer(source)}
        if (b"= torch" in source or b"=torch" in source) and _IS_TORCH.search(source):
            names |= {match[1] for match in _EQUALS.finditer(source)}
    if not names:
        return None
    words = b"|".join(re.escape(name) for name in sorted(names))
    return re.compile(rb"(?<!\w)(?:" + words + rb")" + _GAP + rb"\." + _GAP + _LOAD)


_FROM = re.compile(
    rb"from[ \t]+(\.*)[ \t]*([\w\x80-\xff.]*)[ \t]+import[ \t]*"
    rb"(\([\w\x80-\xff\s,#.]*\)|[\w\x80-\xff \t,*]*(?:\\\r?\n[\w\x80-\xff \t,]*)*)"
)
_AS = re.compile(rb"\b(torch(?:\.serialization)?|serialization)[ \t]+as[ \t]+([\w\x80-\xff]+)")
_TORCH_ALONE = rb"=[ \t]*(torch(?:\.serialization)?)[ \t]*(?:[;#\r\n]|$)"
_IS_TORCH = re.compile(_TORCH_ALONE, re.MULTILINE)
_EQUALS = re.compile(rb"^[ \t]*([\w\x80-\xff]+)[ \t]*" + _TORCH_ALONE, re.MULTILINE)
