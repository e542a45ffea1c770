"""WandBIntegration's runs: for real and offline, and when everything goes wrong."""

import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cross_phase.monitoring.background_calls import MAX_WAITING, BackgroundCalls
from cross_phase.monitoring.run_journal import RunJournal, read_journal
from cross_phase.monitoring.wandb_integration import WandBIntegration, sync_offline_runs


class FakeRun:
    """Stands in for ``wandb.Run`` where W&B must fail, or must be watched."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.logged: list[tuple[dict[str, float], int | None]] = []
        self.log_calls = 0
        self.exit_code: int | None = None

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.log_calls += 1
        if self.error is not None:
            raise self.error
        self.logged.append((metrics, step))

    def finish(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("wandb")
    module.run = FakeRun()  # type: ignore[attr-defined]
    module.init_arguments = []  # type: ignore[attr-defined]

    def init(**arguments: Any) -> FakeRun:
        module.init_arguments.append(arguments)
        return module.run  # type: ignore[no-any-return]

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def read_wandb_file(path: Path) -> list[Any]:
    """Read the records of an offline run: LevelDB's log format, of W&B's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    block = 32768
    content = path.read_bytes()
    records, position, pending = [], 7, b""  # after W&B's own header
    while position + 7 <= len(content):
        room = block - position % block
        if room < 7:
            position += room
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        pending += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, last
            records.append(Record.FromString(pending))
            pending = b""
    return records


def history(records: list[Any], name: str) -> list[Any]:
    items = [item for record in records for item in record.history.item]
    return [item for item in items if name in (item.key, *item.nested_key)]


def is_artifact(record: Any) -> bool:
    return bool(record.request.WhichOneof("request_type") == "log_artifact")


def events(integration: WandBIntegration) -> list[dict[str, Any]]:
    assert integration.journal_path is not None
    return [json.loads(line) for line in integration.journal_path.read_text().splitlines()]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.fixture
def real_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    yield wandb
    wandb.teardown()


def test_an_offline_run_leaves_wandb_files_and_a_journal(
    tmp_path: Path, real_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tmp_path / "run.v1"
    checkpoint.mkdir()
    (checkpoint / "weights.txt").write_text("1 2 3")

    with WandBIntegration(directory=tmp_path) as integration:
        run = integration.init_phase_run("phase3", {"lr": 1e-3}, "session-1")
        assert isinstance(run, real_wandb.Run)
        assert run.config["lr"] == 1e-3
        for step in range(3):
            integration.log_metrics({"train_loss": torch.tensor(3.0 - step)}, step=step)
        integration.log_artifact(checkpoint, aliases=["best", "latest"])
        integration.log_artifact(checkpoint / "weights.txt", kind="dataset")

    real_wandb.teardown()  # only now has W&B's own process written everything
    (run_file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = read_wandb_file(run_file)
    logged = [json.loads(item.value_json) for item in history(records, "train_loss")]
    assert logged == [3.0, 2.0, 1.0]
    (run_record,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run_record.display_name, run_record.run_group) == ("session-1-phase3", "session-1")
    assert run_record.run_id == events(integration)[0]["run_id"]
    artifacts = [r.request.log_artifact.artifact for r in records if is_artifact(r)]
    artifacts += [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    assert [(a.name, a.type, sorted(a.aliases)) for a in artifacts] == [
        ("run.v1", "model", ["best", "latest"]),
        ("weights.txt", "dataset", ["latest"]),
    ]
    assert errors(caplog) == []
    assert [event["event"] for event in events(integration)] == [
        "start",
        *["metrics"] * 3,
        *["artifact"] * 2,
        "finish",
    ]


def test_runs_are_named_and_grouped_by_session_and_phase(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration("ours", entity="team", directory=tmp_path)

    assert integration.init_phase_run(2, {"population": 8}, "s1") is fake_wandb.run

    (arguments,) = fake_wandb.init_arguments
    assert arguments.pop("id") == events(integration)[0]["run_id"]
    assert arguments == {
        "project": "ours",
        "entity": "team",
        "mode": "offline",
        "dir": tmp_path,
        "name": "s1-phase2",
        "group": "s1",
        "job_type": "phase2",
        "config": {"population": 8},
    }
    assert integration.journal_path == tmp_path / "ours" / "s1-phase2.jsonl"


def test_metrics_reach_wandb_and_the_journal_as_plain_numbers(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    integration.log_metrics({"a": torch.tensor(2), "b": 0.5, "c": math.nan, "d": -math.inf}, step=7)

    integration.flush()
    ((logged, step),) = fake_wandb.run.logged
    assert step == 7
    assert (logged["a"], logged["b"], logged["d"]) == (2, 0.5, -math.inf)
    assert type(logged["a"]) is int
    line = events(integration)[-1]
    assert line["step"] == 7
    assert line["metrics"] == {"a": 2, "b": 0.5, "c": "NaN", "d": "-Infinity"}


def test_a_failing_wandb_is_logged_once_and_metrics_are_kept(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    fake_wandb.run = run = FakeRun(ConnectionError("quota exceeded"))  # type: ignore[attr-defined]
    integration = WandBIntegration(mode="online", directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    for step in range(5):
        integration.log_metrics({"loss": float(step)}, step=step)
    integration.finish()

    assert run.log_calls == 1
    (message,) = errors(caplog)
    assert str(integration.journal_path) in message
    assert "quota exceeded" in caplog.text
    kept = [event["metrics"]["loss"] for event in events(integration) if "metrics" in event]
    assert kept == [0, 1, 2, 3, 4]


def test_a_run_that_cannot_start_does_not_stop_training(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    def no_key(**arguments: Any) -> None:
        raise RuntimeError("no API key")

    fake_wandb.init = no_key  # type: ignore[attr-defined]
    integration = WandBIntegration(directory=tmp_path)

    assert integration.init_phase_run(1, {}, "s1") is None
    integration.log_metrics({"loss": 1.0})

    assert len(errors(caplog)) == 1
    assert events(integration)[-1]["metrics"] == {"loss": 1.0}


def test_a_missing_wandb_says_how_to_install_it_and_metrics_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    integration = WandBIntegration(directory=tmp_path)

    assert integration.init_phase_run(1, {}, "s1") is None
    integration.log_metrics({"loss": 1.0})

    assert "pip install wandb" in caplog.text
    assert events(integration)[-1]["metrics"] == {"loss": 1.0}


def test_a_journal_that_cannot_be_written_is_logged_once_and_wandb_goes_on(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    integration = WandBIntegration("taken", directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    integration.log_metrics({"loss": 1.0})
    integration.log_metrics({"loss": 0.5})

    integration.flush()
    assert len(errors(caplog)) == 1
    assert [metrics["loss"] for metrics, _ in fake_wandb.run.logged] == [1.0, 0.5]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_logged_once_and_wandb_goes_on(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "s1-phase1.jsonl").symlink_to("/dev/full")
    integration = WandBIntegration("ours", directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    integration.log_metrics({"loss": 1.0})
    integration.finish()

    (message,) = errors(caplog)
    assert "s1-phase1.jsonl cannot be written" in message
    assert [metrics["loss"] for metrics, _ in fake_wandb.run.logged] == [1.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_journal_on_a_full_disk_raises_and_leaves_nothing_pending() -> None:
    journal = RunJournal(Path("/dev/full"))

    with pytest.raises(OSError, match="No space left"):
        journal.write("metrics", metrics={"loss": 1.0})
    journal.close()


def test_a_new_run_finishes_the_one_before(tmp_path: Path, fake_wandb: ModuleType) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")
    first = events(integration)
    path = integration.journal_path

    integration.init_phase_run(2, {}, "s1")

    assert fake_wandb.run.exit_code == 0
    assert path is not None
    assert len(path.read_text().splitlines()) == len(first) + 1
    assert integration.journal_path != path


def test_an_exception_marks_the_run_as_failed(tmp_path: Path, fake_wandb: ModuleType) -> None:
    def train(integration: WandBIntegration) -> None:
        integration.init_phase_run(1, {}, "s1")
        raise ZeroDivisionError

    integration = WandBIntegration(directory=tmp_path)
    with pytest.raises(ZeroDivisionError), integration:
        train(integration)

    assert fake_wandb.run.exit_code == 1
    assert events(integration)[-1]["exit_code"] == 1


def test_disabled_tracking_writes_nothing_and_imports_no_wandb(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cross_phase.monitoring.wandb_integration import WandBIntegration\n"
        f"w = WandBIntegration(mode='disabled', directory={str(tmp_path)!r})\n"
        "assert w.init_phase_run(1, {}, 's1') is None\n"
        "w.log_metrics({'loss': 1.0})\n"
        "w.finish()\n"
        "print('wandb' in sys.modules, 'torch' in sys.modules)"
    )
    source = Path(__file__).parents[2] / "src"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


def test_logging_before_a_run_is_an_error() -> None:
    integration = WandBIntegration()

    with pytest.raises(RuntimeError, match="init_phase_run"):
        integration.log_metrics({"loss": 1.0})
    with pytest.raises(RuntimeError, match="init_phase_run"):
        integration.log_artifact(__file__)


def test_strict_mode_refuses_a_misspelt_metric_before_it_is_logged(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration(directory=tmp_path, strict=True)
    integration.init_phase_run(3, {}, "s1")

    with pytest.raises(ValueError, match="did you mean 'train_loss'"):
        integration.log_metrics({"train_los": 1.0})
    integration.log_metrics({"train_loss": 1.0})

    integration.flush()
    assert fake_wandb.run.logged == [({"train_loss": 1.0}, None)]


def test_a_missing_artifact_is_an_error(tmp_path: Path, fake_wandb: ModuleType) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")

    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        integration.log_artifact(tmp_path / "nothing.txt")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a:b", "a\0b"])
def test_names_that_would_leave_the_directory_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="project"):
        WandBIntegration(name)
    with pytest.raises(ValueError, match="session_id"):
        WandBIntegration().init_phase_run(1, {}, name)


def test_a_resumed_run_goes_on_under_the_same_id(tmp_path: Path, fake_wandb: ModuleType) -> None:
    with WandBIntegration(mode="online", directory=tmp_path) as first:
        first.init_phase_run(1, {}, "s1", resume=True)  # nothing to resume yet
        for step in (1, 9, 5):
            first.log_metrics({"loss": 1.0}, step=step)
    second = WandBIntegration(mode="online", directory=tmp_path)
    second.init_phase_run(1, {}, "s1", resume=True)
    assert second.last_step == 9
    second.finish()
    second.init_phase_run(1, {}, "s1")
    assert second.last_step is None

    one, two, three = fake_wandb.init_arguments
    assert (one["resume"], two["resume"], three["resume"]) == (None, "allow", None)
    assert one["id"] == two["id"] != three["id"]


def test_a_journal_cut_off_by_a_crash_is_gone_on_with(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")
    integration.log_metrics({"loss": 1.0}, step=3)
    path = integration.journal_path
    assert path is not None
    integration.finish()
    with path.open("ab") as file:
        file.write(b'{"event": "metrics", "st')

    integration.init_phase_run(1, {}, "s1", resume=True)
    integration.log_metrics({"loss": 0.5}, step=4)
    integration.finish()

    read = read_journal(path)
    assert [event["step"] for event in read if event["event"] == "metrics"] == [3, 4]
    assert [e["resumed"] for e in read if e["event"] == "start"] == [False, True]


def test_an_online_run_that_cannot_start_is_kept_offline(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    start = fake_wandb.init

    def no_network(**arguments: Any) -> FakeRun:
        run: FakeRun = start(**arguments)
        if arguments["mode"] == "online":
            raise ConnectionError("no network")
        return run

    fake_wandb.init = no_network  # type: ignore[attr-defined]
    integration = WandBIntegration(mode="online", directory=tmp_path, init_timeout=3.0)

    assert integration.init_phase_run(1, {}, "s1") is fake_wandb.run
    integration.log_metrics({"loss": 1.0})
    integration.finish()

    online, offline = fake_wandb.init_arguments
    assert online["settings"] == {"init_timeout": 3.0}
    assert offline["mode"] == "offline"
    assert offline["id"].startswith(online["id"] + "-o")
    assert fake_wandb.run.logged == [({"loss": 1.0}, None)]
    (message,) = errors(caplog)
    assert "keeps an offline one to sync later" in message


def test_a_run_without_a_key_is_really_kept_offline_and_not_synced_silently(
    tmp_path: Path, real_wandb: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    with WandBIntegration(mode="online", directory=tmp_path) as integration:
        run = integration.init_phase_run(1, {}, "s1")
        assert run.settings.mode == "offline"
        integration.log_metrics({"train_loss": 1.0}, step=1)
    real_wandb.teardown()

    (run_file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert [i.value_json for i in history(read_wandb_file(run_file), "train_loss")] == ["1"]
    failed = sync_offline_runs(tmp_path, timeout=60)
    assert list(failed) == [run_file.parent.name]
    assert failed[run_file.parent.name]


def test_offline_runs_are_synced_each_to_the_run_that_it_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["offline-run-20261123_100000-1a2b3c4d", "offline-run-20261123_110000-1a2b3c4d-off00"]
    for name in names:
        (tmp_path / "wandb" / name).mkdir(parents=True)
    (tmp_path / "wandb" / "run-20261123_120000-99999999").mkdir()
    commands = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command[3:])
        code = int("-off00" in command[-1])
        return subprocess.CompletedProcess(command, code, "", "quota\nexceeded\n" if code else "")

    monkeypatch.setattr(subprocess, "run", run)

    assert sync_offline_runs(tmp_path) == {names[1]: "exceeded"}
    folders = [str(tmp_path / "wandb" / name) for name in names]
    assert commands == [["sync", folders[0]], ["sync", "--id", "1a2b3c4d", folders[1]]]


def test_training_does_not_wait_for_a_backend_that_hangs(
    tmp_path: Path, fake_wandb: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    fake_wandb.run.log = lambda metrics, step=None: released.wait()
    integration = WandBIntegration(directory=tmp_path, finish_timeout=0.01)
    integration.init_phase_run(1, {}, "s1")

    for step in range(3):
        integration.log_metrics({"loss": 1.0}, step=step)
    integration.finish()

    assert len([event for event in events(integration) if event["event"] == "metrics"]) == 3
    assert "did not finish the run" in caplog.text
    released.set()


def test_a_backend_that_takes_nothing_does_not_take_all_memory() -> None:
    released = threading.Event()
    failures: list[Exception] = []
    calls = BackgroundCalls(failures.append)
    calls.submit(released.wait)
    for _ in range(MAX_WAITING + 10):
        calls.submit(lambda: None)

    (failure,) = failures
    assert "waiting" in str(failure)
    assert calls.failed
    released.set()
    assert calls.close(timeout=30)


def test_without_its_own_timeout_a_flush_waits_for_what_was_logged(
    tmp_path: Path, fake_wandb: ModuleType
) -> None:
    integration = WandBIntegration(directory=tmp_path)
    integration.init_phase_run(1, {}, "s1")
    for step in range(500):
        integration.log_metrics({"loss": 1.0}, step=step)
    integration.flush()

    assert [step for _, step in fake_wandb.run.logged] == list(range(500))
