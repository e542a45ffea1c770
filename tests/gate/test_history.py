"""The history of runs: it balances and is shown, and never decides or fails anything."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import msgspec
import pytest
from github.server import TOKEN, Answer, GitHub, serving, workflow_run
from samples import PASSES, Sample

from tiergate import cli, history, history_report
from tiergate.history import CellRecord, RunRecord
from tiergate.history_store import Database
from tiergate.verdict import Run


def run(number: int, **changes: object) -> RunRecord:
    tests = {"t.py::a": ("passed", 0.5), "t.py::b": ("passed", float(number))}
    cell = CellRecord("pass", 2.0 + number, {"t.py": 1.0 + number}, tests)
    record = RunRecord(
        schema_version=history.SCHEMA_VERSION,
        started=f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000+00:00",
        device="cpu",
        commit="c" * 40,
        tree="7" * 64,
        cells={"suite@cpu": cell},
    )
    return msgspec.structs.replace(record, **changes)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def database(tmp_path: Path, said: list[str]) -> Database:
    return Database(tmp_path / "cache" / "h.sqlite", said.append)


def test_what_was_added_is_there_the_oldest_first(database: Database, said: list[str]) -> None:
    assert database.runs() == []
    database.add([run(2)])
    database.add([run(1), run(2)])
    assert database.runs() == [run(1), run(2)]
    assert said == []


def test_the_oldest_runs_go_where_they_are_too_many(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiergate.history_store.KEPT_RUNS", 3)
    for number in range(5):
        database.add([run(number), run(number, device="cuda")])
    assert [r.started[17:19] for r in database.runs() if r.device == "cpu"] == ["02", "03", "04"]
    assert len(database.runs()) == 6


def test_the_oldest_runs_go_where_they_are_too_large_but_never_the_last(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(history.packed(run(1)))
    monkeypatch.setattr("tiergate.history_store.KEPT_BYTES", size * 2 + size // 2)
    database.add([run(number) for number in range(1, 6)])
    assert database.runs() == [run(4), run(5)]
    monkeypatch.setattr("tiergate.history_store.KEPT_BYTES", 1)
    database.add([run(6)])
    assert database.runs() == [run(6)]


@pytest.mark.parametrize(
    "damage", [b"not a database, but quite long" * 50, b"SQLite format 3\0" * 99]
)
def test_a_damaged_history_is_started_afresh_and_says_so(
    tmp_path: Path, database: Database, said: list[str], damage: bytes
) -> None:
    file = tmp_path / "cache" / "h.sqlite"
    file.parent.mkdir()
    file.write_bytes(damage)
    database.add([run(1)])
    assert database.runs() == [run(1)]
    assert len(said) == 1
    assert "was damaged" in said[0]
    assert "started afresh" in said[0]


def test_a_damaged_record_is_started_afresh(
    tmp_path: Path, database: Database, said: list[str]
) -> None:
    database.add([run(1)])
    connection = sqlite3.connect(tmp_path / "cache" / "h.sqlite")
    with connection:
        connection.execute("UPDATE runs SET record = x'00'")
    connection.close()
    assert database.runs() == []
    assert "was damaged" in said[0]


def test_a_folder_that_cannot_be_written_is_said_and_fails_nothing(
    tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    Database(tmp_path / "file" / "h.sqlite", said.append).add([run(1)])
    assert "this run is not in it" in said[0]


def test_concurrent_runs_all_end_up_in_it(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "h.sqlite"
    threads = [
        threading.Thread(target=lambda n=n: Database(path, said.append).add([run(n)]))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == []
    assert Database(path, said.append).runs() == [run(number) for number in range(8)]


def test_one_file_holds_all_and_what_is_unreadable_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_bytes(history.encode([run(2), run(1), run(2)]))
    (tmp_path / "leg").mkdir()
    (tmp_path / "leg/timings.json").write_bytes(msgspec.json.encode(run(3)))
    runs, problems = history.read_files([tmp_path])
    assert runs == [run(1), run(2), run(3)]
    assert problems == []
    for text, says in [
        ("{", "not a readable history"),
        ('{"schema_version": 9}', "of schema version 9"),
        ('{"schema_version": 1, "kind": "tiergate-history", "runs": 7}', "not a readable history"),
    ]:
        (tmp_path / "bad.json").write_text(text)
        runs, problems = history.read_files([tmp_path / "bad.json", tmp_path / "none.json"])
        assert runs == []
        assert says in problems[0]
        assert "No such file" in problems[1]


def test_no_more_runs_are_exported_than_are_kept() -> None:
    runs = [run(number) for number in range(history.KEPT_RUNS + 5)]
    assert history.kept(runs) == runs[5:]


def test_what_is_expected_is_the_median_of_the_latest_runs() -> None:
    known = history.durations([run(number) for number in (1, 2, 30, 40, 50, 3, 4)])
    # The latest by their start: 3, 4, 30, 40, 50.
    assert known.cells == {"suite@cpu": 32.0}
    assert known.files == {"suite@cpu": {"t.py": 31.0}}
    assert known.overhead("suite@cpu") == 1.0
    assert known.of_files("suite@cpu", ["t.py", "new.py"])["new.py"] == 31.0


def test_the_shards_of_a_run_are_one_run() -> None:
    def shard(name: str, file: str) -> RunRecord:
        cell = CellRecord("part", 3.0, {file: 2.0})
        return run(1, shard=name, run=Run("7", 1), cells={"suite@cpu": cell})

    known = history.durations([shard("1/2", "a.py"), shard("2/2", "b.py")])
    assert known.cells == {"suite@cpu": 5.0}
    assert known.files == {"suite@cpu": {"a.py": 2.0, "b.py": 2.0}}
    assert known.overhead("suite@cpu") == 1.0


def test_a_test_is_flaky_where_one_state_saw_it_pass_and_fail() -> None:
    failed = CellRecord("fail", 1.0, {}, {"t.py::a": ("failed", 0.5), "t.py::c": ("flaky", 0.1)})
    other = run(
        3,
        tree="8" * 64,
        cells={"suite@cpu": CellRecord("fail", 1.0, {}, {"t.py::b": ("failed", 1)})},
    )
    report = history_report.make([run(1), run(2, cells={"suite@cpu": failed}), other], 10)
    assert [(test.test, test.outcomes) for test in report.flaky] == [
        ("t.py::a", {"passed": 1, "failed": 1}),
        ("t.py::c", {"flaky": 1}),
    ]
    assert report.slowest[0].test == "t.py::b"


@pytest.mark.parametrize("name", ["CI", "GITHUB_ACTIONS"])
def test_in_ci_nothing_of_the_machine_is_read_or_kept(tmp_path: Path, name: str) -> None:
    assert history.database(tmp_path, {name: "true", "HOME": "/home/a"}) is None
    assert history.database(tmp_path, {"HOME": "relative"}) is None
    kept = history.database(tmp_path, {"HOME": "/home/a"})
    assert kept is not None
    assert kept.is_relative_to("/home/a/.cache/tiergate/history")


def test_runs_are_recorded_and_shown_and_exported(sample: Sample, tmp_path: Path) -> None:
    sample.gate(PASSES)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for _ in range(2):
        assert sample.run("--no-cache", **cache).returncode == 0
    exported = tmp_path / "history.json"
    shown = sample.tiergate("history", "--format", "json", "--export", str(exported), **cache)
    report = json.loads(shown.stdout)
    assert report["runs"] == 2
    assert report["cells"][0]["cell"] == "prices@cpu"
    assert report["cells"][0]["statuses"] == ["pass", "pass"]
    assert {test["test"] for test in report["slowest"]} == {
        "tests/test_prices.py::test_total",
        "tests/test_prices.py::test_nothing_costs_nothing",
    }
    text = sample.tiergate("history", "--history", str(exported), CI="1")
    assert text.returncode == 0
    assert "prices@cpu" in text.stdout
    assert sample.tiergate("history", CI="1").stdout == "no run is recorded here\n"

    (database,) = (tmp_path / "cache/tiergate/history").iterdir()
    database.write_bytes(b"?" * 4096)
    damaged = sample.run("--no-cache", **cache)
    assert damaged.returncode == 0
    assert damaged.stderr.count("started afresh") == 1


def test_what_the_cache_answers_is_no_measurement(sample: Sample, tmp_path: Path) -> None:
    sample.gate(PASSES)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for cached in (False, True):
        assert sample.run("--cache", **cache).returncode == 0
        (found,) = sample.report().verdicts
        assert (found.cached is not None) is cached
    (database,) = (tmp_path / "cache/tiergate/history").iterdir()
    (recorded,) = Database(database, pytest.fail).runs()
    assert list(recorded.cells) == ["prices@cpu"]


@pytest.mark.parametrize(
    ("variables", "code", "sentence"),
    [
        ({"GITHUB_RUN_ID": "1"}, 2, "write it OWNER/REPO"),
        ({"GITHUB_REPOSITORY": "octo/transformer"}, 2, "needs a branch, and GITHUB_RUN_ID"),
        (
            {"GITHUB_RUN_ID": "1", "GITHUB_REPOSITORY": "octo/transformer"},
            0,
            "no run of this workflow succeeded for a push to main: there is no history yet",
        ),
        (
            {"GITHUB_RUN_ID": "2", "GITHUB_REPOSITORY": "octo/transformer"},
            2,
            "there is no such thing, or the token may not see it",
        ),
    ],
)
def test_a_run_that_cannot_be_found_is_told(
    variables: dict[str, str],
    code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("GITHUB_RUN_ID", "GITHUB_REPOSITORY", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "GITHUB_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    runs = [workflow_run(7, "pull_request", "main", "success")]
    absent = {"GET .*/actions/runs/2": Answer(404, b'{"message": "Not Found"}')}
    with serving(GitHub(runs=runs, instead=absent)) as github:
        monkeypatch.setenv("GITHUB_API_URL", github.url)
        assert cli.run(["history", "--find-run", "main"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
