"""``tiergate schema``: the JSON schemas, for editors and for other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from tiergate.commands import options


@click.command(
    "schema",
    epilog=options.examples(
        "schema",
        ("> gate.schema.json", "for editors: they complete and explain every key"),
        ("report", "of report.json, for programs that read it"),
        exits=("it was printed", "", "the command line is wrong"),
    ),
)
@click.argument("name", type=click.Choice(["gate", "report", "proof"]), default="gate")
def command(name: str) -> int:
    """Print the JSON schema of gate.yaml (gate), report.json (report) or proof.json (proof)."""
    from tiergate import schema, verdict
    from tiergate.prove import proof

    schemas: dict[str, Callable[[], dict[str, Any]]] = {
        "gate": schema.gate_schema,
        "report": verdict.json_schema,
        "proof": proof.json_schema,
    }
    document = schemas[name]()
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    return 0
