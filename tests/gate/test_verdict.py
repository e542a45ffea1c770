"""Reports as JSON: read strictly, written whole."""

import json
import os

import msgspec
import pytest
from builders import TWO_LEGS, judged, parse, report
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate import verdict
from tiergate.errors import ExitCode, NotEvaluatedError
from tiergate.verdict import Evidence, Failure, Finding, ReportError

SPEC = parse(TWO_LEGS)
FULL = judged(
    "A",
    "cuda",
    "fail",
    seconds=1.25,
    evidence=Evidence(
        expected={"passed": "3"},
        observed={"failed": 1},
        failures=[Failure("t.py::a", "failed", "boom", "trace", "t.py", 3)],
        findings=[Finding("rule", "a.py", 1, 2, "message", "code")],
        notes=["note"],
        reproduce=["run"],
        output="out",
        running="t.py::b",
    ),
)


def document(**changes):
    return {**msgspec.to_builtins(report(SPEC)), **changes}


def test_a_report_comes_back_as_it_was_written():
    for made in (report(SPEC, "cuda", verdicts=[FULL]), report(SPEC)):
        assert verdict.decode(verdict.encode(made), "r") == made


def test_a_cell_is_named_by_criterion_and_device():
    assert FULL.cell == "A@cuda"


def test_only_pass_and_waived_can_let_a_gate_pass():
    assert {"pass", "waived"} >= verdict.PASSING
    assert "pass" in verdict.PASSING


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "r: not a readable report: Input data was truncated"),
        (b"[]", "r: not a readable report: Expected `object`, got `array`"),
        (b"{}", "r: not a readable report: Object missing required field `schema_version`"),
        (b"\xff", "r: not a readable report"),
        (b'{"x":' + b"[" * 100_000, "r: not a readable report"),
        (b'{"schema_version": 1}', "r: report of schema version 1; this tiergate reads 2"),
        (verdict.encode(report(SPEC))[:-30], "r: not a readable report"),
        (json.dumps(document(extra=1)), "unknown field `extra`"),
        (json.dumps(document(kind="x")), "Invalid value 'x'"),
        (json.dumps(document(device="tpu")), "Invalid enum value 'tpu'"),
        (json.dumps(document(complete="yes")), "Expected `bool`, got `str`"),
        (json.dumps(document(verdicts=[{}])), "missing required field `criterion`"),
        (json.dumps(document(spec={"path": "a", "digest": "A" * 64})), "regex"),
    ],
)
def test_what_is_no_report_is_refused_with_its_name(data, message):
    with pytest.raises(ReportError) as caught:
        verdict.decode(data if isinstance(data, bytes) else data.encode(), "r")
    assert message in str(caught.value)
    assert str(caught.value).startswith("r: ")
    assert caught.value.exit_code is ExitCode.NOT_EVALUATED


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_report_is_an_error_or_another_report(data):
    encoded = verdict.encode(report(SPEC, "cuda", verdicts=[FULL]))
    at = data.draw(st.integers(0, len(encoded)))
    cut = data.draw(st.integers(0, 40))
    damaged = encoded[:at] + data.draw(st.binary(max_size=5)) + encoded[at + cut :]
    try:
        made = verdict.decode(damaged, "r")
    except ReportError:
        return
    assert verdict.decode(verdict.encode(made), "r") == made


def test_every_truncated_report_is_refused():
    encoded = verdict.encode(report(SPEC)).rstrip()
    for end in range(0, len(encoded), 7):
        with pytest.raises(ReportError):
            verdict.decode(encoded[:end], "r")


def test_text_that_is_no_unicode_is_written_readably():
    name = os.fsdecode(b"tests/\xff.py")
    failure = Failure(id=name, outcome="ignored", path=name)
    made = report(
        SPEC, verdicts=[judged("A", status="fail", evidence=Evidence(failures=[failure]))]
    )
    read = verdict.decode(verdict.encode(made), "r")
    assert read.verdicts[0].evidence.failures[0].path == "tests/\\udcff.py"
    assert read.spec == made.spec


def test_a_report_is_written_whole_and_replaces_the_old_one(tmp_path):
    folder = tmp_path / "new" / "folder"
    path = verdict.write(report(SPEC, complete=False), folder)
    assert verdict.write(report(SPEC), folder) == path
    assert [file.name for file in folder.iterdir()] == ["report.json"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert verdict.read(path) == verdict.read(folder) == report(SPEC)


def test_a_write_that_fails_leaves_the_old_report(tmp_path, monkeypatch):
    path = verdict.write(report(SPEC), tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotEvaluatedError, match="No space left on device; choose a folder"):
        verdict.write(report(SPEC, complete=False), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    assert verdict.read(path).complete


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotEvaluatedError, match="choose a folder with --report"):
        verdict.write(report(SPEC), tmp_path / "file" / "below")


def test_a_report_that_is_missing_is_told(tmp_path):
    with pytest.raises(ReportError, match=r"report\.json: cannot read the report: No such file"):
        verdict.read(tmp_path)
