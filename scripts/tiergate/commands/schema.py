"""``tiergate schema``: the JSON schemas, for editors and for other tools."""

from __future__ import annotations

import json

import click


@click.command("schema", epilog="Example: tiergate schema > gate.schema.json")
@click.argument("name", type=click.Choice(["gate", "report"]), default="gate")
def command(name: str) -> int:
    """Print the JSON schema of gate.yaml (gate) or of report.json (report)."""
    from tiergate import schema, verdict

    document = schema.gate_schema() if name == "gate" else verdict.json_schema()
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    return 0
