"""``proof.json``: what was tried on each criterion, and what caught it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from tiergate.errors import ExitCode, NotEvaluatedError
from tiergate.fields import Device
from tiergate.verdict import Source, SpecIdentity, Status, write_atomically

SCHEMA_VERSION = 1
PROOF_NAME = "proof.json"

Conclusion = Literal["proven", "not proven", "not evaluated"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a proof: immutable, unknown fields refused, defaults left out."""


class Tried(_Record, frozen=True):
    """One counter-example, and what the criterion made of it."""

    name: str
    what: str
    """What was changed, in words."""
    caught: bool
    expected: Status
    """The verdict that it must lead to."""
    observed: Status | None
    """The verdict that it led to; none where it could not be tried."""
    summary: str = ""
    """The verdict's one line."""
    evidence: str = ""
    """What the verdict's evidence begins with: a test id, a finding's place."""
    problem: str = ""
    """Why it does not count as caught."""
    declared: bool = False
    """Whether the spec declares it; otherwise every criterion of this kind has it."""
    counts: dict[str, int] = {}
    """The outcomes that were observed."""
    seconds: float = 0.0


class CriterionProof(_Record, frozen=True):
    """What was tried on one criterion."""

    criterion: str
    uses: str
    device: Device
    conclusion: Conclusion
    problem: str = ""
    """Why it is not proven."""
    before: Status | None = None
    """The verdict on the untouched copy, before anything was tried."""
    after: Status | None = None
    """The same, after all was tried."""
    made: int = 0
    """How many counter-examples there are; each of them must have been tried."""
    tried: list[Tried] = []
    inapplicable: list[str] = []
    """Generic counter-examples that the criterion's expectation bears, as it is written."""


class Proof(_Record, frozen=True, tag_field="kind", tag="tiergate-proof"):
    """The proof of one leg: can every criterion fail?"""

    schema_version: int
    tool_version: str
    spec: SpecIdentity
    source: Source
    device: Device
    started: str
    """UTC, ISO 8601."""
    seconds: float
    criteria: list[CriterionProof]
    interruption: str = ""

    @property
    def conclusion(self) -> Conclusion:
        """Proven only if every criterion is, and there is one."""
        found = {criterion.conclusion for criterion in self.criteria}
        if "not proven" in found:
            return "not proven"
        return "proven" if found == {"proven"} and not self.interruption else "not evaluated"

    @property
    def exit_code(self) -> ExitCode:
        """The contract's exit code."""
        codes: dict[Conclusion, ExitCode] = {
            "proven": ExitCode.PASSED,
            "not proven": ExitCode.FAILED,
            "not evaluated": ExitCode.NOT_EVALUATED,
        }
        return codes[self.conclusion]


def encode(proof: Proof) -> bytes:
    """Return the JSON form of a proof, indented."""
    return msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n"


def write(proof: Proof, directory: Path) -> Path:
    """Write ``proof.json`` into ``directory``, whole or not at all; return its path.

    Raises:
        NotEvaluatedError: the folder cannot be written.
    """
    path = directory / PROOF_NAME
    try:
        write_atomically(path, encode(proof))
    except OSError as error:
        raise NotEvaluatedError(
            f"{directory}: cannot write the proof: {error.strerror}; choose a folder with --report"
        ) from None
    return path


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``proof.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tiergate proof",
        **msgspec.json.schema(Proof),
    }
