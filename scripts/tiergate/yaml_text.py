"""Values → YAML text that reads back as the same values, on one line where it fits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 100

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./= -]*[A-Za-z0-9_./]|[A-Za-z_]")
_WORDS = frozenset(
    {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".inf", ".nan"}
)


def quoted(text: str) -> str:
    """Return YAML's double-quoted form, on one line whatever the text is."""
    escaped = "".join(
        f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in text
    )
    return f'"{escaped}"'


def flow(value: Any) -> str:
    """Return a value in flow style; text is quoted where it could be read as something else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    text = str(value)
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    # A dot and digits are a number to some readers.
    return text if plain and not re.fullmatch(r"[.0-9eE]+", text) else quoted(text)


def entry(key: str, value: Any, indent: int) -> list[str]:
    """Return the lines of ``key: value``; what is too long for one line goes into block style."""
    start = " " * indent
    line = f"{start}{key}: {flow(value)}"
    if len(line) <= WIDTH or not isinstance(value, (Mapping, list, tuple)):
        return [line]
    if isinstance(value, Mapping):
        lines = [f"{start}{key}:"]
        for name, item in value.items():
            lines += entry(flow(name), item, indent + 2)
        return lines
    return [f"{start}{key}:", *(f"{start}  - {flow(item)}" for item in value)]
