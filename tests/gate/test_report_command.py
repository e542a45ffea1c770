"""``tiergate report``: a file of reports becomes a file of another format."""

import json

import pytest
from builders import TWO_LEGS, all_legs, parse, report

from tiergate import cli, history, verdict
from tiergate.history import CellRecord, RunRecord


@pytest.fixture
def reports(tmp_path):
    """A repository with a spec, and the reports of both of its legs."""
    (tmp_path / "gate.yaml").write_bytes(TWO_LEGS)
    for leg in all_legs(parse(TWO_LEGS), {"A@cuda": "fail", "B@cpu": "fail"}):
        verdict.write(leg, tmp_path / "reports" / leg.device)
    return tmp_path / "reports"


def badge(capsysbinary, *words) -> dict:
    assert cli.run(["report", "--to", "badge", *map(str, words)]) == 0
    return json.loads(capsysbinary.readouterr().out)


def test_all_legs_together_give_one_decision(reports, capsysbinary):
    shown = badge(capsysbinary, "--repo", reports.parent, reports)
    assert shown["message"] == "failed"


def test_one_leg_alone_does_not_speak_for_the_others(reports, capsysbinary):
    leg = reports / "cpu" / "report.json"
    shown = badge(capsysbinary, "--repo", reports.parent, leg)
    assert shown["message"] == "failed (2 of 4 cells)"


def test_a_leg_that_was_asked_for_and_has_no_report_is_missed(reports, capsysbinary):
    verdict.write(report(parse(TWO_LEGS)), reports / "cpu")
    words = ["--repo", reports.parent, "--device", "cpu", "--device", "cuda", reports / "cpu"]
    assert badge(capsysbinary, *words)["message"] == "not evaluated"


def test_the_reports_of_chosen_criteria_decide_no_tier(reports, capsysbinary):
    spec = parse(TWO_LEGS)
    leg = report(spec, verdicts=[verdict.Verdict("A", "cpu", "pass", "")], selected=["A@cpu"])
    verdict.write(leg, reports / "cpu")
    shown = badge(capsysbinary, "--repo", reports.parent, reports / "cpu")
    assert (shown["label"], shown["color"]) == ("gate", "yellow")


def test_the_file_is_written_whole_and_its_folder_made(reports, tmp_path, capsysbinary):
    target = tmp_path / "new" / "junit.xml"
    words = ["report", "--to", "junit", "--repo", str(reports.parent), "-o", str(target)]
    assert cli.run([*words, str(reports)]) == 0
    assert target.read_text(encoding="utf-8").startswith("<?xml")
    assert capsysbinary.readouterr().out == b""
    assert [p.name for p in target.parent.iterdir()] == ["junit.xml"]


def test_a_report_of_another_spec_is_shown_as_such(reports, capsysbinary):
    (reports.parent / "gate.yaml").write_bytes(TWO_LEGS + b"# other\n")
    assert cli.run(["report", "--to", "text", "--repo", str(reports.parent), str(reports)]) == 0
    assert b"made from another spec" in capsysbinary.readouterr().out


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_report_that_cannot_be_read_is_no_pass(reports, capsysbinary, content):
    for leg in all_legs(parse(TWO_LEGS)):
        verdict.write(leg, reports / leg.device)
    assert badge(capsysbinary, "--repo", reports.parent, reports)["message"] == "passed"
    (reports / "cpu" / "report.json").write_bytes(content)
    assert badge(capsysbinary, "--repo", reports.parent, reports)["message"] == "not evaluated"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--to", "nothing"], 2, "Invalid value for '--to'"),
        (["--to", "text", "."], 2, "no report.json there"),
        (["--to", "text", "--spec", "none.yaml", "reports"], 2, "none.yaml"),
        (["--to", "text", "-o", "gate.yaml/x", "reports"], 3, "-o gate.yaml/x: cannot write it"),
    ],
    ids=["format", "nothing there", "no spec", "no file"],
)
def test_a_mistake_is_said_in_one_line(reports, tmp_path, monkeypatch, capsys, words, code, said):
    if "." in words:
        empty = tmp_path / "empty"
        empty.mkdir()
        (empty / "gate.yaml").write_bytes(TWO_LEGS)
        monkeypatch.chdir(empty)
    else:
        monkeypatch.chdir(reports.parent)
    assert cli.run(["report", *words]) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_only_the_page_shows_earlier_runs_and_only_where_there_are_some(
    reports, tmp_path, capsysbinary, monkeypatch
):
    monkeypatch.setenv("CI", "true")  # no history of this machine's own
    cells = {"A@cpu": CellRecord("pass", 1.5)}
    run = RunRecord(1, "2026-11-25T10:00:00", "cpu", "c" * 40, "", cells)
    (tmp_path / "history.json").write_bytes(history.encode([run]))
    given = ["--history", str(tmp_path / "history.json")]

    def shown(name, *words):
        assert cli.run(["report", "--to", name, "--repo", str(reports.parent), *words]) == 0
        return capsysbinary.readouterr().out.decode()

    assert "1 pass; the latest pass" in shown("html", *given, str(reports))
    assert "Earlier runs" not in shown("html", str(reports))
    assert "1 pass; the latest" not in shown("markdown", *given, str(reports))
