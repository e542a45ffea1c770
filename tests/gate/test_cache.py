"""A cell is answered from the cache only while everything that it read is as it was."""

from __future__ import annotations

import os
import pickle
import resource
import sqlite3
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from samples import PASSES, Sample

from tiergate import cache, cache_cells, cache_facts, leg, runner, yaml_document
from tiergate.cache import Answer, Cache
from tiergate.cache_facts import Facts
from tiergate.opened import Opened
from tiergate.verdict import Report, Verdict
from tiergate.yaml_document import Kind, Mark, Node, YamlError

RATES = {
    "data/rates.json": '{"eur": 2}',
    "private/ours.json": "{}",
    "tests/test_rates.py": """\
        import json
        import os
        from pathlib import Path

        HERE = Path(__file__).parent.parent


        def test_rates():
            with open(HERE / "data" / "rates.json") as stream:
                assert json.load(stream)["eur"] == 2


        def test_listing():
            assert sorted(os.listdir(HERE / "data")) == ["rates.json"]


        def test_nothing_optional():
            assert not os.path.exists(HERE / "optional.txt")
            assert not (HERE / "private" / "optional.bin").is_file()
    """,
}
BOTH = {
    "id": "both",
    "uses": "pytest",
    "with": {"paths": ["tests"]},
    "expect": {"passed": 5},
}
IMPORTS = {"id": "names", "uses": "imports", "with": {"module": "shop", "names": ["total"]}}
SUITE = {"id": "suite", "uses": "collection", "expect": {"collected": 5}}


@dataclass
class Judge:
    """Judges a sample again and again with one cache."""

    sample: Sample
    cache: Cache
    said: list[str] = field(default_factory=list)

    def __call__(self, cache: Cache | None = None, **more: Any) -> dict[str, Verdict]:
        report = self.report(cache or self.cache, **more)
        return {verdict.criterion: verdict for verdict in report.verdicts}

    def report(self, cache: Cache | None, only: frozenset[str] = frozenset()) -> Report:
        task = leg.Leg(
            self.sample.candidate(), "cpu", only, 2, self.sample.root / ".tiergate", cache=cache
        )
        return leg.judge(task, _Silent())

    def fresh(self) -> dict[str, Verdict]:
        return {verdict.criterion: verdict for verdict in self.report(None).verdicts}

    def reasons(self, cell: str, what: str = "run") -> list[str]:
        return self.cache.told(str(self.sample.root), f"{cell}@cpu", what)[1]


class _Silent:
    def started(self, cell: str) -> None: ...
    def progress(self, cell: str, what: str) -> None: ...
    def expected(self, cell: str, tests: int) -> None: ...
    def finished(self, verdict: Verdict) -> None: ...


_environments: dict[str, cache.Environment] = {}


@pytest.fixture
def judge(
    sample: Sample, warm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Judge]:
    """The sample with data, judged in forked processes."""
    monkeypatch.setattr(cache_facts, "_CLOCK_NS", 0)  # what a test has just written, it may judge
    for name, content in RATES.items():
        sample.write(name, textwrap.dedent(content))
    sample.gate(BOTH, IMPORTS, SUITE)
    sample.commit()
    said: list[str] = []
    kept = Cache(tmp_path / "cache" / "verdicts.sqlite", said.append)
    python = str(sample.python)
    if python in _environments:  # asked once for all tests, to save time
        kept.put_environment(python, _environments[python])
    yield Judge(sample, kept, said)
    if (known := kept.environment(python)) is not None:
        _environments[python] = known
    kept.close()


def cached(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict.cached is not None}


def test_nothing_changed_answers_every_cell_and_starts_no_process(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    first = judge.report(judge.cache)
    assert {v.status for v in first.verdicts} == {"pass"}
    assert not any(v.cached for v in first.verdicts)
    monkeypatch.setattr(runner.Candidate, "run_job", None)
    again = judge.report(judge.cache)
    assert {v.cached.at for v in again.verdicts if v.cached} == {first.started}
    assert {v.cached.tree for v in again.verdicts if v.cached} == {first.source.tree}
    evidence = [v.evidence for v in first.verdicts]
    assert [v.evidence for v in again.verdicts] == evidence
    assert again.environment == first.environment
    assert again.source == first.source
    assert again.complete


CHANGES: dict[str, tuple[Callable[[Sample], object], set[str], str]] = {
    "a module": (
        lambda s: s.write("src/shop/prices.py", "def total(prices):\n    return sum(prices) + 0\n"),
        set(), "changed file: src/shop/prices.py",
    ),
    "a data file": (
        lambda s: s.write("data/rates.json", '{"eur": 3}'), set(), "changed file: data/rates.json",
    ),
    "a new file in a listed folder": (
        lambda s: s.write("data/more.json", "{}"), set(), "new file: data/more.json",
    ),
    "a new file that git ignores in a listed folder": (
        lambda s: (s.write(".git/info/exclude", "more.json\n"), s.write("data/more.json", "{}")),
        {"names", "suite"}, "changed folder: data",
    ),
    "a file that is only asked for": (
        lambda s: s.write("optional.txt", ""), set(), "new file: optional.txt",
    ),
    "a file that is only asked for and that git ignores": (
        lambda s: (
            s.write(".git/info/exclude", "*.bin\n"), s.write("private/optional.bin", ""),
        ),
        {"names", "suite"}, "changed file: private/optional.bin",
    ),
    "a new conftest.py": (
        lambda s: s.write("tests/conftest.py", "import pytest\n"), set(),
        "new file: tests/conftest.py",
    ),
    "a pytest.ini that git ignores": (
        lambda s: (s.write(".git/info/exclude", "pytest.ini\n"), s.write("pytest.ini", "[pytest]")),
        {"names"}, "changed file: pytest.ini",
    ),
    "a pytest.ini above the repository": (
        lambda s: s.write("../pytest.ini", "[pytest]\n"), {"names"}, "pytest.ini",
    ),
    "a file that is gone": (
        lambda s: (s.root / "src/shop/prices.py").unlink(), set(),
        "file that is gone: src/shop/prices.py",
    ),
    "a package in the place of a module": (
        lambda s: s.write("src/shop/prices/__init__.py", "def total(prices):\n    return 7\n"),
        set(), "new file: src/shop/prices/__init__.py",
    ),
    "a file that is a link now": (
        lambda s: (
            s.write("elsewhere.py", (s.root / "src/shop/prices.py").read_bytes()),
            (s.root / "src/shop/prices.py").unlink(),
            (s.root / "src/shop/prices.py").symlink_to("../../elsewhere.py"),
        ),
        set(), "new file: elsewhere.py",
    ),
    "the criteria": (
        lambda s: s.gate({**BOTH, "timeout": 50}, IMPORTS, SUITE), {"names", "suite"},
        "the criterion",
    ),
    "an environment variable": (
        lambda s: s.gate(BOTH, IMPORTS, SUITE, env={"RATE": "2"}), set(), "$RATE",
    ),
    "pythonpath": (
        lambda s: s.gate(BOTH, IMPORTS, SUITE, pythonpath=["src", "."]), set(), "pythonpath",
    ),
    "times alone": (lambda s: os.utime(s.root / "src/shop/prices.py"), {"both", "names", "suite"},
        ""),
    "a text that nobody read": (
        lambda s: s.write("gate.yaml", (s.root / "gate.yaml").read_text() + "\n"),
        {"both", "names", "suite"}, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_evaluates_again_what_read_it_and_says_so(judge: Judge, name: str):
    change, kept, reason = CHANGES[name]
    judge()
    change(judge.sample)
    assert cached(judge()) == kept
    if reason:
        assert any(reason in told for told in judge.reasons("both")), judge.reasons("both")


def said(verdicts: dict[str, Verdict]) -> Any:
    return {
        name: (verdict.status, verdict.evidence.observed, [f.id for f in verdict.evidence.failures])
        for name, verdict in verdicts.items()
    }


NEVER = {
    "a program": ("import subprocess; subprocess.run(['true'])", "it started a process"),
    "a fork": (
        "import os\n    if os.fork() == 0:\n        os._exit(0)\n    os.wait()",
        "it started a process",
    ),
    "the network": (
        "import socket\n    socket.socket().connect_ex(('127.0.0.1', 9))",
        "it used the network",
    ),
    "writing into the repository": (
        "open(__file__ + '.log', 'w').close()", "it wrote tests/test_it.py.log",
    ),
    "a database in the repository": (
        "import sqlite3; sqlite3.connect(__file__ + '.db').close()", "a database",
    ),
    "native code of the repository": (
        "import ctypes, pytest\n    with pytest.raises(OSError):\n        ctypes.CDLL(__file__)",
        "native code: tests/test_it.py",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_what_depends_on_more_than_files_is_never_kept(judge: Judge, name: str):
    body, reason = NEVER[name]
    judge.sample.write("tests/test_it.py", f"def test_it():\n    {body}\n")
    judge.sample.write(".gitignore", "*.log\n*.db\n")
    judge.sample.gate(
        {"id": "it", "uses": "pytest", "with": {"paths": ["tests/test_it.py"]},
         "expect": {"passed": 1}},
    )  # fmt: skip
    assert said(judge())["it"][0] == "pass"
    assert any(reason in told for told in judge.reasons("it", "kept")), judge.reasons("it", "kept")
    assert not cached(judge())


def test_own_temporary_files_are_no_inputs(judge: Judge):
    body = (
        "def test_it(tmp_path):\n    (tmp_path / 'x').write_text('1')\n"
        "    assert (tmp_path / 'x').read_text() == '1'\n"
        "    (tmp_path / 'y').mkdir()\n    assert len(list(tmp_path.iterdir())) == 2\n"
    )
    judge.sample.write("tests/test_prices.py", body)
    judge.sample.gate({**PASSES, "expect": {"passed": 1}})
    assert not cached(judge())
    assert cached(judge()) == {"prices"}


def test_a_file_elsewhere_that_was_read_is_an_input(judge: Judge, tmp_path: Path):
    config = tmp_path / "settings"
    config.write_text("1")
    judge.sample.write(
        "tests/test_prices.py", f"def test_it():\n    assert open({str(config)!r}).read() == '1'\n"
    )
    judge.sample.gate({**PASSES, "expect": {"passed": 1}})
    judge()
    assert cached(judge()) == {"prices"}
    config.write_text("2")
    assert judge()["prices"].status == "fail"


@pytest.mark.parametrize("linked", [False, True])
def test_an_ignored_file_that_native_code_opened_is_an_input(
    judge: Judge, tmp_path: Path, linked: bool
):
    weights = judge.sample.root / "models" / "weights.bin"
    judge.sample.write(".gitignore", "models/\n")
    weights.parent.mkdir()
    if linked:
        weights.symlink_to(tmp_path / "weights.bin")
    weights.write_bytes(b"one")
    open_ = f"ctypes.CDLL(None).open({str(weights).encode()!r}, 0)"
    judge.sample.write(
        "tests/test_prices.py",
        f"import ctypes, os\n\ndef test_it():\n    assert os.read({open_}, 9) == b'one'\n",
    )
    judge.sample.gate({**PASSES, "expect": {"passed": 1}})
    judge()
    assert cached(judge()) == {"prices"}
    weights.write_bytes(b"two")
    assert judge()["prices"].status == "fail"


def test_what_is_written_beside_the_events_is_seen(tmp_path: Path):
    (tmp_path / "known.txt").touch()
    with Opened(str(tmp_path), {"known.txt"}) as opened:
        (tmp_path / "known.txt").read_bytes()
        (tmp_path / "__pycache__").mkdir()
    assert (opened.files, opened.reasons) == ({}, {})
    with Opened(str(tmp_path), {"known.txt"}) as opened:
        (tmp_path / "known.txt").write_text("x")
    assert opened.reasons == {"known.txt was written while it ran": None}


def test_what_cannot_be_watched_is_said(tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with Opened(str(tmp_path), ()) as opened:
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert opened.reasons == {"what native code opens cannot be watched: Too many open files": None}


def test_scans_are_answered_while_what_they_read_is_the_same(judge: Judge):
    sample = judge.sample
    sample.write(".gitignore", "*.onnx\n")
    sample.write("models/fine.pt", pickle.dumps({"a": 1}, protocol=2))
    sample.write("exports/ignored.onnx", b"")
    sample.write("src/shop/load.py", "import torch\n\nstate = torch.load('x', weights_only=True)\n")
    sample.gate(
        {"id": "models", "uses": "checkpoints", "with": {"paths": ["models"]}},
        {"id": "exports", "uses": "checkpoints", "with": {"paths": ["exports"]}},
        {"id": "loads", "uses": "semgrep",
         "with": {"rules": ["unsafe-torch-load"], "paths": ["src"]}},
    )  # fmt: skip
    assert {v.status for v in judge().values()} == {"pass"}
    sample.write("README.md", "# Nobody scans this\n")
    judge()  # a new file is a name that all know
    sample.write("README.md", "# Or this\n")
    assert cached(judge()) == {"models", "exports", "loads"}

    sample.write("models/fine.pt", pickle.dumps(os.system))
    (sample.root / "exports/ignored.onnx").unlink()
    (sample.root / "exports").rmdir()
    sample.write("src/shop/load.py", "import torch\n\nstate = torch.load('x')\n")
    found = judge()
    assert {name: v.status for name, v in found.items()} == {
        "models": "fail", "exports": "error", "loads": "fail",
    }  # fmt: skip
    assert judge.reasons("exports") == ["changed file: exports"]


def test_only_a_pass_is_kept(judge: Judge):
    judge.sample.write("src/shop/prices.py", "def total(prices):\n    return 0\n")
    assert judge()["both"].status == "fail"
    assert judge()["both"].cached is None


def test_a_cached_cell_whose_need_fails_is_blocked(judge: Judge):
    needing = {**IMPORTS, "needs": ["both"]}
    judge.sample.gate(BOTH, needing)
    judge()
    judge.sample.write("tests/test_more.py", "def test_more():\n    assert 0\n")
    judge.sample.write(".git/info/exclude", "test_more.py\n")
    verdicts = judge()
    assert verdicts["both"].status == "fail"
    assert verdicts["names"].status == "blocked"


def test_a_file_that_changed_during_the_run_is_not_believed(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache_facts, "_CLOCK_NS", 3600 * 10**9)  # everything counts as just written
    judge()
    assert "changed during the run" in judge.reasons("both", "kept")[0]
    assert not cached(judge())


def test_other_distributions_or_another_tool_evaluate_again(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    judge()
    monkeypatch.setattr(cache_facts, "tool", lambda: "another")
    assert not cached(judge())
    assert judge.reasons("both") == ["tiergate or its environment"]
    site = next(Path(judge.sample.python).parent.parent.glob("lib/*/site-packages"))
    (site / "new-1.0.dist-info").mkdir()
    try:
        assert not cached(judge())
        assert judge.reasons("both") == ["the interpreter or its installed distributions"]
    finally:
        (site / "new-1.0.dist-info").rmdir()


def test_who_starts_a_run_with_which_limits_is_an_input():
    before = cache_facts.machine()
    mask = os.umask(0)
    os.umask(mask ^ 0o070)
    other = cache_facts.machine()
    os.umask(mask)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256 if soft != 256 else 255, hard))
    limited = cache_facts.machine()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len({before, other, limited}) == 3
    assert cache_facts.machine() == before


def test_gpu_verdicts_need_a_driver_that_can_be_told(tmp_path: Path):
    assert cache_facts.cuda(tmp_path) == ""
    gpu = tmp_path / "gpus" / "0000:01:00.0" / "information"
    gpu.parent.mkdir(parents=True)
    gpu.write_text("Model: H100\nGPU UUID: GPU-1\n")
    (tmp_path / "version").write_text("NVRM version: 580.1\n")
    first = cache_facts.cuda(tmp_path)
    gpu.write_text("Model: H100\nGPU UUID: GPU-2\n")
    second = cache_facts.cuda(tmp_path)
    (tmp_path / "version").write_text("NVRM version: 590.1\n")
    assert len({"", first, second, cache_facts.cuda(tmp_path)}) == 4


NAMES = [
    "conftest.py", "data/rates.json", "data/b.json", "optional.txt", "pytest.ini", "notes.md",
    "src/shop/__init__.py", "src/shop/prices.py", "src/shop/prices/__init__.py",
    "src/colorsys.py", "tests/conftest.py", "tests/test_prices.py", "tests/test_new.py",
    "ignored/test_hidden.py", "tests/ignored.py", "private/optional.bin",
]  # fmt: skip
CONTENTS = [
    "", "def total(prices):\n    return sum(prices)\n", "from shop.prices import total\n",
    "[pytest]\npython_functions = check_*\n", "def test_one():\n    assert 1\n", "raise OSError\n",
    '{"eur": 2}', "def test_two():\n    import colorsys\n    assert colorsys.rgb_to_hsv\n",
    "import pytest\n\n@pytest.fixture(autouse=True)\ndef no():\n    pytest.skip()\n",
]  # fmt: skip


def test_cached_verdicts_are_the_fresh_ones_whatever_happens_to_the_files(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    original = {
        name: (judge.sample.root / name).read_bytes()
        for name in [*RATES, "src/shop/__init__.py", "src/shop/prices.py", "tests/test_prices.py"]
    }
    judge()
    environment = judge.cache.environment(str(judge.sample.python))
    assert environment is not None
    monkeypatch.setattr(runner, "_identify", lambda result, *_: result.environment.clear() or "")
    hits = 0

    class Files(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            judge.sample.write(".git/info/exclude", "ignored*\n*.bin\n")
            for name in judge.sample.git("ls-files", "-o").splitlines():
                if not name.startswith(".tiergate/"):
                    (judge.sample.root / name).unlink()
            for name, content in original.items():
                path = judge.sample.root / name
                if path.is_symlink():
                    path.unlink()
                judge.sample.write(name, content)

        def _put(self, name: str, do: Callable[[Path], object]) -> None:
            path = judge.sample.root / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                do(path)
            except OSError:
                return  # such as a file where a folder is
            self._compare()

        def _compare(self) -> None:
            nonlocal hits
            verdicts = judge()
            again = judge()  # what passed is answered from the cache by now
            hits += len(cached(again))
            assert said(verdicts) == said(again) == said(judge.fresh())

        @rule(name=st.sampled_from(NAMES), content=st.sampled_from(CONTENTS))
        def write(self, name: str, content: str) -> None:
            self._put(name, lambda path: path.write_text(content))

        @rule(name=st.sampled_from(NAMES))
        def delete(self, name: str) -> None:
            self._put(name, lambda path: path.unlink())

        @rule(name=st.sampled_from(NAMES), to=st.sampled_from(NAMES))
        def rename(self, name: str, to: str) -> None:
            self._put(name, lambda path: path.rename(judge.sample.root / to))

        @rule(name=st.sampled_from(sorted(original)))
        def restore(self, name: str) -> None:
            self._put(name, lambda path: path.write_bytes(original[name]))

        @rule(name=st.sampled_from(NAMES), to=st.sampled_from(NAMES))
        def link(self, name: str, to: str) -> None:
            self._put(name, lambda path: path.symlink_to(judge.sample.root / to))

    run_state_machine_as_test(
        Files,
        settings=settings(
            max_examples=4,
            stateful_step_count=5,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert hits  # or nothing was compared


def answer(**more: Any) -> Answer:
    verdict = Verdict(criterion="it", device="cpu", status="pass", summary="x" * 1000)
    given = {"at": "now", "tree": "", "parts": {}, "inventory": [], "files": {}, "folders": {}}
    return Answer(verdict=verdict, **{**given, **more})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b""),
        lambda path: sqlite3.connect(path).executescript("UPDATE answers SET payload = '{}'"),
        lambda path: sqlite3.connect(path).executescript("PRAGMA user_version = 99"),
    ],
    ids=["garbage", "cut off", "emptied", "a row", "a version"],
)
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: Callable[[Path], object]):
    path = tmp_path / "verdicts.sqlite"
    said: list[str] = []
    first = Cache(path, said.append)
    first.put("/r", "it@cpu", "q", answer())
    first.close()
    damage(path)
    second = Cache(path, said.append)
    assert not list(second.answers("/r", "it@cpu", "q"))
    second.put("/r", "it@cpu", "q", answer())
    assert len(list(second.answers("/r", "it@cpu", "q"))) == 1
    assert path.stat().st_size == 0 or len(said) <= 1
    second.close()


def test_the_latest_answer_is_read_without_those_before_it(tmp_path: Path):
    said: list[str] = []
    kept = Cache(tmp_path / "verdicts.sqlite", said.append)
    for moment in ("first", "second"):
        kept.put("/r", "it@cpu", "q", answer(at=moment))
    with sqlite3.connect(kept.path) as file:
        file.execute("UPDATE answers SET payload = '{}' WHERE id = 1")
    _, latest = next(iter(kept.answers("/r", "it@cpu", "q")))
    assert (latest.at, said) == ("second", [])
    assert len(list(kept.answers("/r", "it@cpu", "q"))) == 1
    assert "was damaged" in said[0]
    kept.close()


def test_a_file_is_parsed_once_for_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = Cache(tmp_path / "verdicts.sqlite")
    parsed: list[bytes] = []

    def parse(data: bytes) -> Node:
        parsed.append(data)
        return yaml_document.Node(Kind.SCALAR, Mark(1, 1), text=data.decode())

    monkeypatch.setattr(yaml_document, "parse", parse)
    texts = [b"a", b"a", b"b", b"a"]
    assert [cache_cells.document(kept, text).text.encode() for text in texts] == texts
    assert parsed == [b"a", b"b"]
    assert cache_cells.document(None, b"a").text == "a"
    monkeypatch.setattr(cache_facts, "tool", lambda: "another version")
    assert cache_cells.document(kept, b"a").text == "a"
    assert parsed == [b"a", b"b", b"a", b"a"]
    with sqlite3.connect(kept.path) as file:
        file.execute("UPDATE documents SET payload = replace(payload, 'a', 'c')")
    assert cache_cells.document(kept, b"a").text == "a"
    assert len(parsed) == 5
    kept.close()


def test_what_is_no_yaml_is_so_every_time(tmp_path: Path):
    kept = Cache(tmp_path / "verdicts.sqlite")
    for _ in range(2):
        with pytest.raises(YamlError, match="not valid YAML"):
            cache_cells.document(kept, b"a: [")
    kept.close()


def test_a_cache_that_cannot_be_written_costs_no_verdict(tmp_path: Path):
    (tmp_path / "file").write_text("")
    said: list[str] = []
    kept = Cache(tmp_path / "file" / "verdicts.sqlite", said.append)
    kept.put("/r", "it@cpu", "q", answer())
    assert not list(kept.answers("/r", "it@cpu"))
    assert len(said) == 1


def test_several_processes_may_share_a_cache(tmp_path: Path):
    path = tmp_path / "verdicts.sqlite"
    failed: list[str] = []

    def work(number: int) -> None:
        own = Cache(path, failed.append)
        for turn in range(20):
            own.put("/r", f"cell{number}@cpu", str(turn), answer())
            list(own.answers("/r", f"cell{number}@cpu"))
        own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    kept = Cache(path)
    assert [row[1] for row in kept.cells("/r")] == [20] * 4
    kept.close()


def test_the_least_used_answers_go_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "MOST_BYTES", 5000)
    kept = Cache(tmp_path / "verdicts.sqlite")
    for number in range(10):
        kept.put("/r", f"cell{number}@cpu", "q", answer())
    left = [row[0] for row in kept.cells("/r")]
    assert left == ["cell6@cpu", "cell7@cpu", "cell8@cpu", "cell9@cpu"]
    later = time.time() + 31 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    kept.put("/r", "new@cpu", "q", answer())
    assert [row[0] for row in kept.cells("/r")] == ["new@cpu"]
    assert kept.clear(None) == 1
    kept.close()


def test_a_file_that_looks_unchanged_is_read_again_while_its_times_are_fresh(tmp_path: Path):
    """Two changes in one tick of the clock leave size and times alike."""
    path = tmp_path / "file"
    path.write_text("one")
    fresh = Facts(tmp_path).fact("file", "file")
    assert fresh.signature == ""
    path.write_text("two")
    assert not Facts(tmp_path).holds("file", fresh, "file")


def test_a_file_with_old_times_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_facts, "_RACY_NS", -1)
    (tmp_path / "file").write_text("one")
    known = Facts(tmp_path).fact("file", "file")
    assert known.signature
    monkeypatch.setattr(cache_facts, "_digest_of", None)
    assert Facts(tmp_path).holds("file", known, "file")


@pytest.mark.parametrize(
    ("environment", "asked", "kept"),
    [
        ({"HOME": "/h"}, None, "/h/.cache/tiergate/verdicts.sqlite"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, None, "/c/tiergate/verdicts.sqlite"),
        ({}, None, "/repo/verdicts.sqlite"),
        ({"HOME": "/h"}, False, None),
        ({"HOME": "/h", "CI": "true"}, None, None),
        ({"HOME": "/h", "GITHUB_ACTIONS": "true"}, None, None),
        ({"HOME": "/h", "CI": "false"}, None, "/h/.cache/tiergate/verdicts.sqlite"),
        ({"HOME": "/h", "CI": "true"}, True, "/h/.cache/tiergate/verdicts.sqlite"),
        ({"HOME": "/h", "TIERGATE_CACHE": "0"}, None, None),
    ],
)
def test_the_cache_is_off_in_ci_unless_asked_for(
    environment: dict[str, str], asked: bool | None, kept: str | None
):
    found = cache_cells.place(environment, Path("/repo"), asked=asked)
    assert (found and str(found)) == kept


def test_the_command_line_answers_tells_why_and_decides(sample: Sample, tmp_path: Path):
    ours = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "TIERGATE_CACHE": "1"}
    time.sleep(0.1)  # what was written just before the run is not believed
    assert "cached" not in sample.run(**ours).stdout
    second = sample.run(**ours)
    assert second.returncode == 0
    began = sample.verdicts()["prices"].cached
    assert began is not None
    lines = [line for line in second.stdout.splitlines() if "cached: " in line]
    # The line of progress has room for the time; the table for that it is cached.
    assert [f"(of {began.at})" in line for line in lines] == [True, False]
    refused = sample.tiergate("decide", ".tiergate/report.json")
    assert refused.returncode == 3
    assert "--allow-cached takes it" in refused.stdout
    assert sample.tiergate("decide", ".tiergate/report.json", "--allow-cached").returncode == 0
    assert "1 answer" in sample.tiergate("cache", "show", **ours).stdout
    sample.write("src/shop/prices.py", "def total(prices):\n    return sum(list(prices))\n")
    why = sample.tiergate("cache", "why", "prices", "--python", str(sample.python), **ours)
    assert "changed file: src/shop/prices.py" in why.stdout
    assert "1 answer forgotten" in sample.tiergate("cache", "clear", **ours).stdout
    assert "cached" not in sample.run("--no-cache", **ours).stdout
