"""The Python in a notebook: its code cells, with each line's place in the file."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

# Magics whose arguments are Python; the options before it are left out.
_CODE_MAGICS = frozenset(
    {"time", "timeit", "prun", "memit", "mprun", "lprun", "pinfo", "debug", "capture", "px"}
)
# Cells in another language, or not to be run here, even where Python stands there.
_OTHER_LANGUAGES = frozenset(
    {
        "bash", "sh", "script", "html", "javascript", "js", "latex", "markdown", "svg", "perl",
        "ruby", "R", "sql", "bigquery", "writefile", "file",
    }
)  # fmt: skip
# What IPython takes for a magic without its percent sign.
_AUTOMAGIC = re.compile(
    r"^(\s*)(?:pip|conda|mamba|micromamba|uv|cd|ls|ll|mkdir|rmdir|rm|cp|mv|cat|man|more|less|env)"
    r"\s+\S.*$"
)
_TEXT = ("markdown", "raw", "heading")
_MAGIC = re.compile(r"^(\s*)(?:(?P<target>[\w.,\s\[\]\"']+?)=\s*)?%(?P<name>\w+)(?P<rest>.*)$")
_SHELL = re.compile(r"^(\s*)(?:(?P<target>[\w.,\s]+?)=\s*)?!.*$")
_OPTIONS = re.compile(r"^(?:\s+-\w+(?:\s+[\w.]+(?=\s))?)*\s*")
_HELP = re.compile(r"^\s*\?{1,2}[\w.*]+\s*;?\s*$|^\s*[\w.*\[\]\"']+\?{1,2}\s*;?\s*$")


class NotebookError(ValueError):
    """The file is no notebook that can be read."""


@dataclass(frozen=True)
class Extract:
    """The code of a notebook as one module."""

    source: bytes
    lines: tuple[int, ...]
    """For each line of the source, its line in the notebook's file."""
    broken: tuple[int, ...] = ()
    """Lines of the notebook's file where a cell begins that is no Python and left out."""


def extract(data: bytes) -> Extract | None:
    """Return the Python of a notebook, or None where its language is another one.

    Shell lines and magics are left out, the code behind ``%time`` and its like is kept. A cell in
    another language (``%%bash``) is none of it; below a magic that is not known, what is Python is
    kept.

    Raises:
        NotebookError: not UTF-8, not JSON, or no cells in it.
    """
    try:
        text = data.decode("utf-8-sig")
        document = json.loads(text)
        cells = _cells(document)
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"not a notebook: {error}") from None
    if _language(document) not in {"", "python", "ipython", "python2", "python3"}:
        return None
    places = _Places(text)
    lines: list[str] = []
    numbers: list[int] = []
    broken: list[int] = []
    for cell in cells:
        source = cell.get("source", cell.get("input", ""))
        parts = source if isinstance(source, list) else [source]
        if not all(isinstance(part, str) for part in parts):
            raise NotebookError("not a notebook: a cell's source is no text")
        found: list[tuple[str, int]] = []
        for part in parts:
            number = places.find(part)
            found += [(line, number) for line in part.split("\n")]
            if part.endswith("\n"):
                found.pop()
        if cell.get("cell_type") in _TEXT:
            continue
        code = [line for line, _ in found]
        python = _python(code)
        if not _parses("\n".join(python)):
            broken.append(found[0][1] if found else 1)
            continue
        for line, (_, number) in zip(python, found, strict=True):
            lines.append(line)
            numbers.append(number)
    source = "\n".join(lines).encode("utf-8", "replace") + b"\n"
    return Extract(source, tuple(numbers) or (1,), tuple(broken))


def _cells(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, dict):
        raise NotebookError("its JSON is no object")
    cells = document.get("cells")
    if cells is None and isinstance(document.get("worksheets"), list):
        cells = [
            cell
            for sheet in document["worksheets"]
            if isinstance(sheet, dict)
            for cell in sheet.get("cells", [])
        ]
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise NotebookError("it has no cells")
    return cells


def _language(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    for key, name in (("language_info", "name"), ("kernelspec", "language")):
        about = metadata.get(key)
        if isinstance(about, dict) and isinstance(about.get(name), str):
            return str(about[name]).lower()
    return ""


def _python(lines: list[str]) -> list[str]:
    """Return the lines with what is no Python taken out, none of them moved."""
    first = next((line for line in lines if line.strip()), "")
    if match := re.match(r"\s*%%(\w+)(.*)", first):
        at = lines.index(first)
        if match[1] in _OTHER_LANGUAGES:
            return ["" for _ in lines]
        if match[1] not in _CODE_MAGICS and not _parses("\n".join(_lines(lines[at + 1 :]))):
            return ["" for _ in lines]
        code = _OPTIONS.sub("", match[2]) if match[1] in {"time", "timeit", "prun"} else ""
        lines = [*lines[:at], code if _parses(code) else "", *lines[at + 1 :]]
    if _parses("\n".join(lines)):
        return lines
    return _lines(lines)


def _lines(lines: list[str]) -> list[str]:
    """Return the lines, each by itself; a command goes on behind a backslash at its end."""
    found: list[str] = []
    goes_on = False
    for line in lines:
        python = "" if goes_on else _line(line)
        goes_on = line.endswith("\\") and (goes_on or python != line)
        found.append(python)
    return found


def _line(line: str) -> str:
    if match := _MAGIC.match(line):
        indent = match[1]
        if match["name"] in _CODE_MAGICS:
            code = _OPTIONS.sub("", match["rest"])
            if _parses(code):
                return f"{indent}{code or 'pass'}"
            if "load" in code:
                return line  # no Python, and not to be passed over
        return f"{indent}{match['target']}= None" if match["target"] else f"{indent}pass"
    if match := _SHELL.match(line):
        return f"{match[1]}{match['target']}= None" if match["target"] else f"{match[1]}pass"
    if _HELP.match(line):
        return "pass"
    if (match := _AUTOMAGIC.match(line)) and not _parses(line.strip()):
        return f"{match[1]}pass"
    return line


def _parses(code: str) -> bool:
    try:
        compile(
            code,
            "cell",
            "exec",
            ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
    except (SyntaxError, ValueError):
        return False
    return True


class _Places:
    """Finds, one after another, the lines of a file in which strings of its JSON stand."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1

    def find(self, part: str) -> int:
        """Return the line of the next occurrence of a string, or of the last one found."""
        if not part:
            return self._line
        for ascii_only in (False, True):
            at = self._text.find(json.dumps(part, ensure_ascii=ascii_only), self._at)
            if at >= 0:
                self._line += self._text.count("\n", self._at, at)
                self._at = at
                return self._line
        return self._line
