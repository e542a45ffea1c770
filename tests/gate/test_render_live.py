"""What a person at a terminal sees while cells are judged."""

import io
import json
import os
import pty
import select
import sys
import time

import pytest
from builders import (
    FORBIDDEN,
    HOSTILE,
    ROOT,
    decision_of,
    failed_decision,
    hostile,
    judged,
)
from samples import Sample

from tiergate.render.text import Text
from tiergate.verdict import Evidence, Failure


def drawn(width: int = 80, height: int = 24, cells: int = 3):
    """Return a live table that is drawn into text, and a function that gives the text."""
    from rich.console import Console

    from tiergate.render.live import LiveTable

    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    table = LiveTable([f"C{n}@cpu" for n in range(cells)], console)

    def text() -> list[str]:
        with console.capture() as captured:
            console.print(table.draw())
        return captured.get().splitlines()

    return table, text


def test_a_cell_shows_its_tests_and_the_one_that_runs():
    table, text = drawn()
    assert text()[0].split() == ["·", "waits", "C0@cpu"]
    table.started("C0@cpu")
    table.expected("C0@cpu", 11)
    for test in ("a", "b", "c[x::y]"):
        table.progress("C0@cpu", f"tests/t.py::TestT::test_{test}")
    line = text()[0]
    assert line.startswith("→ runs")
    assert "3/11 test_c[x::y]  tests/t.py::TestT" in line
    table.finished(judged("C0", status="fail", summary="2 passed, 1 failed"))
    assert text()[0].startswith("✗ fail")
    assert text()[0].rstrip().endswith("2 passed, 1 failed")
    assert text()[-1].split() == ["1", "of", "3", "cells"]


@pytest.mark.parametrize("text_of", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_draw_nothing_and_every_cell_keeps_its_line(text_of):
    table, text = drawn()
    table.started("C0@cpu")
    table.progress("C0@cpu", text_of)
    table.finished(judged("C1", status="error", summary=text_of))
    lines = text()
    assert len(lines) == 4
    assert not FORBIDDEN & set("".join(lines))


def test_what_runs_and_what_is_red_stays_when_there_is_no_room():
    table, text = drawn(height=9, cells=50)
    for number in range(40):
        table.started(f"C{number}@cpu")
        status = "fail" if number == 17 else "pass"
        table.finished(judged(f"C{number}", status=status))
    table.started("C44@cpu")
    lines = text()
    assert len(lines) == 6
    assert any("C17@cpu" in line for line in lines)
    assert any("C44@cpu" in line for line in lines)
    assert "40 of 50 cells, 45 not shown" in lines[-1]


def test_places_are_links_whatever_their_names(tmp_path):
    text = Text(colour=True, width=100, links=tmp_path)
    shown = text.decision(failed_decision())
    address = (tmp_path / "tests/a.py").as_uri()
    assert f"\033]8;;{address}\033\\tests/a.py:7\033]8;;\033\\" in shown


@pytest.mark.parametrize("text_of", HOSTILE, ids=range(len(HOSTILE)))
def test_no_hostile_name_becomes_another_link(tmp_path, text_of):
    decision = decision_of([hostile(text_of), judged("B", status="blocked")])
    shown = Text(colour=False, width=100, links=tmp_path).decision(decision)
    for link in shown.split("\033]8;;")[1::2]:
        assert link.split("\033\\")[0].startswith(tmp_path.as_uri())


def test_verbose_leaves_nothing_out_and_brief_keeps_the_decision():
    failures = [Failure(f"t.py::t{n}", "failed", "m", f"trace {n}\n" * 9) for n in range(30)]
    evidence = Evidence(failures=failures)
    decision = decision_of(
        [judged("A", status="fail", evidence=evidence), judged("B", status="blocked")]
    )
    short = Text(colour=False, width=100).decision(decision)
    long = Text(colour=False, width=100, verbose=True).decision(decision)
    assert "… and 20 more" in short
    assert "more" not in long
    assert long.count("trace 29") == 9
    brief = Text(colour=False, width=100).brief(decision)
    assert brief.startswith("✗ fail     A@cpu")
    assert brief.endswith("TIER 0 GATE FAILED — fix before proceeding")
    assert "t.py" not in brief


def at_a_terminal(sample: Sample, *words: str, **variables: str) -> str:
    """Return what ``tiergate run`` writes to a terminal of 80 columns."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(sample.root)
        environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        environment["PYTHONPATH"] = str(ROOT / "scripts")
        command = [sys.executable, "-m", "tiergate", "run", "--python", str(sample.python), *words]
        os.execve(sys.executable, command, {**environment, **variables})
    seen = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(terminal)
    os.waitpid(process, 0)
    return seen.decode(errors="replace")


def test_a_terminal_shows_the_live_table_and_then_the_decision(sample: Sample):
    shown = at_a_terminal(sample)
    assert "of 1 cells" in shown
    assert "\033[1;32m" in shown
    assert "GATE PASSED" in shown.rsplit("of 1 cells", 1)[1]


@pytest.mark.parametrize(
    ("words", "variables"), [((), {"NO_COLOR": "1"}), (("--format", "plain"), {})]
)
def test_plain_is_plain_at_a_terminal_too(sample: Sample, words, variables):
    shown = at_a_terminal(sample, *words, **variables)
    assert "GATE PASSED" in shown
    assert "\033" not in shown


def test_quiet_prints_the_decision_alone(sample: Sample):
    done = sample.run("--quiet")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert "GATE PASSED" in line
    assert json.loads((sample.root / ".tiergate" / "report.json").read_text())["complete"]
