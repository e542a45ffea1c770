"""The journal's fast way to write metrics says what the other way says."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cross_phase.monitoring import background_calls
from cross_phase.monitoring.background_calls import BackgroundCalls
from cross_phase.monitoring.run_journal import RunJournal, read_journal

NUMBERS = st.floats() | st.integers() | st.booleans() | st.sampled_from([1e308, -1e308, 10**400])


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text() | st.sampled_from(["%", "%r", "{", "nan"]), NUMBERS),
    st.none() | st.integers() | st.booleans(),
)
def test_metrics_are_written_as_any_event_is(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, float], step: int | None
) -> None:
    folder = tmp_path_factory.mktemp("journals")
    fast, slow = RunJournal(folder / "fast.jsonl"), RunJournal(folder / "slow.jsonl")
    for _ in range(2):
        fast.write_metrics(step, metrics)
        slow.write("metrics", step=step, metrics=metrics)
    fast.close()
    slow.close()

    lines = [
        [
            json.dumps({**json.loads(line), "time": 0})
            for line in journal.path.read_text().split("\n")[:-1]
        ]
        for journal in (fast, slow)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 2


def test_more_sets_of_names_than_are_remembered_are_all_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cross_phase.monitoring.run_journal.MAX_TEMPLATES", 3)
    journal = RunJournal(tmp_path / "run.jsonl")
    written = [{f"metric_{number % 5}": float(number)} for number in range(20)]
    for number, metrics in enumerate(written):
        journal.write_metrics(number, metrics)
    journal.close()

    assert [event["metrics"] for event in read_journal(journal.path)] == written


def test_calls_are_gathered_and_a_flush_does_not_wait_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background_calls, "GATHERED", 600.0)
    made: list[int] = []
    calls = BackgroundCalls(lambda error: made.append(-1))
    for number in range(5):
        calls.submit(lambda number=number: made.append(number))
    flushed = threading.Thread(target=calls.flush)
    flushed.start()
    flushed.join(60)

    assert not flushed.is_alive()
    assert made == [0, 1, 2, 3, 4]
    calls.submit(lambda: made.append(5))
    assert calls.close(timeout=60)
    assert made[-1] == 5


def test_many_calls_are_not_left_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_calls, "GATHERED", 600.0)
    monkeypatch.setattr(background_calls, "MANY_WAITING", 20)
    reached = threading.Event()
    calls = BackgroundCalls(lambda error: None)
    for number in range(40):
        calls.submit(reached.set if number == 10 else (lambda: None))

    assert reached.wait(60)
    assert calls.close(timeout=60)
