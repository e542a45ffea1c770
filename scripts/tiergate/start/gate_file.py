"""Writes the first ``gate.yaml``: commented, and read by editors with its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tiergate.start.drafts import Draft
from tiergate.start.survey import Survey
from tiergate.yaml_text import WIDTH, entry, flow

SCHEMA_NAME = "gate.schema.json"

_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA_NAME}
#
# The merge gate of this repository. `tiergate run` judges it, `tiergate explain ID` says more on
# each criterion, `tiergate update ID` takes over new numbers after a deliberate change.
"""
_CUDA = """\
# The code uses CUDA. Where a runner with a GPU is at hand, write `devices: [cpu, cuda]` here and at
# the criteria that a GPU must meet as well: `tiergate run --device cuda` then judges that leg, and
# without a working device it is an error, never a skip.
"""
_NO_TESTS = """\
# No tests were found. The first one makes the gate worth more; then add:
#
#  - id: tests
#    name: the tests pass
#    uses: pytest
#    with: {paths: [tests]}
#    expect: {passed: ">=1"}
"""
_NO_PYTEST = """\
# There are tests, but the interpreter has no pytest, so nothing could count them. Install it there,
# remove this file and gate.schema.json, and run `tiergate init` again; or add, with true numbers:
#
#  - id: tests
#    name: the tests pass
#    uses: pytest
#    with: {paths: %s}
#    expect: {passed: ">=1"}
"""


@dataclass(frozen=True)
class Waived:
    """A waiver to write down."""

    criterion: str
    reason: str
    owner: str
    expires: str
    finding: Mapping[str, str] | None = None


def render(
    survey: Survey,
    drafts: Sequence[Draft],
    *,
    timeout: float,
    has_pytest: bool,
    owner: str = "",
    waivers: Iterable[Waived] = (),
) -> str:
    """Return the text of the spec."""
    lines = [_HEAD + "gate: TIER 0", "next: merge"]
    lines.append("devices: [cpu]")
    if survey.cuda:
        lines.append(_CUDA.rstrip())
    if survey.roots:
        lines += ["# In front of the candidate's sys.path.", *entry("pythonpath", survey.roots, 0)]
    lines += ["# Seconds per criterion; then it is an error.", f"timeout: {timeout:g}"]
    lines += ["", "criteria:"]
    for number, draft in enumerate(drafts):
        lines += [""] * bool(number) + _criterion(draft, owner)
    if not any(project.test_files or project.unittest_only for project in survey.projects):
        lines += ["", _NO_TESTS.rstrip()]
    elif not has_pytest:
        paths = [path for project in survey.projects for path in project.test_paths]
        lines += ["", (_NO_PYTEST % flow(paths)).rstrip()]
    if waived := list(waivers):
        lines += ["", "# Each is a debt: when it expires, or when nothing fails any more, the gate"]
        lines += ["# fails until it is gone.", "waivers:"]
        for waiver in waived:
            lines += _waiver(waiver)
    return "\n".join(lines) + "\n"


def _criterion(draft: Draft, owner: str) -> list[str]:
    lines = [f"  # {line}"[:WIDTH] for line in draft.comments]
    lines += [f"  - id: {flow(draft.id)}", f"    name: {flow(draft.name)}"]
    lines += [f"    uses: {draft.uses}", *entry("with", draft.parameters, 4)]
    if draft.expect:
        bounds = {n: str(b) if b.at_least else b.value for n, b in draft.expect.items()}
        lines += entry("expect", bounds, 4)
    if draft.needs:
        lines += entry("needs", list(draft.needs), 4)
    if owner:
        lines += entry("remedy", {"owner": owner}, 4)
    return lines


def _waiver(waiver: Waived) -> list[str]:
    lines = [f"  - criterion: {flow(waiver.criterion)}"]
    if waiver.finding:
        lines.append(f"    finding: {flow(waiver.finding)}")
    rest = {"reason": waiver.reason, "owner": waiver.owner}
    lines += [f"    {key}: {flow(value)}" for key, value in rest.items()]
    return [*lines, f'    expires: "{waiver.expires}"']
