"""The parts of pages that are made from the code: spec reference, commands, benchmarks."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from tiergate import cli, schema

_ORDER = ("GateFile", "TierEntry", "CriterionEntry", "Remedy", "ProofEntry", "Replacement")
_TITLES = {
    "GateFile": "The file",
    "TierEntry": "A tier",
    "CriterionEntry": "A criterion",
    "Remedy": "A remedy",
    "WaiverEntry": "A waiver",
    "FindingEntry": "A waived finding",
    "ProofEntry": "A proof",
    "Replacement": "A proof's replacement",
    "Addition": "A proof's addition",
}


def complete(name: str, text: str, root: Path) -> str:
    """Return a page with what is generated in place of its marker.

    Args:
        name: the page, without a suffix.
        text: the page as it is written.
        root: the repository.
    """
    makers: Mapping[str, Callable[[], str]] = {
        "spec": spec_reference,
        "commands": command_reference,
        "benchmarks": lambda: benchmarks(root),
    }
    if name == "index":
        return text.replace("<!-- other pages -->", _others(text, root))
    if name in makers:
        return text.replace("<!-- generated -->", makers[name]())
    # Pages are read on their own as well: there the results are a file of the repository.
    return text.replace("](../benchmarks/RESULTS.md", "](benchmarks.md")


def _others(index: str, root: Path) -> str:
    """Return contents of the pages that the index does not name."""
    named = set(re.findall(r"^[a-z-]+$", index, re.MULTILINE)) | {"index"}
    others = sorted(page.stem for page in (root / "docs").glob("*.md") if page.stem not in named)
    lines = ["```{toctree}", ":caption: More on the gate", ":maxdepth: 1", "", *others, "```"]
    return "\n".join(lines) if others else ""


def benchmarks(root: Path) -> str:
    """Return the measured results, a level deeper, with their pictures found from here."""
    text = (root / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    body = re.sub(r"^# .*\n", "", text, count=1)
    return body.replace("](../docs/", "](")


def command_reference() -> str:
    """Return the help of every command."""
    parts = []
    parent = click.Context(cli.tiergate, info_name="tiergate", max_content_width=88)
    for name, summary in cli.COMMANDS.items():
        module = f"tiergate.commands.{name.replace('-', '_')}"
        command: click.Command = importlib.import_module(module).command
        with click.Context(command, info_name=name, parent=parent, max_content_width=88) as context:
            context.terminal_width = 88
            parts.append(f"## {name}\n\n{summary}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def spec_reference() -> str:
    """Return a table for every kind of entry, and for every checker's parameters."""
    document = schema.gate_schema()
    definitions: dict[str, dict[str, Any]] = document["$defs"]
    parts = []
    rest = sorted(set(definitions) - set(_ORDER), key=lambda n: (n.endswith(".With"), n))
    for name in (*_ORDER, *rest):
        title = _TITLES.get(name) or f"Parameters of {name.removesuffix('.With')}"
        parts.append("\n".join(_table(title, definitions[name])))
    return "\n".join(parts)


def _table(title: str, about: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{about.get('description', '')}\n"
    yield "| key | value | default | what it says | example |"
    yield "|---|---|---|---|---|"
    required = set(about.get("required", []))
    for key, value in about.get("properties", {}).items():
        default = "**required**" if key in required else _code(value.get("default"), empty="")
        example = _code(value["examples"][0], empty="")
        columns = (f"`{key}`", _type(value), default, value["description"], example)
        yield "| " + " | ".join(column.replace("|", "\\|") for column in columns) + " |"
    yield ""


def _type(value: Mapping[str, Any]) -> str:
    if "anyOf" in value:
        kinds = [_type(option) for option in value["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        title = _TITLES.get(name, "parameters")
        return f"[{title.lower()}](#{title.lower().replace(' ', '-').replace(chr(39), '')})"
    if "enum" in value:
        return " or ".join(f"`{word}`" for word in value["enum"])
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    return {"object": "mapping", "string": "text", "number": "number", "integer": "integer"}.get(
        value.get("type", ""), value.get("type", "any")
    )


def _code(value: Any, *, empty: str) -> str:
    if value in (None, "", [], {}):
        return empty
    return f"`{json.dumps(value, ensure_ascii=False)}`"
