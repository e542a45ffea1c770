"""Attacks on shards: on their reports, and on what each of them collects."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from attack_gate import Interpreter
from attack_platform import GATE, RUN, SOURCE, good
from attack_sample import Changes, code, make

from tiergate import leg, plan, shard_planning, spec
from tiergate.candidate import Candidate
from tiergate.decide import Decision, decide
from tiergate.leg import Leg
from tiergate.processes import Cancellation
from tiergate.repository import Repository
from tiergate.shards import SCHEMA_VERSION, Assignment, DevicePlan, ShardPlan
from tiergate.spec import Spec
from tiergate.splitting import Durations
from tiergate.verdict import Part, Report, Tally, Verdict

_ONE, _TWO = "tests/test_one.py", "tests/test_two.py"


@dataclass(frozen=True)
class ShardAttack:
    """What a platform hands over instead of the two good reports of one plan."""

    name: str
    way: str
    reports: Callable[[list[Report], ShardPlan], list[Report]]
    shows: str


@dataclass(frozen=True)
class SuiteAttack:
    """A change by which shards would collect less than one piece, and its honest neighbour."""

    name: str
    way: str
    changes: Changes
    shows: str
    control: Changes


def plan_of(of: Spec) -> ShardPlan:
    """Return a plan of two shards on the CPU, which share the tests."""
    cells = {
        "tests@cpu": Assignment(1, {_ONE: 1, _TWO: 2}),
        "rules@cpu": Assignment(2),
    }
    return ShardPlan(
        schema_version=SCHEMA_VERSION,
        spec=of.digest,
        head_spec="",
        source=SOURCE,
        devices={"cpu": DevicePlan(2, cells)},
        run=RUN,
    )


def both_shards(of: Spec, shards: ShardPlan) -> list[Report]:
    """Return two good reports: the control of every attack on reports."""

    def shard(index: int, tests: dict[str, str], file: str) -> Report:
        part = Part(
            criterion="tests",
            device="cpu",
            collection=Tally(counts={"collected": len(tests)}),
            run=Tally(counts={"passed": len(tests)}),
            collected=tests,
            passed=list(tests),
            files=[file],
        )
        own = [] if index == 1 else [Verdict("rules", "cpu", "pass", "as expected")]
        return good(of, "cpu", shard=shards.shard("cpu", index), parts=[part], verdicts=own)

    return [
        shard(1, {f"{_ONE}::a": "", f"{_ONE}::b": ""}, _ONE),
        shard(2, {f"{_TWO}::c": ""}, _TWO),
    ]


def decision(change: Callable[[list[Report], ShardPlan], list[Report]]) -> Decision:
    """Decide over what a platform hands over; the CUDA leg is good and whole."""
    gate = spec.parse(GATE.encode(), Path("gate.yaml"))
    shards = plan_of(gate)
    reports = change(both_shards(gate, shards), shards)
    return decide(gate, [*reports, good(gate, "cuda")], source=SOURCE, shards=shards)


def _of_another_plan(reports: list[Report], shards: ShardPlan) -> list[Report]:
    spread = shards.devices["cpu"]
    cells = {**spread.cells, "tests@cpu": Assignment(2, {_ONE: 2, _TWO: 1})}
    other = msgspec.structs.replace(
        shards, devices={"cpu": msgspec.structs.replace(spread, cells=cells)}
    )
    return [reports[0], msgspec.structs.replace(reports[1], shard=other.shard("cpu", 2))]


def _without_files(reports: list[Report], _: ShardPlan) -> list[Report]:
    (part,) = reports[1].parts
    part = msgspec.structs.replace(
        part, files=[], collected={}, collection=Tally(), run=Tally(counts={"passed": 1})
    )
    return [reports[0], msgspec.structs.replace(reports[1], parts=[part])]


REPORTS = [
    ShardAttack(
        "lost-shard",
        "one shard of four was cancelled, and its tests are missed by nobody",
        lambda reports, _: reports[:1],
        "cpu leg 2/2: no report",
    ),
    ShardAttack(
        "doubled-shard",
        "a passing shard is handed in twice, in place of the failing one",
        lambda reports, _: [reports[0], reports[0]],
        "cpu leg 1/2: 2 reports, where there must be exactly one",
    ),
    ShardAttack(
        "renamed-shard",
        "a passing shard is handed in under the number of the failing one",
        lambda reports, _: [
            reports[0],
            msgspec.structs.replace(reports[0], shard=reports[1].shard),
        ],
        "has nothing on rules@cpu, which the plan gives to it",
    ),
    ShardAttack(
        "shard-of-another-plan",
        "two runners split the suite by different durations",
        _of_another_plan,
        "report of the cpu leg 2/2: of another plan of shards",
    ),
    ShardAttack(
        "overlapping-shards",
        "both shards run the same tests, and the sum is right",
        lambda reports, _: [
            reports[0],
            msgspec.structs.replace(
                reports[1],
                parts=[
                    msgspec.structs.replace(
                        reports[1].parts[0], collected={f"{_ONE}::a": ""}, passed=[f"{_ONE}::a"]
                    )
                ],
            ),
        ],
        "shards 1/2 and 2/2 both collected",
    ),
    ShardAttack(
        "tests-in-no-shard",
        "a file is in no group, and the count is made up elsewhere",
        _without_files,
        "says nothing of tests/test_two.py, which is its own",
    ),
]

_MORE = {"tests/test_more.py": "def test_more():\n    pass\n"}

SUITES = [
    SuiteAttack(
        "ignored-in-its-shard",
        "a conftest ignores a file in the one shard that has to run it",
        {
            **_MORE,
            "tests/conftest.py": code("""
                def pytest_ignore_collect(collection_path):
                    return collection_path.name == "test_more.py" or None
            """),
        },
        "ignored: expected 0, observed 1",
        {
            **_MORE,
            "tests/conftest.py": code("""
                def pytest_ignore_collect(collection_path):
                    return collection_path.name == "data.py" or None
            """),
        },
    ),
    SuiteAttack(
        "random-groups",
        "the order is random, and each shard drops the half that it takes for another's",
        {
            **_MORE,
            "tests/conftest.py": code("""
                import random


                def pytest_collection_modifyitems(items):
                    random.shuffle(items)
                    del items[len(items) // 2 :]
            """),
        },
        "deselected: expected 0, observed",
        {
            **_MORE,
            "tests/conftest.py": code("""
                import random


                def pytest_collection_modifyitems(items):
                    random.shuffle(items)
            """),
        },
    ),
    SuiteAttack(
        "collected-everywhere",
        "a hook collects every file in every shard, and tests count twice",
        {
            **_MORE,
            "tests/conftest.py": code("""
                import pytest


                @pytest.hookimpl(tryfirst=True)
                def pytest_ignore_collect():
                    return False
            """),
        },
        "although its file is another shard's",
        _MORE,
    ),
]


class _Nobody:
    """Does not watch."""

    def started(self, cell: str) -> None: ...
    def progress(self, cell: str, what: str) -> None: ...
    def expected(self, cell: str, tests: int) -> None: ...
    def finished(self, verdict: Verdict) -> None: ...
    def observed(self, part: Part) -> None: ...


def verdict_in_shards(root: Path, changes: Changes, running: Interpreter) -> Verdict | None:
    """Make the changed sample, judge its suite in three shards, and put them together."""
    make(root, changes)
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "base"]):
        subprocess.run([*git, *arguments], cwd=root, check=True, capture_output=True)
    gate = spec.parse(
        b"gate: S\npythonpath: [src]\ncriteria:\n"
        b'  - {id: suite, uses: pytest, with: {paths: [tests]}, expect: {passed: ">=2"}}\n',
        root / "gate.yaml",
    )
    repository = Repository(root)
    files = repository.files_under(["tests"])
    shards = shard_planning.make(
        repository,
        gate,
        None,
        {"cpu": 3},
        Durations({"suite@cpu": 3.0 * len(files)}, {"suite@cpu": dict.fromkeys(files, 3.0)}),
        allow_weakening=False,
    )
    assert shards.devices["cpu"].count > 1
    candidate = Candidate(running.python, repository, gate, 1, Cancellation(), running.warm)
    reports = [
        leg.judge(
            Leg(candidate, "cpu", frozenset(), 1, root, shards=shards, shard=index), _Nobody()
        )
        for index in range(1, shards.devices["cpu"].count + 1)
    ]
    assert [cell.name for cell in plan.cells(gate, "cpu")] == ["suite@cpu"]
    return decide(gate, reports, source=repository.source(), shards=shards).cells[0].verdict
