"""A forked job ends as it would in a fresh process, and shares nothing with the others."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from samples import PASSES, Sample, ended

from tiergate import checkers, judge, shadows, warm
from tiergate.candidate import Candidate, Imported, warmed
from tiergate.checkers import Context
from tiergate.errors import UserError
from tiergate.processes import Cancellation
from tiergate.verdict import Verdict
from tiergate.warm import WarmInterpreter

pytestmark = pytest.mark.skipif(not warm.supported(), reason="forks only on Linux")


def criterion(passed: int = 1, **more: Any) -> dict[str, Any]:
    with_ = {"paths": ["tests/test_it.py"]}
    return {"id": "it", "uses": "pytest", "with": with_, "expect": {"passed": passed}, **more}


def verdict_of(candidate: Candidate) -> Verdict:
    found = candidate.spec.criteria[0]
    context = Context(found, candidate, "cpu", lambda _: None)
    checker = checkers.get(found.uses)
    observation = checker.observe(found.parameters, context)
    return judge.judge(context, checker, observation, 0.0)


@contextmanager
def forked(candidate: Candidate, *modules: str) -> Iterator[Candidate]:
    environment = candidate.environment("cpu")
    with WarmInterpreter(candidate.python, environment, modules or ["pytest"]) as interpreter:
        yield replace(candidate, warm=interpreter)


def said(verdict: Verdict) -> Any:
    """What a verdict says, but for what the printed output holds of times."""
    untimed = [msgspec.structs.replace(case, seconds=0.0) for case in verdict.evidence.cases]
    evidence = msgspec.structs.replace(verdict.evidence, output="", cases=untimed)
    placed = msgspec.structs.replace(verdict, evidence=evidence, started=0.0, slot=0)
    return msgspec.to_builtins(placed)


@pytest.fixture(scope="module")
def shared(light_python: Path) -> Iterator[WarmInterpreter]:
    """One interpreter for all the tests that do it no harm."""
    environment = Candidate(light_python, None, _Bare(), 1, Cancellation()).environment("cpu")  # type: ignore[arg-type]
    with WarmInterpreter(light_python, environment, ["pytest"]) as interpreter:
        yield interpreter


class _Bare:
    env: dict[str, str] = {}  # noqa: RUF012 - as a spec has it
    pass_env = ()


BODIES = {
    "passes": ("assert 1", 60, "pass"),
    "fails": ("assert [1] == [2]", 60, "fail"),
    "is skipped": ("import pytest; pytest.skip('no')", 60, "fail"),
    "leaves without a word": ("import os; os._exit(0)", 60, "error"),
    "exits with 7": ("import os; os._exit(7)", 60, "error"),
    "raises SystemExit": ("raise SystemExit(0)", 60, "fail"),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", 60, "error"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 60, "error"),
    "never ends": ("import threading; threading.Event().wait()", 1.5, "error"),
    "ends its group": ("import os; os.killpg(0, 9)", 60, "error"),
    "forks": ("import os\n    if os.fork() == 0:\n        os._exit(1)\n    os.wait()", 60, "pass"),
    "closes everything": ("import os; os.closerange(3, 1000)", 60, "error"),
    "changes folder and environment": (
        "import os; os.chdir('/'); os.environ.clear(); print('here')", 60, "pass",
    ),
    "leaves a process behind": (
        "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)", 60, "pass",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_verdict_is_the_same_forked_and_fresh(sample: Sample, shared: WarmInterpreter, name: str):
    body, timeout, status = BODIES[name]
    sample.write("tests/test_it.py", f"def test_it():\n    {body}\n")
    sample.gate(criterion(timeout=timeout))
    fresh = sample.candidate()
    warm_one = replace(fresh, warm=shared)
    found = verdict_of(warm_one)
    assert found.status == status
    assert said(found) == said(verdict_of(fresh))
    assert not shared.failed


STATE = """\
import gc, importlib, json, os, signal, sys, warnings


def test_state():
    streams = sys.__stdin__, sys.__stdout__, sys.__stderr__
    numbers = signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE
    state = {
        "modules": sorted(sys.modules),
        "path": sys.path,
        "argv": sys.argv,
        "main": sys.modules["__main__"].__file__,
        "flags": str(sys.flags),
        "finders": [str(type(finder)) for finder in sys.meta_path],
        "environment": sorted(os.environ),
        "cwd": os.getcwd(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "streams": [(s.name, s.encoding, s.errors, s.line_buffering) for s in streams],
        "input": sys.__stdin__.read(),
        "leads": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "signals": [str(signal.getsignal(number)) for number in numbers],
        "masked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "filters": str(warnings.filters),
        "garbage": [gc.isenabled(), gc.get_threshold()],
        "attributes": [n for n in ("abc", "machinery", "util") if hasattr(importlib, n)],
    }
    with open("state.json", "w") as out:
        json.dump(state, out)
"""


def test_interpreter_is_in_the_same_state_forked_and_fresh(sample: Sample, shared: WarmInterpreter):
    sample.write("tests/test_it.py", STATE)
    sample.gate(criterion())

    def state(candidate: Candidate) -> dict[str, Any]:
        assert verdict_of(candidate).status == "pass"
        found: dict[str, Any] = json.loads((sample.root / "state.json").read_text())
        return found

    fresh = state(sample.candidate())
    found = state(replace(sample.candidate(), warm=shared))
    found["finders"].remove("<class '_tiergate_probe.ahead.Ahead'>")
    modules, fresh_modules = set(found.pop("modules")), set(fresh.pop("modules"))
    assert modules ^ fresh_modules == {"_tiergate_probe.ahead"}
    assert found == fresh
    assert found["leads"]


LIBRARY = {
    "base.py": "loaded = []\n",
    "wide/__init__.py": "import importlib\nimportlib.import_module('base')\n",
    "wide/deep.py": "from . import other\n",
    "wide/other.py": "import sys\nsys.modules['wide.made'] = type(sys)('wide.made')\n",
    "apart.py": "import wide.deep\n\n\ndef late():\n    import base\n    return base\n",
}


@pytest.fixture
def library(sample: Sample, tmp_path: Path) -> Sample:
    """A sample whose interpreter has packages of its own."""
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    original = sample.python.parent.parent
    (environment / "pyvenv.cfg").write_bytes((original / "pyvenv.cfg").read_bytes())
    (environment / "bin" / "python").symlink_to(sample.python.readlink())
    (site,) = original.glob("lib/*/site-packages")
    packages = environment / site.relative_to(original)
    packages.mkdir(parents=True)
    for entry in site.iterdir():
        (packages / entry.name).symlink_to(entry.resolve())
    made = Sample(sample.root, environment / "bin" / "python", sample.cancellation)
    for name, text in LIBRARY.items():
        path = packages / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return made


def test_numpy_draws_other_numbers_in_every_child(sample: Sample, candidate_python: Path):
    test = (
        "import sys\nassert 'numpy' not in sys.modules\nimport numpy\n\n\n"
        "def test_it():\n    assert numpy.random.rand() > 1\n"
    )
    sample.write("tests/test_it.py", test)
    sample.gate(criterion())
    candidate = replace(sample.candidate(), python=candidate_python)
    with forked(candidate, "pytest", "numpy.random") as warm_one:
        drawn = [verdict_of(warm_one).evidence.failures[0].message for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert all("assert 0." in message for message in drawn)


def test_module_imported_ahead_of_time_is_not_seen_before_it_is_imported(library: Sample):
    test = (
        "import importlib.util, sys\n\n\n"
        "def ours():\n"
        "    names = {'base', 'wide', 'apart'}\n"
        "    return sorted(name for name in sys.modules if name.split('.')[0] in names)\n\n\n"
        "def test_it():\n"
        "    assert ours() == []\n"
        "    assert importlib.util.find_spec('wide').origin.endswith('__init__.py')\n"
        "    assert ours() == []\n"
        "    import wide\n"
        "    assert ours() == ['base', 'wide'], ours()\n"
        "    assert wide.__spec__.loader.__class__.__name__ == 'SourceFileLoader'\n"
        "    import wide.other\n"
        "    assert ours() == ['base', 'wide', 'wide.made', 'wide.other']\n"
        "    import apart\n"
        "    assert ours() == ['apart', 'base', 'wide', 'wide.deep', 'wide.made', 'wide.other']\n"
        "    assert wide.deep is sys.modules['wide.deep'] and apart.wide is wide\n"
        "    assert apart.late() is sys.modules['base']\n"
        "    del sys.modules['base']\n"
        "    import base\n"
        "    assert base is not wide.importlib.import_module('wide')\n"
    )
    library.write("tests/test_it.py", test)
    library.gate(criterion())
    with forked(library.candidate(), "pytest", "apart", "gone", "base") as candidate:
        found = verdict_of(candidate)
        assert found.status == "pass", found.evidence.failures
    assert verdict_of(library.candidate()).status == "pass"


def test_more_can_be_imported_ahead_of_time_later_on(library: Sample):
    library.write("tests/test_it.py", "import apart\n\n\ndef test_it():\n    pass\n")
    library.gate(criterion())
    imported = Imported()
    with forked(library.candidate()) as candidate:
        assert verdict_of(replace(candidate, imported=imported)).status == "pass"
        ours = [
            name for name in imported.modules if name.split(".")[0] in {"apart", "base", "wide"}
        ]
        assert ours == ["base", "wide", "wide.other", "wide.deep", "apart"]
        assert candidate.warm is not None
        assert candidate.warm.load(ours, [], candidate.cancellation)
        assert verdict_of(candidate).status == "pass"


@pytest.mark.parametrize(
    ("file", "accepted"),
    [
        ("src/apart.py", False),
        ("src/apart/__init__.py", False),
        ("apart.py", False),
        ("tests/apart.py", False),
        ("ignored/apart.py", False),
        ("src/shop/apart.py", True),
        ("src/apart/data.txt", True),
    ],
)
def test_repository_with_a_module_of_that_name_gets_fresh_processes(
    library: Sample, file: str, accepted: bool
):
    library.write(".git/info/exclude", "ignored\n")
    library.write(file, "x = 1\n")
    library.gate(criterion())
    with forked(library.candidate(), "apart") as candidate:
        assert candidate.warm is not None
        pythonpath = candidate.spec.pythonpath
        found = candidate.warm.accepts(candidate.repository, pythonpath, Cancellation())
    assert found == accepted


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("apart.pyc", True),
        ("apart.cpython-312-x86_64-linux-gnu.so", True),
        ("linked/apart.py", True),
        ("package/inside/__init__.py", False),
        ("inside/apart/__init__.so", True),
        ("inside/apart.txt", False),
        (".venv/lib/apart.py", False),
        ("package/apart.py", False),
        ("package/searched/apart.py", True),
        ("apartment.py", False),
    ],
)
def test_a_file_that_could_be_imported_for_a_module_is_found(
    tmp_path: Path, file: str, found: bool
):
    root = tmp_path / "root"
    for name in ("package/__init__.py", "package/searched/__init__.py", ".venv/pyvenv.cfg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to("circle")
    (root / "above").symlink_to(root)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).touch()
    assert shadows.any_of(str(root), ["package/searched", "none"], {"apart"}) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ValueError('no luck')", "ValueError: no luck"),
        (
            "import threading as t\nt.Thread(target=t.Event().wait, daemon=True).start()",
            "a thread was started while modules were imported ahead of time",
        ),
        ("import os\nos._exit(3)", "it ended at once"),
    ],
)
def test_interpreter_that_cannot_import_ahead_is_done_without(
    library: Sample, tmp_path: Path, text: str, reason: str
):
    (site,) = (tmp_path / "venv").glob("lib/*/site-packages")
    (site / "broken.py").write_text(text + "\n")
    library.write("tests/test_it.py", "def test_it():\n    pass\n")
    library.gate(criterion())
    with forked(library.candidate(), "pytest", "broken") as candidate:
        assert verdict_of(candidate).status == "pass"
        assert candidate.warm is not None
        assert reason in candidate.warm.failed


def test_interpreter_that_does_not_exist_is_done_without(sample: Sample):
    with WarmInterpreter(Path("/no/such/python"), {}) as interpreter:
        repository = sample.candidate().repository
        assert not interpreter.accepts(repository, (), Cancellation())
        assert "No such file" in interpreter.failed


def test_job_whose_interpreter_is_killed_is_an_error_and_the_next_starts_afresh(sample: Sample):
    kill = "import os, threading; os.kill(os.getppid(), 9); threading.Event().wait()"
    sample.write("tests/test_it.py", f"def test_it():\n    {kill}\n")
    sample.gate(criterion())
    with forked(sample.candidate()) as candidate:
        found = verdict_of(candidate)
        assert found.status == "error"
        assert "lost: the warm interpreter that had forked it ended" in found.summary
        sample.write("tests/test_it.py", "def test_it():\n    pass\n")
        assert verdict_of(candidate).status == "pass"


def test_children_neither_see_each_other_nor_draw_the_same_numbers(
    sample: Sample, shared: WarmInterpreter
):
    test = (
        "import os, random\n\n\n"
        "def test_it():\n"
        "    links = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')\n"
        "             if os.path.lexists(f'/proc/self/fd/{n}')]\n"
        "    shared = [link for link in links if 'pipe' in link or 'socket' in link]\n"
        "    with open(os.environ['TMPDIR'] + f'/{os.getpid()}', 'w') as out:\n"
        "        print(random.random(), *shared, file=out)\n"
    )
    sample.write("tests/test_it.py", test)
    sample.gate(criterion())
    folder = sample.root.parent / "seen"
    folder.mkdir()
    environment = {**shared.environment, "TMPDIR": str(folder)}
    candidate = replace(
        sample.candidate(), spec=replace(sample.candidate().spec, env={"TMPDIR": str(folder)})
    )
    with WarmInterpreter(candidate.python, environment, ["pytest"]) as interpreter:
        candidate = replace(candidate, warm=interpreter)
        threads = [threading.Thread(target=verdict_of, args=(candidate,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not interpreter.failed
    seen = [path.read_text().split() for path in folder.iterdir()]
    assert len({numbers[0] for numbers in seen}) == len(seen) == 3
    held = [set(links[1:]) for links in seen]
    assert held[0] & held[1] == held[1] & held[2] == held[0] & held[2] == set()
    assert all(len(links) == 2 for links in held)  # its output, and its records


@pytest.mark.parametrize("cleared", [False, True])
def test_process_that_escaped_by_forking_alone_is_ended(
    sample: Sample, shared: WarmInterpreter, tmp_path: Path, cleared: bool
):
    escape = (
        "import os, threading\n\n\n"
        "def test_it():\n"
        "    reader, writer = os.pipe()\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork():\n            os._exit(0)\n"
        "        os.write(writer, str(os.getpid()).encode())\n"
        "        threading.Event().wait()\n"
        "    os.wait()\n"
        f"    open({str(tmp_path / 'pid')!r}, 'wb').write(os.read(reader, 20))\n"
    )
    sample.write("tests/test_it.py", escape)
    sample.gate(criterion())
    found = verdict_of(replace(sample.candidate(), warm=shared))
    assert found.status == "pass"
    assert any("1 processes were left running" in note for note in found.evidence.notes)
    assert ended(int((tmp_path / "pid").read_text()))


def test_jobs_end_with_a_judge_that_is_killed(sample: Sample, tmp_path: Path):
    os.mkfifo(tmp_path / "ready")
    test = (
        "import os, threading\n\n\ndef test_it():\n"
        f"    with open({str(tmp_path / 'ready')!r}, 'w') as ready:\n"
        "        print(os.getpid(), os.getppid(), file=ready)\n    threading.Event().wait()\n"
    )
    sample.write("tests/test_it.py", test)
    sample.gate(criterion())
    process = sample.start("run", "--python", str(sample.python), "--isolation", "fork")
    descriptor = os.open(tmp_path / "ready", os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([descriptor], [], [], 60)[0], "the test never came to hang"
    os.set_blocking(descriptor, True)
    job, server = map(int, os.read(descriptor, 100).split())
    os.close(descriptor)
    assert server != process.pid
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert ended(job)
    assert ended(server)


def test_both_isolations_decide_the_same(sample: Sample):
    sample.gate(PASSES, {**criterion(), "with": {"paths": ["tests/gone.py"]}})
    found = {}
    for isolation in ("fork", "process"):
        done = sample.run("--isolation", isolation)
        assert done.returncode == 1, done.stderr
        found[isolation] = [said(v) | {"seconds": 0} for v in sample.report().verdicts]
    assert found["fork"] == found["process"]


@pytest.mark.parametrize(("device", "isolation"), [("cuda", "fork"), ("cpu", "process")])
def test_nothing_is_forked_where_it_must_not_be(sample: Sample, device: Any, isolation: Any):
    with warmed(sample.candidate(), device, isolation) as candidate:
        assert candidate.warm is None


def test_platform_that_cannot_fork_says_so(sample: Sample, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with (
        pytest.raises(UserError, match="only on Linux; use --isolation process"),
        warmed(sample.candidate(), "cpu", "fork"),
    ):
        pass


def test_only_what_the_repository_speaks_of_is_imported_ahead(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str]] = []
    original = WarmInterpreter.__init__

    def init(self: Any, python: Any, environment: Any, modules: Any = ()) -> None:
        asked.append(list(modules))
        original(self, python, environment, [])

    monkeypatch.setattr(WarmInterpreter, "__init__", init)
    for text in ("x = 1\n", "import numpy\n", "from torch import nn\n"):
        sample.write("src/shop/prices.py", text)
        with warmed(sample.candidate(), "cpu", "fork"):
            pass
    assert asked == [["pytest"], ["pytest", "numpy"], ["pytest", "torch"]]


@pytest.mark.parametrize(
    "body",
    ["assert [1] == [2]", "assert (1, 'always true')", "x = 1; assert x is 1", "assert 1"],
)
def test_test_that_was_rewritten_ahead_of_time_says_the_same(sample: Sample, body: str):
    file = sample.write("tests/test_it.py", f"def test_it():\n    {body}\n")
    sample.gate(criterion())
    fresh = said(verdict_of(sample.candidate()))
    elsewhere = sample.write("elsewhere/test_it.py", file.read_bytes())
    with forked(sample.candidate()) as candidate:
        assert candidate.warm is not None
        assert candidate.warm.load([], [str(elsewhere)], Cancellation())
        assert said(verdict_of(candidate)) == fresh
        changed = file.read_text().replace(body, "raise KeyError('changed')")
        sample.write("tests/test_it.py", changed)
        (failure,) = verdict_of(candidate).evidence.failures
        assert (failure.path, failure.line) == ("tests/test_it.py", 2)
        assert "changed" in failure.message
