"""What a person reads in a terminal."""

import re
import shlex

import pytest
from builders import (
    FORBIDDEN,
    HOSTILE,
    SOURCE,
    TWO_LEGS,
    all_legs,
    decision_of,
    failed_decision,
    hostile,
    judged,
    parse,
    report,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.decide import decide
from tiergate.render import fold
from tiergate.render.text import Text, one_line, printable, remedy_rows
from tiergate.verdict import Evidence, Failure, Finding

PLAIN = Text(colour=False, width=80)
FOLDED = Text(colour=False, width=80, folded=True)

FAILED = """\
criterion  device  verdict  seconds  observed
────────────────────────────────────────────────────────────────────────────────
A          cpu     fail         2.5  2 passed, 1 failed; passed: expected 3, …
B          cpu     blocked      0.0  needs A@cpu, which did not pass
A          cuda    missing           no verdict
C          cuda    missing           no verdict

── A@cpu: fail ─────────────────────────────────────────────────────────────────
  expected  passed: 3, failed: 0
  observed  passed: 2, failed: 1
  failed: tests/a.py::test_x  tests/a.py:7
      assert 1 == 2
  run       tiergate run --only A --device cpu
  run       python -m pytest tests/a.py
  task      1
  owner     ml
  hint      look at a
  files     src/a.py

! A@cuda: no verdict: the cuda leg has no report
! C@cuda: no verdict: the cuda leg has no report

TIER 0 GATE FAILED — fix before proceeding"""

PASSED = """\
criterion  device  verdict  seconds  observed
────────────────────────────────────────────────────────────────────────────────
A          cpu     pass         1.5  pass it is
B          cpu     pass         1.5  pass it is

not judged here: A@cuda, C@cuda
TIER 0 GATE PASSED — proceed to TIER 1"""


def test_a_failed_decision_reads_from_the_table_to_the_sentence():
    assert PLAIN.decision(failed_decision()) == FAILED


def test_what_holds_and_an_observation_in_words_are_said():
    of = parse(TWO_LEGS.replace(b"id: A", b"id: A\n    name: a is right"))
    verdict = judged("A", status="fail", summary="the script says so")
    shown = PLAIN.decision(decide(of, [report(of, verdicts=[verdict])], source=SOURCE))
    assert "\n  holds if  a is right\n  the script says so\n" in shown


def test_long_lines_are_folded_below_where_they_begin():
    evidence = Evidence(
        failures=[Failure("t", "failed", "m")],
        notes=["a note of many words " * 8],
        reproduce=["X=1 python -m pytest " + "--option 'two words' " * 8 + "end"],
    )
    verdict = judged("A", status="error", summary="why it ended " * 9, evidence=evidence)
    shown = FOLDED.decision(decision_of([verdict]))
    assert max(map(len, shown.split("\n"))) == 80
    assert re.search(r"\n  note      a note of [^\n]*\n            \w", shown)
    assert " 'two words' \\\n              --option " in shown
    line = FOLDED.verdict_line(verdict)
    assert len(line) <= 80
    assert line.endswith("…")
    whole = PLAIN.decision(decision_of([verdict]))
    assert f"\n  run       {evidence.reproduce[0]}\n" in whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(min_codepoint=32), max_size=12), max_size=12))
def test_a_folded_command_stays_the_same_command(words):
    line = shlex.join(words)
    folded = "\n".join(fold.command("", line, 40))
    assert shlex.split(folded.replace("\\\n", "")) == words


def test_a_passed_decision_says_what_it_leaves_out():
    spec = parse(TWO_LEGS)
    decision = decide(spec, [report(spec)], devices=["cpu"], source=SOURCE)
    assert PLAIN.decision(decision) == PASSED


def test_a_choice_of_criteria_never_prints_the_sentence_of_the_gate():
    spec = parse(TWO_LEGS)
    leg = report(spec, verdicts=[judged("A")])
    decision = decide(spec, [leg], devices=["cpu"], only=["A"], source=SOURCE)
    shown = PLAIN.selection(decision, 1)
    assert shown.endswith("1 of 4 cells judged: passed. This is no decision on the gate.")
    assert "GATE PASSED" not in shown
    assert "GATE PASSED" not in PLAIN.decision(decision)


def test_the_line_of_progress_has_mark_cell_time_and_what_was_observed():
    verdict = judged("A", status="fail", summary="3 failed\nmore", seconds=12.34)
    assert PLAIN.verdict_line(verdict, 8) == "✗ fail     A@cpu      12.3 s  3 failed"


def test_colour_is_written_only_where_it_is_wanted():
    assert "\033[" not in PLAIN.decision(failed_decision())
    coloured = Text(colour=True, width=80).decision(failed_decision())
    assert "\033[1;31mTIER 0 GATE FAILED — fix before proceeding\033[0m" in coloured
    for code in ("1;31", "1", "31", "33"):
        coloured = coloured.replace(f"\033[{code}m", "")
    assert coloured.replace("\033[0m", "") == FAILED


def test_evidence_is_shown_as_far_as_a_person_reads():
    evidence = Evidence(
        failures=[Failure(f"t{n}", "failed", "m" if n < 3 else f"m{n}") for n in range(13)],
        findings=[Finding("r", f"f{n}.py", n, 2, "why it matters", "code") for n in range(1, 24)],
        notes=["noted"],
        running="t.py::hangs",
    )
    shown = PLAIN.decision(decision_of([judged("A", status="error", evidence=evidence)]))
    assert "  failed: t0\n      m\n  failed: t1\n      the same\n  failed: t2\n" in shown
    assert "  failed: t3\n      m3\n" in shown
    assert "  … and 3 more\n" in shown
    assert "  … and 3 more findings\n" in shown
    assert "  f20.py:20:2: r\n      code\n" in shown
    assert "f21.py" not in shown
    assert shown.count("why it matters") == 1
    assert "  note      noted\n" in shown
    assert "  running   t.py::hangs\n" in shown


def test_the_end_of_the_output_is_shown_where_nothing_else_explains():
    output = "\n".join(f"line {n}" for n in range(30))
    shown = PLAIN.decision(
        decision_of([judged("A", status="error", evidence=Evidence(output=output))])
    )
    assert "    line 16\n" in shown
    assert "    line 29\n" in shown
    assert "line 15" not in shown


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text(text):
    decision = decision_of([hostile(text), judged("B", status="blocked", summary=text)])
    for shown in (PLAIN.decision(decision), FOLDED.decision(decision)):
        assert not FORBIDDEN & set(shown)
        sentences = [line for line in shown.split("\n") if line.startswith("TIER 0 GATE")]
        assert sentences == ["TIER 0 GATE FAILED — fix before proceeding"]
    assert not FORBIDDEN & set(PLAIN.verdict_line(hostile(text)))
    assert "\n" not in PLAIN.verdict_line(hostile(text))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_stays_text(text):
    decision = decision_of([hostile(text)], interruption=text, complete=False)
    for shown in (
        PLAIN.decision(decision),
        PLAIN.selection(decision, 1),
        FOLDED.decision(decision),
    ):
        assert not FORBIDDEN & set(shown)
        assert not any(line.startswith("TIER 0 GATE PASSED") for line in shown.split("\n"))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_printable_text_holds_no_control_and_is_left_alone_the_second_time(text):
    shown = printable(text)
    assert not FORBIDDEN & set(shown)
    assert printable(shown) == shown
    assert "\n" not in one_line(text)
    shown.encode()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
@settings(max_examples=50, deadline=None)
def test_plain_text_is_left_as_it_is(text):
    assert printable(text) == one_line(text) == text


def test_only_what_a_remedy_says_is_listed():
    assert remedy_rows(parse(TWO_LEGS).criterion("B").remedy) == [
        ("task", "2"),
        ("owner", "security"),
    ]


def test_a_decision_without_tiers_is_no_pass():
    decision = decide(parse(TWO_LEGS), all_legs(parse(TWO_LEGS)), devices=[])
    assert PLAIN.decision(decision).endswith("GATE NOT EVALUATED — not a pass")
