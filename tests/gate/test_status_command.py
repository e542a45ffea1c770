"""``tiergate status`` tells what was recorded, and nothing else."""

from __future__ import annotations

import json
from datetime import date

import msgspec
import pytest
from builders import TWO_LEGS, TWO_TIERS, all_legs, parse, report
from github.server import TOKEN, Answer, GitHub, serving
from samples import PASSES, Sample

from tiergate import history, progress, verdict
from tiergate.cli import run
from tiergate.progress import Sighting
from tiergate.render import progress as render

TODAY = date(2026, 1, 10)
WAIVED = TWO_LEGS + b"waivers:\n  - {criterion: B, reason: r, owner: o, expires: '2026-01-20'}\n"


def found(spec_text=TWO_LEGS, statuses=None, legs=None, **more):
    of = parse(spec_text)
    reports = all_legs(of, statuses) if legs is None else legs
    return progress.progress(of, reports, today=TODAY, **more)


def states(of: progress.Progress) -> dict[str, str]:
    return {f"{cell.criterion}@{cell.device}": cell.state for cell in of.cells}


def at(when: str, commit: str, status: str = "pass", **changes):
    """Return a CPU report of the two legs' spec on a day of January."""
    source = verdict.Source(commit=commit * 40, tree="7" * 64, **changes)
    return report(
        parse(TWO_LEGS),
        "cpu",
        {"A": status},
        started=f"2026-01-{when}T00:00:00+00:00",
        source=source,
    )


def since(*reports, earlier=()) -> str:
    of = found(legs=list(reports), earlier=earlier)
    return next(cell.since for cell in of.cells if cell.criterion == "A")[:1]


def test_a_tier_is_complete_when_every_cell_holds_and_unlocks_the_next():
    of = found()
    assert [render.tier_line(tier) for tier in of.tiers] == ["TIER 0 complete → TIER 1"]
    assert set(states(of).values()) == {"holds"}
    assert of.tasks == []


def test_a_leg_without_a_report_is_unknown_and_the_tier_not_complete():
    of = found(legs=all_legs(parse(TWO_LEGS))[:1])
    assert states(of) == {
        "A@cpu": "holds",
        "B@cpu": "holds",
        "A@cuda": "unknown",
        "C@cuda": "unknown",
    }
    assert render.tier_line(of.tiers[0]) == "TIER 0: 2 of 4 hold"


def test_a_report_of_another_spec_says_nothing():
    of = found(legs=all_legs(parse(TWO_LEGS + b"# other\n")))
    assert set(states(of).values()) == {"unknown"}
    assert "made from another spec" in of.notes[0]


def test_a_higher_tier_is_not_complete_before_the_lower_one():
    of = found(TWO_TIERS, {"A@cpu": "fail"})
    assert [(tier.gate, tier.complete) for tier in of.tiers] == [
        ("TIER 0", False),
        ("TIER 1", False),
    ]


def test_open_tasks_come_in_their_order_with_their_owners():
    of = found(statuses={"A@cpu": "fail", "B@cpu": "blocked"})
    assert [(t.wave, t.task, t.owner) for t in of.tasks] == [
        (1, "1", "ml"),
        (2, "2", "security"),
        (3, "9", "qa"),
    ]


@pytest.mark.parametrize(
    ("expires", "state", "until"),
    [("2026-01-20", "waived", "2026-01-20"), ("2026-01-09", "does not hold", "")],
)
def test_a_waiver_counts_until_its_day(expires, state, until):
    text = WAIVED.replace(b"2026-01-20", expires.encode())
    of = found(text, {"B@cpu": "waived"})
    (cell,) = [cell for cell in of.cells if cell.criterion == "B"]
    assert (cell.state, cell.waived_until) == (state, until)


def test_since_is_the_first_of_an_unbroken_row():
    assert since(at("01", "a"), at("02", "b"), at("03", "c")) == "a"
    assert since(at("03", "c"), at("01", "a"), at("02", "b", "fail")) == "c"
    assert since(at("01", "a"), at("02", "b", "error")) == ""


def test_since_is_unknown_where_no_commit_was_judged():
    assert since(at("01", "a", dirty=True)) == ""


def test_what_was_known_before_stays_until_it_fails():
    known = [Sighting("A@cpu", "", "f" * 40, passed=True)]
    assert since(at("02", "b"), earlier=known) == "f"
    assert since(at("02", "b", "fail"), at("03", "c"), earlier=known) == "c"


def test_the_table_is_read_back_as_it_was_written():
    table = render.between_markers("", render.markdown(found()), "x")
    assert {s.cell: s.commit for s in render.recorded(table)} == dict.fromkeys(
        ("A@cpu", "B@cpu", "A@cuda", "C@cuda"), "c" * 12
    )


@pytest.mark.parametrize(
    "document",
    [
        "no markers\n",
        f"{render.BEGIN}\n",
        f"{render.END}\n{render.BEGIN}\n",
        f"{render.BEGIN}{render.BEGIN}{render.END}",
    ],
)
def test_a_file_without_the_two_markers_is_not_touched(document, sample: Sample, tmp_path, capsys):
    target = tmp_path / "STATUS.md"
    target.write_text(document)
    assert run(["status", "--repo", str(sample.root), "--write", str(target)]) == 2
    assert target.read_text() == document


def test_a_run_is_tracked_in_a_file_across_commits(sample: Sample, capsys, tmp_path):
    words = ["status", "--repo", str(sample.root), "--write", str(sample.root / "README.md")]
    sample.write("README.md", f"# Shop\n\n{render.BEGIN}\n{render.END}\n\nThe end.\n")
    sample.commit()
    first = sample.git("rev-parse", "--short=12", "HEAD").strip()
    arguments = ["run", "--repo", str(sample.root), "--python", str(sample.python)]
    assert run(arguments) == 0
    assert run(words) == 0
    written = (sample.root / "README.md").read_text()
    assert written.startswith("# Shop\n\n<!-- tiergate status: begin -->\n")
    assert written.endswith("<!-- tiergate status: end -->\n\nThe end.\n")
    assert f"| `prices@cpu` | ✓ holds | `{first}` |" in written
    assert "**TIER 0 complete → TIER 1**" in written
    sample.commit()
    second = sample.git("rev-parse", "HEAD").strip()
    assert run(arguments) == 0
    assert run(words) == 0
    # The newer run is of another commit; the row of passes began with the first.
    written = (sample.root / "README.md").read_text()
    assert f"| `prices@cpu` | ✓ holds | `{first}` |" in written
    assert second[:12] in written
    # The spec is older than both.
    root = sample.git("rev-list", "--max-parents=0", "HEAD").strip()
    assert f"| `{root[:12]}` |" in written
    capsys.readouterr()
    assert run([*words[:3], "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["tiers"] == [
        {"gate": "TIER 0", "next": "TIER 1", "complete": True, "holds": 1, "cells": 1}
    ]


def test_a_criterion_that_changed_is_defined_so_since_its_change(sample: Sample, capsys):
    sample.gate({**PASSES, "expect": {"passed": 3}})
    assert run(["status", "--repo", str(sample.root), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["defined_since"] == ""
    sample.commit()
    head = sample.git("rev-parse", "HEAD").strip()
    sample.commit()
    assert run(["status", "--repo", str(sample.root), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["defined_since"] == head


@pytest.mark.parametrize(("run_id", "since"), [("7", "a" * 40), ("", "c" * 40)])
def test_a_history_says_since_when_where_a_workflow_wrote_it(run_id, since, tmp_path, capsys):
    gate = parse(TWO_LEGS)
    (tmp_path / "gate.yaml").write_bytes(TWO_LEGS)
    record = history.RunRecord(
        schema_version=history.SCHEMA_VERSION,
        started="2026-01-01T00:00:00+00:00",
        device="cpu",
        commit="a" * 40,
        tree="7" * 64,
        cells={"A@cpu": history.CellRecord("pass", 1.0)},
        run=verdict.Run(run_id, 1),
    )
    (tmp_path / "history.json").write_bytes(history.encode([record]))
    verdict.write(report(gate, "cpu"), tmp_path / ".tiergate")
    words = ["--history", str(tmp_path / "history.json"), "--format", "json"]
    assert run(["status", "--repo", str(tmp_path), *words]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert next(c["since"] for c in cells if c["criterion"] == "A") == since


@pytest.fixture
def commit(tmp_path, capsys, monkeypatch):
    """Commit the status of a report to a file on GitHub; return exit code and what is said."""
    (tmp_path / "gate.yaml").write_bytes(TWO_LEGS)
    verdict.write(report(parse(TWO_LEGS), "cpu"), tmp_path / ".tiergate")
    monkeypatch.chdir(tmp_path)
    variables = {"GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": "octo/transformer"}
    for name, value in {**variables, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)

    def call(github: GitHub, *words: str) -> tuple[int, str]:
        monkeypatch.setenv("GITHUB_API_URL", github.url)
        code = run(["status", *(words or ("--write", "docs/STATUS.md", "--commit", "main"))])
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
        assert not (tmp_path / "docs").exists()
        return code, said.err

    return call


def test_the_table_is_committed_on_github_where_it_changed(commit):
    with serving(GitHub()) as github:
        assert commit(github) == (0, "docs/STATUS.md: written\n")
        assert github.messages == ["main: Update docs/STATUS.md"]
        assert "| `A@cpu` | ✓ holds |" in github.files["docs/STATUS.md"]
        assert commit(github) == (0, "docs/STATUS.md: up to date\n")
        github.files["docs/STATUS.md"] = f"# Here\n\n{render.BEGIN}\n{render.END}\nThe end.\n"
        assert commit(github) == (0, "docs/STATUS.md: written\n")
        written = github.files["docs/STATUS.md"]
        assert written.startswith("# Here\n")
        assert written.endswith("The end.\n")
        assert github.changes == ["PUT /repos/octo/transformer/contents/docs/STATUS.md"] * 2


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, "'Contents: write' of the repository"),
        (404, "there is no such thing, or the token may not see it"),
        (409, "GitHub refused (409 is at 1, not 2)"),
    ],
)
def test_a_commit_that_github_refuses_is_told(commit, status, sentence):
    with serving(GitHub()) as github:
        github.instead["PUT .*"] = Answer(status, b'{"message": "is at 1, not 2"}')
        code, said = commit(github)
        assert code == 2
        assert sentence in said
        assert github.messages == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--commit", "main"], "--commit needs a branch, and the file that --write names"),
        (["--write", "x", "--commit", ""], "--commit needs a branch"),
        (["--write", "../x", "--commit", "main"], "a path from the repository's root"),
        (["--write", "/x", "--commit", "main"], "a path from the repository's root"),
    ],
)
def test_a_commit_to_nowhere_is_a_mistake(commit, words, complaint):
    with serving(GitHub()) as github:
        code, said = commit(github, *words)
        assert code == 2
        assert complaint in said
        assert github.requests == []


def test_without_a_report_all_is_unknown(sample: Sample, capsys):
    assert run(["status", "--repo", str(sample.root)]) == 0
    shown = capsys.readouterr().out
    assert "as of: unknown" in shown
    assert "? unknown        prices@cpu" in shown
    assert run(["status", "--repo", str(sample.root), "--report", str(sample.root / "src")]) == 2


def test_what_candidates_write_draws_nothing_in_the_table():
    of = found(statuses={"A@cpu": "fail"})
    hostile = "| x |\n# <img src=x> @me `code`"
    cell = msgspec.structs.replace(of.cells[0], owner=hostile, summary=hostile)
    table = render.markdown(msgspec.structs.replace(of, cells=[cell]))
    row = next(line for line in table.splitlines() if line.startswith("| `A@cpu`"))
    assert "<img" not in row
    assert row.replace("\\|", "").count("|") == 7
