"""The JSON schema of ``gate.yaml``, with each built-in checker's parameters and outcomes."""

from __future__ import annotations

from typing import Any

import msgspec

from tiergate import checkers
from tiergate.spec import GateFile

_EXPECTED = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^>=\\s*[0-9]{1,12}$"},
    ]
}


def gate_schema() -> dict[str, Any]:
    """Return the schema; a third party's checker is accepted with any parameters."""
    (root,), definitions = msgspec.json.schema_components([GateFile], ref_template="#/$defs/{name}")
    criterion = definitions["CriterionEntry"]
    criterion["properties"]["expect"]["anyOf"] = [
        {"type": "object", "additionalProperties": _EXPECTED},
        {"type": "null"},
    ]
    definitions["ProofEntry"]["properties"]["expect"]["anyOf"] = [
        {"type": "object", "additionalProperties": _EXPECTED},
        {"type": "null"},
    ]
    criterion["allOf"] = [
        {
            "if": {"properties": {"uses": {"const": name}}, "required": ["uses"]},
            "then": _parameters(name, definitions),
        }
        for name in checkers.BUILT_IN
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gate.yaml",
        **root,
        "$defs": definitions,
    }


def _parameters(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    (reference,), found = msgspec.json.schema_components(
        [checkers.get(name).With], ref_template=f"#/$defs/{name}.{{name}}"
    )
    definitions.update({f"{name}.{key}": value for key, value in found.items()})
    required = found["With"].get("required")
    return {"properties": {"with": reference}, **({"required": ["with"]} if required else {})}
