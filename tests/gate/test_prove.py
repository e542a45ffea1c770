"""``tiergate prove``: who watches the watchman."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import sys
import types
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from samples import PASSES, Sample, ended

from tiergate import checkers, plan
from tiergate.checkers import Observation
from tiergate.checkers import collection as collection_checker
from tiergate.expectation import Outcomes
from tiergate.prove import copies, kinds, proof, prover
from tiergate.prove.counter_examples import CounterExample
from tiergate.prove.proof import CriterionProof, Proof, Tried
from tiergate.render import proof as render
from tiergate.verdict import Failure, Source, SpecIdentity, Verdict
from tiergate.warm import WarmInterpreter

IMPORTS = {
    "id": "exports",
    "uses": "imports",
    "with": {"module": "shop", "names": ["total", "prices"]},
}
COLLECTION = {"id": "collects", "uses": "collection", "expect": {"collected": ">=2"}}
BREAKS_TOTAL = {
    "name": "totals are wrong",
    "replace": {"file": "src/shop/prices.py", "old": "sum(prices)", "new": "1"},
    "expect": {"failed": 2},
}
TRUE = {"id": "true", "uses": "command", "with": {"run": ["true"]}}
LOADS = {
    "id": "loads",
    "uses": "command",
    "with": {"run": ["{python}", "-c", "import sys; sys.path[:0] = ['src']; import shop"]},
}


class Watching:
    """Collects what the prover tells."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def untouched(self, verdict: Verdict, when: str) -> None:
        self.said.append(f"{verdict.criterion} {when} {verdict.status}")

    def tried(self, criterion: str, tried: Tried) -> None:
        self.said.append(f"{criterion} {tried.name}")


def prove(sample: Sample, *criteria: dict[str, Any], **top: Any) -> dict[str, CriterionProof]:
    """Prove criteria in this process, with forked cells."""
    sample.gate(*criteria, **top)
    candidate = sample.candidate()
    cells = plan.cells(candidate.spec, "cpu")
    with WarmInterpreter(candidate.python, candidate.environment("cpu"), ["pytest"]) as warm:
        found = prover.prove(
            cells, msgspec.structs.replace(candidate, warm=warm), jobs=2, listener=Watching()
        )
    return {proven.criterion: proven for proven in found}


def run(sample: Sample, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    temporary = tmp_path / "tmp"
    temporary.mkdir(exist_ok=True)
    done = sample.tiergate(
        "prove", "--python", str(sample.python), *arguments, TMPDIR=str(temporary)
    )
    return done.returncode, done.stdout, done.stderr


def written(sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sample.root / ".tiergate" / "proof.json").read_bytes())
    return found


@pytest.fixture
def shown(sample: Sample) -> Sample:
    """A sample whose criteria can all fail."""
    passes = {**PASSES, "proofs": [BREAKS_TOTAL]}
    sample.gate(passes, IMPORTS, COLLECTION)
    sample.commit()
    return sample


def test_criteria_that_can_fail_are_proven_and_the_repository_is_not_touched(
    shown: Sample, tmp_path: Path
):
    before = copies.digest(shown.root)
    inodes = {path: path.stat().st_mtime_ns for path in (shown.root / "src").rglob("*")}
    code, output, errors = run(shown, tmp_path)
    assert (code, errors) == (0, "")
    assert "PROVEN: 3 of 3 criteria can fail; 19 of 19 counter-examples caught" in output
    row = (
        "prices     totals are wrong (declared)  ✓ fail   failed: tests/test_prices.py::test_total"
    )
    assert row in output
    found = written(shown)
    jsonschema.validate(found, proof.json_schema())
    assert [c["conclusion"] for c in found["criteria"]] == ["proven"] * 3
    assert [c["made"] for c in found["criteria"]] == [10, 4, 5]
    assert all(len(c["tried"]) == c["made"] for c in found["criteria"])
    (shown.root / ".tiergate" / "proof.json").unlink()
    (shown.root / ".tiergate" / ".gitignore").unlink()
    assert copies.digest(shown.root) == before
    assert {path: path.stat().st_mtime_ns for path in (shown.root / "src").rglob("*")} == inodes
    assert list((tmp_path / "tmp").iterdir()) == []


def test_copies_use_what_is_kept_of_the_repository_and_leave_nothing_of_their_own(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TIERGATE_CACHE", "1")
    rules = {"rules": ["unsafe-torch-load"], "paths": ["src"]}
    found = prove(sample, {"id": "loads", "uses": "semgrep", "with": rules})
    assert found["loads"].conclusion == "proven"
    kept = {path.name.split("-")[0] for path in (tmp_path / "cache/tiergate/findings").iterdir()}
    assert sorted(kept) == ["loads", "semgrep", "syntax"]
    assert len(list((tmp_path / "cache/tiergate/findings").iterdir())) == len(kept)


def test_check_that_cannot_fail_is_reported(sample: Sample, tmp_path: Path):
    sample.gate(PASSES, TRUE)
    code, output, _ = run(sample, tmp_path, "--only", "true", "--format", "github")
    assert code == 1
    assert "NOT PROVEN: 0 of 1 criteria can fail" in output
    assert "::error title=true%3A not proven::no counter-example: for uses: command" in output


def test_command_that_always_passes_is_reported_for_its_declared_counter_example(sample: Sample):
    declared = {"name": "shop is gone", "delete": "src/shop/__init__.py"}
    appended = {"name": "shop raises", "append": {"file": "src/shop/prices.py", "text": "1 / 0\n"}}
    found = prove(sample, {**TRUE, "proofs": [declared]}, {**LOADS, "proofs": [appended]})
    assert found["true"].conclusion == "not proven"
    assert found["true"].problem == "1 of 1 counter-examples are not caught: shop is gone"
    assert found["true"].tried[0].observed == "pass"
    assert found["loads"].conclusion == "proven"
    assert found["loads"].tried[0].counts == {"exit-code": 1}


@pytest.mark.parametrize("criterion", [PASSES, COLLECTION, IMPORTS])
def test_checker_that_always_passes_is_reported(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, criterion: dict[str, Any]
):
    counts = {"passed": 2, "collected": 2, "found": 2}
    checker = checkers.get(criterion["uses"])
    monkeypatch.setattr(checker, "observe", lambda *_: Observation(counts=counts))
    (found,) = prove(sample, criterion).values()
    assert found.conclusion == "not proven"
    assert len(found.tried) == found.made > 3
    assert not any(attempt.caught for attempt in found.tried)


def test_checker_that_fails_without_evidence_is_reported(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []

    def observe(parameters: Any, context: Any) -> Observation:
        root = str(context.candidate.repository.root)
        seen.append(root)
        claim = "pass" if root.endswith("untouched") else "fail"
        return Observation(counts={"collected": 2}, claim=claim, summary="no")

    monkeypatch.setattr(collection_checker, "observe", observe)
    (found,) = prove(sample, COLLECTION).values()
    assert found.conclusion == "not proven"
    problems = {attempt.name: attempt.problem for attempt in found.tried}
    assert problems["test-file-ignored"] == "the evidence does not name tests/test_prices.py"
    assert len(seen) == found.made + 2


def third_party(monkeypatch: pytest.MonkeyPatch, *, honest: bool) -> None:
    class With(msgspec.Struct, forbid_unknown_fields=True):
        pass

    def observe(parameters: Any, context: Any) -> Observation:
        text = (context.candidate.repository.root / "src/shop/prices.py").read_text()
        found = int("forbidden" in text and honest)
        failures = (Failure(id="src/shop/prices.py", outcome="words"),) if found else ()
        return Observation(counts={"words": found}, failures=failures)

    def counter_examples(parameters: Any, tree: Any) -> Any:
        file = "src/shop/prices.py"
        yield CounterExample(
            "word-added", "a word", {file: tree.read(file) + b"# forbidden\n"}, named=(file,)
        )

    module = types.ModuleType("third_party")
    vars(module).update(
        With=With,
        outcomes=lambda _: Outcomes(strict=("words",), default={"words": 0}),
        problems=lambda _: (),
        observe=observe,
        reproduce=lambda *_: [],
        counter_examples=counter_examples,
    )
    monkeypatch.setitem(sys.modules, "third_party", module)
    monkeypatch.setattr(checkers, "BUILT_IN", {**checkers.BUILT_IN, "words": "third_party"})
    checkers.get.cache_clear()


@pytest.mark.parametrize("honest", [True, False])
def test_third_partys_checker_brings_its_own_counter_examples(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, honest: bool
):
    third_party(monkeypatch, honest=honest)
    try:
        (found,) = prove(sample, {"id": "words", "uses": "words"}).values()
    finally:
        checkers.get.cache_clear()
    assert found.conclusion == ("proven" if honest else "not proven")
    assert [attempt.name for attempt in found.tried] == ["word-added"]


def test_criterion_that_fails_untouched_is_not_proven_and_nothing_is_tried(sample: Sample):
    (found,) = prove(sample, {**PASSES, "expect": {"passed": 3}}).values()
    assert (found.conclusion, found.tried, found.before) == ("not proven", [], "fail")
    assert "the untouched copy does not pass: fail: 2 passed" in found.problem


def test_criterion_that_cannot_be_judged_untouched_is_not_evaluated(sample: Sample, tmp_path: Path):
    sample.gate({**TRUE, "with": {"run": ["/no/such/program"]}})
    code, output, _ = run(sample, tmp_path)
    assert code == 3
    assert "NOT EVALUATED: 0 of 1 criteria can fail" in output
    assert written(sample)["criteria"][0]["before"] == "error"


def test_criterion_that_fails_afterwards_is_not_proven(sample: Sample, tmp_path: Path):
    # Every judgement leaves something behind, and the third finds it.
    trace = tmp_path / "trace"
    code = (
        "import pathlib, sys\n"
        f"trace = pathlib.Path({str(trace)!r})\n"
        "count = len(trace.read_text()) if trace.exists() else 0\n"
        "trace.write_text('x' * (count + 1))\n"
        "sys.exit(count > 1 or pathlib.Path('stop').exists())\n"
    )
    declared = {"name": "stopped", "create": {"file": "stop", "text": "x"}}
    criterion = {**TRUE, "with": {"run": ["{python}", "-c", code]}, "proofs": [declared]}
    (found,) = prove(sample, criterion).values()
    assert (found.before, found.after, found.conclusion) == ("pass", "fail", "not proven")
    assert "does not pass again" in found.problem
    assert found.tried[0].caught


@pytest.mark.parametrize(
    ("declared", "conclusion", "problem"),
    [
        ({**BREAKS_TOTAL, "expect": {"failed": 1}}, "not proven", "failed: expected 1, observed 2"),
        ({**BREAKS_TOTAL, "expect": {"passed": 0}}, "not proven", "failed: expected 0, observed 2"),
        ({**BREAKS_TOTAL, "evidence": "test_gone"}, "not proven", "does not name test_gone"),
        ({**BREAKS_TOTAL, "evidence": "test_total"}, "proven", ""),
        ({"name": "harmless", "create": {"file": "x", "text": "x"}}, "not proven", "is pass, not"),
        ({"name": "gone", "delete": "gone.py"}, "not evaluated", "gone.py is no file"),
        (
            {"name": "stops", "append": {"file": "tests/test_prices.py", "text": "1 / 0\n"},
             "status": "error"},
            "not proven",
            "the verdict is fail, not error",
        ),
    ],
)  # fmt: skip
def test_declared_counter_example_must_come_out_as_declared(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, declared: Any, conclusion: str, problem: str
):
    monkeypatch.setattr(kinds, "GENERIC", {"pytest": lambda *_: ()})
    (found,) = prove(sample, {**PASSES, "proofs": [declared]}).values()
    assert found.conclusion == conclusion
    (attempt,) = found.tried
    assert problem in attempt.problem
    assert attempt.caught == (conclusion == "proven")


def test_counter_example_that_changes_nothing_is_an_error(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
):
    same = CounterExample("same", "nothing", {"gate.yaml": None}, named=("x",))

    def examples(_: Any, tree: Any) -> list[CounterExample]:
        return [
            dataclasses.replace(same, edits={"src/shop/prices.py": tree.read("src/shop/prices.py")})
        ]

    monkeypatch.setattr(kinds, "GENERIC", {"pytest": examples})
    (found,) = prove(sample, PASSES).values()
    assert found.conclusion == "not evaluated"
    assert found.problem == "same: it could not be tried: it changes nothing"


def test_expectation_that_bears_everything_is_reported(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
):
    kind = kinds.GENERIC["pytest"]
    monkeypatch.setattr(
        kinds,
        "GENERIC",
        {"pytest": lambda *given: [e for e in kind(*given) if e.name == "test-deleted"]},
    )
    (found,) = prove(sample, {**PASSES, "expect": {"passed": ">=1"}}).values()
    assert found.conclusion == "not proven"
    assert found.inapplicable == ["test-deleted"]
    assert "the expectation bears test-deleted; make it stricter" in found.problem


def test_criterion_that_compares_with_the_base_takes_the_untouched_copy_for_it(sample: Sample):
    (found,) = prove(sample, {**PASSES, "expect": {"passed": ">=base"}}).values()
    assert found.conclusion == "proven", found.problem
    evidence = {attempt.name: attempt.evidence for attempt in found.tried}
    assert evidence["test-deleted"].startswith("vanished: tests/test_prices.py::")


def test_killed_run_leaves_the_repository_as_it_was_and_the_next_one_tidies_up(
    shown: Sample, tmp_path: Path
):
    before = copies.digest(shown.root)
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    hang = (
        "import os, threading\n\n\ndef test_hang():\n"
        f"    if os.path.exists('hang'):\n        with open({str(ready)!r}, 'w') as ready:\n"
        "            print(os.getpid(), file=ready)\n        threading.Event().wait()\n"
    )
    shown.write("tests/test_hang.py", hang)
    declared = {"name": "hangs", "create": {"file": "hang", "text": "x"}}
    criterion = {
        "id": "hang",
        "uses": "pytest",
        "with": {"paths": ["tests/test_hang.py"]},
        "expect": {"passed": 1},
        "proofs": [declared],
    }
    shown.gate(criterion)
    before = copies.digest(shown.root)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = shown.start("prove", "--python", str(shown.python), TMPDIR=str(temporary))
    descriptor = os.open(ready, os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([descriptor], [], [], 60)[0], "the test never came to hang"
    os.set_blocking(descriptor, True)
    pid = int(os.read(descriptor, 100))
    os.close(descriptor)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert ended(pid), "what a killed judge had forked ends with it"
    left = [path.name for path in temporary.iterdir() if path.name.startswith("tiergate-prove-")]
    assert len(left) == 1
    for extra in (shown.root / ".tiergate").iterdir():
        extra.unlink()
    assert copies.digest(shown.root) == before
    shown.gate(IMPORTS)
    assert run(shown, tmp_path)[0] == 0
    assert [p for p in temporary.iterdir() if p.name.startswith("tiergate-prove-")] == []


def test_interrupted_run_is_no_proof(sample: Sample, monkeypatch: pytest.MonkeyPatch):
    sample.gate(IMPORTS)
    candidate = sample.candidate()

    class Stopping(Watching):
        def tried(self, criterion: str, tried: Tried) -> None:
            candidate.cancellation.cancel("interrupted by SIGTERM")

    cells = plan.cells(candidate.spec, "cpu")
    (found,) = prover.prove(cells, candidate, jobs=1, listener=Stopping())
    assert found.conclusion == "not evaluated"
    assert found.problem == "1 of 4 counter-examples were tried"


def test_a_counter_example_that_an_interrupt_ended_is_no_survivor(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
):
    sample.gate(IMPORTS)
    candidate = sample.candidate()
    apply = copies.apply

    def interrupted(*change: Any) -> None:
        candidate.cancellation.cancel("interrupted by SIGINT")
        apply(*change)

    monkeypatch.setattr(copies, "apply", interrupted)
    cells = plan.cells(candidate.spec, "cpu")
    (found,) = prover.prove(cells, candidate, jobs=1, listener=Watching())
    assert found.conclusion == "not evaluated"
    assert found.problem == "0 of 4 counter-examples were tried"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "price"], "no criterion 'price' (did you mean 'prices'?)"),
        (["--device", "cuda"], "no criterion is judged on 'cuda'"),
        (["--python", "/no/python"], "no such interpreter"),
        (["--report", "/proc/x"], "choose another folder"),
    ],
)
def test_wrong_command_line_is_refused(
    sample: Sample, tmp_path: Path, arguments: list[str], message: str
):
    code, _, errors = run(sample, tmp_path, *arguments)
    assert code == 2
    assert message in errors


def proof_of(*conclusions: proof.Conclusion, interruption: str = "") -> Proof:
    return Proof(
        schema_version=1,
        tool_version="0",
        spec=SpecIdentity("gate.yaml", "0" * 64),
        source=Source(),
        device="cpu",
        started="2026-01-02T03:04:05+00:00",
        seconds=1.0,
        criteria=[
            CriterionProof(
                f"C{number}",
                "pytest",
                "cpu",
                conclusion,
                problem="" if conclusion == "proven" else "a | b",
            )
            for number, conclusion in enumerate(conclusions)
        ],
        interruption=interruption,
    )


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (proof_of("proven", "proven"), 0),
        (proof_of("proven", "not proven"), 1),
        (proof_of("not evaluated", "not proven"), 1),
        (proof_of("proven", "not evaluated"), 3),
        (proof_of("proven", interruption="interrupted by SIGINT"), 3),
        (proof_of(), 3),
    ],
)
def test_exit_code_is_the_contracts(made: Proof, code: int):
    assert made.exit_code == code
    assert ("PROVEN" in render.conclusion(made).split(":")[0]) == (code != 3)


def test_table_shows_what_was_tried_and_what_caught_it():
    caught = Tried("a", "x", caught=True, expected="fail", observed="fail", summary="1 failed")
    missed = Tried("b\nb", "x", caught=False, expected="fail", observed="pass", problem="passed")
    of = CriterionProof(
        "C", "pytest", "cpu", "not proven", "1 of 2", "pass", "pass", 2, [caught, missed]
    )
    made = msgspec.structs.replace(proof_of(), criteria=[of])
    assert render.table(made, colour=False).splitlines()[2:] == [
        "C          untouched, before  pass",
        "C          a                  ✓ fail   1 failed",
        "C          b\\nb               ✗ pass   passed",
        "C          untouched, after   pass",
        "",
        "! C: 1 of 2",
        "",
        "NOT PROVEN: 0 of 1 criteria can fail; 1 of 2 counter-examples caught",
    ]
    assert "| C | a | ✓ fail | 1 failed |" in render.summary(made)


def test_job_summary_cannot_be_drawn_on_by_a_name():
    assert "a \\| b" in render.summary(proof_of("not proven"))
