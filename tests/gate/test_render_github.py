"""Annotations and job summary on GitHub."""

import re

import pytest
from builders import (
    FORBIDDEN,
    HOSTILE,
    SOURCE,
    TWO_LEGS,
    all_legs,
    decision_of,
    failed_decision,
    gate,
    hostile,
    judged,
    parse,
    report,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.decide import decide
from tiergate.render import github
from tiergate.render.markdown import summary as markdown_of
from tiergate.verdict import Evidence, Failure, Finding

ZERO_WIDTH = "\u200b"

SUMMARY = """\
## TIER 0 GATE FAILED — fix before proceeding

- **A@cuda: no verdict: the cuda leg has no report**
- **C@cuda: no verdict: the cuda leg has no report**

| criterion | cpu | cuda | what it holds |
|---|---|---|---|
| A | ❌ **fail** | ❓ **missing** | A |
| B | ⛔ blocked |  | B |
| C |  | ❓ **missing** | C |

### A@cpu: fail

2 passed, 1 failed; passed: expected 3, observed 2

- failed: tests/a.py::test\\_x (tests/a.py:7)

      assert 1 == 2


See it on your machine:

    tiergate run --only A --device cpu
    python -m pytest tests/a.py

Mend it:

- task: 1
- owner: ml
- hint: look at a
- files: src/a.py

<details><summary>Every cell, with what was observed</summary>

| cell | verdict | seconds | observed |
|---|---|---:|---|
| A@cpu | ❌ **fail** | 2.5 | 2 passed, 1 failed; passed: expected 3, observed 2 |
| B@cpu | ⛔ blocked | 0.0 | needs A@cpu, which did not pass |
| A@cuda | ❓ **missing** |  | no verdict |
| C@cuda | ❓ **missing** |  | no verdict |

</details>
"""

ANNOTATIONS = """\
::error title=tiergate::A@cuda: no verdict: the cuda leg has no report
::error title=tiergate::C@cuda: no verdict: the cuda leg has no report
::error file=tests/a.py,line=7,title=A@cpu failed::tests/a.py::test_x%0Aassert 1 == 2"""


def test_the_summary_reads_from_the_sentence_to_the_failures():
    assert markdown_of(failed_decision()).replace(ZERO_WIDTH, "") == SUMMARY


def test_annotations_stand_at_the_lines_concerned():
    assert github.workflow_commands(failed_decision()) == ANNOTATIONS


def test_a_pass_needs_no_annotation():
    spec = parse(TWO_LEGS)
    assert github.workflow_commands(decide(spec, all_legs(spec), source=SOURCE)) == ""


def test_a_failure_without_a_place_is_annotated_with_its_summary():
    decision = decision_of([judged("A", status="error", summary="crashed"), judged("B")])
    assert "::error title=A@cpu::crashed" in github.workflow_commands(decision).split("\n")


def test_a_finding_is_annotated_where_it_is():
    evidence = Evidence(findings=[Finding("rule", "src/a,b.py", 3, 1, "50% bad", "x")])
    decision = decision_of([judged("A"), judged("B", status="fail", evidence=evidence)])
    assert github.workflow_commands(decision) == (
        "::error file=src/a%2Cb.py,line=3,title=B@cpu rule::50%25 bad"
    )


def test_the_summary_of_a_leg_says_what_was_not_judged():
    spec = parse(TWO_LEGS)
    decision = decide(spec, [report(spec)], devices=["cpu"], source=SOURCE)
    shown = markdown_of(decision).replace(ZERO_WIDTH, "")
    assert "\nNot judged here: A@cuda, C@cuda\n" in shown


def test_the_summary_of_chosen_criteria_claims_no_pass():
    spec = parse(TWO_LEGS)
    leg = report(spec, verdicts=[judged("A")])
    decision = decide(spec, [leg], devices=["cpu"], only=["A"], source=SOURCE)
    assert markdown_of(decision).startswith("## GATE NOT EVALUATED — not a pass\n")


def test_there_are_never_more_than_ten_annotations():
    failures = [Failure(f"t{n}", "failed", "m", path="t.py", line=n) for n in range(1, 40)]
    evidence = Evidence(failures=failures)
    decision = decision_of(
        [judged("A", status="fail", evidence=evidence), judged("B", status="blocked")]
    )
    lines = github.workflow_commands(decision).split("\n")
    assert len(lines) == 10
    assert lines[-1] == "::error title=tiergate::and 30 more"


def test_ten_annotations_lose_none():
    failures = [Failure(f"t{n}", "failed", "m", path="t.py", line=n) for n in range(1, 11)]
    decision = decision_of(
        [
            judged("A", status="fail", evidence=Evidence(failures=failures)),
            judged("B", status="blocked"),
        ]
    )
    lines = github.workflow_commands(decision).split("\n")
    assert len(lines) == 10
    assert lines[-1].endswith("t10%0Am")


def commands(shown: str) -> None:
    """Each line is one annotation of ours."""
    lines = shown.split("\n")
    assert 1 <= len(lines) <= 10
    assert not FORBIDDEN & set(shown)
    for line in lines:
        assert re.fullmatch(r"::error( file=[^,:]*,line=\d+,)? ?title=[^,:]*::.*", line), line[:200]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_no_workflow_command(text):
    commands(github.workflow_commands(decision_of([hostile(text), judged("B", status="blocked")])))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_no_workflow_command(text):
    decision = decision_of([hostile(text)], interruption=text, complete=False)
    commands(github.workflow_commands(decision))


def test_the_summary_stays_below_what_github_takes():
    rows = "".join(f"  - {{id: A{n}, uses: command, with: {{run: [a]}}}}\n" for n in range(1500))
    spec = parse(gate(rows))
    long = "&😀" * 1_000
    verdicts = [
        judged(c.id, status="fail", summary=long, evidence=hostile(long).evidence)
        for c in spec.criteria
    ]
    shown = markdown_of(decide(spec, [report(spec, verdicts=verdicts)], unreadable=[long] * 50))
    assert len(shown.encode()) < 1024 * 1024
    assert shown.startswith("## T GATE FAILED")
    assert shown.endswith("\nThe rest is in the report artifact.\n")
