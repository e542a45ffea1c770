"""Adds a waiver to the text of a spec: by inserting lines, so that everything else stays."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tiergate.yaml_text import quoted

_KEY = re.compile(rb"^(waivers:)[ \t]*(?:\[\])?[ \t]*(#.*)?\r?$")
_TOP_LEVEL = re.compile(rb"^[^\s#-]")
_ITEM = re.compile(rb"^([ \t]*)- ")
_INDENT = b"  "


def add(data: bytes, entry: Mapping[str, object]) -> bytes:
    """Return the spec with one more entry at the end of ``waivers:``.

    The list is made at the end of the file where there is none.

    Args:
        data: the spec, in block style.
        entry: the waiver's keys; values are text, or mappings of text.
    """
    lines = data.split(b"\n")
    starts = [number for number, line in enumerate(lines) if _KEY.match(line)]
    if not starts:
        text = data if data.endswith(b"\n") else data + b"\n"
        return text + b"\nwaivers:\n" + b"\n".join(_item(entry, _INDENT)) + b"\n"
    start = starts[0]
    lines[start] = _KEY.sub(rb"\1 \2", lines[start]).rstrip()
    indent = _INDENT
    last = start
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if _TOP_LEVEL.match(line):
            break
        if first := _ITEM.match(line):
            indent = first[1] if last == start else indent
        if line.strip() and not line.lstrip().startswith(b"#"):
            last = number
    lines[last + 1 : last + 1] = _item(entry, indent)
    return b"\n".join(lines)


def _item(entry: Mapping[str, object], indent: bytes) -> list[bytes]:
    texts = []
    for key, value in entry.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{k}: {quoted(str(v))}" for k, v in value.items())
            texts.append(f"{key}: {{{inner}}}")
        else:
            texts.append(f"{key}: {quoted(str(value))}")
    return [
        indent + (b"- " if number == 0 else b"  ") + text.encode()
        for number, text in enumerate(texts)
    ]
