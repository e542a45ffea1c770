"""Cells in shards: the same verdicts and counts as in one piece, and no part is ever lost."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import parse
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from samples import Sample
from sharding import decided, essence, in_shards, judged, planned

from tiergate import cli, history, shard_planning, shards, splitting
from tiergate import plan as plans
from tiergate.errors import UserError
from tiergate.repository import Repository
from tiergate.shards import Assignment
from tiergate.splitting import Durations
from tiergate.verdict import Report, Run, Tally
from tiergate.warm import WarmInterpreter

SUITE: dict[str, Any] = {
    "id": "suite",
    "uses": "pytest",
    "with": {"paths": ["tests"]},
    "expect": {"passed": 8},
}
ALL: dict[str, Any] = {
    "id": "all",
    "uses": "collection",
    "with": {"paths": ["tests"]},
    "expect": {"collected": 8},
}
FILES = [f"tests/test_{letter}.py" for letter in "abcd"]
FOUR = "def test_one():\n    pass\n\n\ndef test_two():\n    assert True\n"


@pytest.fixture
def suite(sample: Sample, warm: None) -> Sample:
    """Four files of two passing tests, judged by two criteria."""
    (sample.root / "tests/test_prices.py").unlink()
    for file in FILES:
        sample.write(file, FOUR)
    sample.gate(SUITE, ALL)
    sample.commit()
    return sample


def both(suite: Sample, count: int = 2) -> tuple[Any, Any]:
    """Return what is decided in one piece and in shards."""
    plan = planned(suite, count)
    assert any(given.files for given in plan.devices["cpu"].cells.values())
    whole = decided(suite, [judged(suite)])
    return essence(whole), essence(decided(suite, in_shards(suite, plan), plan))


CASES = {
    "all pass": {},
    "a failure": {"tests/test_b.py": "def test_one():\n    assert 1 == 2\n"},
    "a skip": {"tests/test_c.py": "import pytest\npytest.skip('no', allow_module_level=True)\n"},
    "a file that does not import": {"tests/test_d.py": "import nothing_of_that_name\n"},
    "an ignored file": {"tests/conftest.py": "collect_ignore = ['test_c.py']\n"},
    "a dropped test": {
        "tests/conftest.py": "def pytest_collection_modifyitems(items):\n    del items[0]\n"
    },
    "a broken conftest": {"tests/deep/conftest.py": "import nothing\n", "tests/deep/test_x.py": ""},
    "a hook that decides": {
        "tests/conftest.py": "def pytest_pyfunc_call(pyfuncitem):\n    return True\n"
    },
    "two modules of one name": {
        "tests/p/test_same.py": FOUR,
        "tests/q/test_same.py": FOUR,
    },
    "a shadowed test": {"tests/test_a.py": FOUR + FOUR.replace("test_two", "test_one")},
    "a file of another name": {
        "tests/conftest.py": (
            "import pytest\n\n\n"
            "class Item(pytest.Item):\n    def runtest(self): pass\n\n\n"
            "class File(pytest.File):\n    def collect(self):\n"
            "        yield Item.from_parent(self, name='x')\n\n\n"
            "def pytest_collect_file(file_path, parent):\n"
            "    if file_path.suffix == '.txt':\n"
            "        return File.from_parent(parent, path=file_path)\n"
        ),
        "tests/one.txt": "",
        "tests/two.txt": "",
    },
    "a warning on import": {"tests/test_a.py": "import warnings\nwarnings.warn('x')\n" + FOUR},
}


@pytest.mark.parametrize("files", CASES.values(), ids=CASES)
def test_shards_come_to_the_verdicts_and_counts_of_one_piece(
    suite: Sample, files: dict[str, str]
) -> None:
    for name, content in files.items():
        suite.write(name, content)
    whole, together = both(suite)
    if files == CASES["a dropped test"]:  # each shard's session drops the first of its own
        assert together["conclusion"] == whole["conclusion"] == "failed"
        return
    if files == CASES["a hook that decides"]:
        # The hook's place is told once for all shards, each test for itself.
        assert whole["cells"]["suite@cpu"][2]["overrides"] == 1
    assert together == whole


@pytest.mark.parametrize("count", [2, 3, 50])
def test_any_number_of_shards_will_do(suite: Sample, count: int) -> None:
    candidate = suite.candidate()
    plan = shard_planning.make(
        Repository(suite.root),
        candidate.spec,
        None,
        {"cpu": count},
        Durations({"suite@cpu": 8, "all@cpu": 4}, {"suite@cpu": dict.fromkeys(FILES, 2.0)}),
        allow_weakening=False,
    )
    device = plan.devices["cpu"]
    assert device.count <= 8
    assert all(device.cells_of(index) for index in range(1, device.count + 1))
    reports = in_shards(suite, plan)
    assert decided(suite, reports, plan).exit_code == 0


def test_what_needs_a_cell_of_another_shard_is_blocked(suite: Sample) -> None:
    suite.gate(
        {**SUITE, "expect": {"passed": 9}},
        {**ALL, "needs": ["suite"]},
        {"id": "then", "uses": "command", "with": {"run": ["true"]}, "needs": ["all"]},
    )
    whole, together = both(suite)
    assert [cell[0] for cell in whole["cells"].values()] == ["fail", "blocked", "blocked"]
    assert together == whole


def test_a_waiver_is_applied_to_the_whole(suite: Sample) -> None:
    waiver = {"criterion": "suite", "reason": "r", "owner": "o", "expires": "2026-12-20"}
    suite.gate({**SUITE, "expect": {"passed": 9}}, ALL, waivers=[waiver])
    plan = planned(suite, 2)
    decision = decided(suite, in_shards(suite, plan), plan)
    assert [cell.verdict and cell.verdict.status for cell in decision.cells] == ["waived", "pass"]
    assert decision.exit_code == 0


FLAKY = """
import pathlib

MARKER = pathlib.Path(__file__).parents[2] / "ran"


def test_one():
    ran = MARKER.exists()
    MARKER.touch()
    assert ran, "first time"


def test_two():
    pass
"""


@pytest.mark.parametrize(("flaky", "code"), [("warn", 0), ("fail", 1)])
def test_a_flaky_test_of_one_shard_is_flaky_in_the_whole(
    suite: Sample, flaky: str, code: int
) -> None:
    suite.gate({**SUITE, "retries": 1, "flaky": flaky}, ALL)
    suite.write("tests/test_b.py", FLAKY)
    plan = planned(suite, 2)
    decision = decided(suite, in_shards(suite, plan), plan)
    verdict = decision.cells[0].verdict
    assert verdict is not None
    assert verdict.evidence.observed == {"passed": 8, "flaky": 1, "collected": 8}
    assert "flaky: tests/test_b.py::test_one" in verdict.evidence.notes
    assert decision.exit_code == code


def test_a_conftest_that_ignores_a_file_only_where_it_is_evaluated_is_red(suite: Sample) -> None:
    plan = planned(suite, 2)
    others = plan.devices["cpu"].cells["suite@cpu"].files
    # The shard can be told by the file that the hook is not asked about, or is ignored before.
    suite.write(
        "tests/conftest.py",
        "def pytest_ignore_collect(collection_path):\n"
        "    return collection_path.name == 'test_d.py' or None\n",
    )
    plan = planned(suite, 2)
    decision = decided(suite, in_shards(suite, plan), plan)
    assert decision.exit_code == 1
    verdict = decision.cells[0].verdict
    assert verdict is not None
    assert verdict.evidence.observed["ignored"] == 1
    assert set(others) == set(FILES)


def test_a_hook_that_collects_what_is_another_shards_is_no_pass(suite: Sample) -> None:
    suite.write(
        "tests/conftest.py",
        "import pytest\n\n\n@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_ignore_collect(collection_path):\n    return False\n",
    )
    plan = planned(suite, 2)
    decision = decided(suite, in_shards(suite, plan), plan)
    assert decision.exit_code == 3
    verdict = decision.cells[0].verdict
    assert verdict is not None
    assert verdict.status == "error"
    assert "although its file is another shard's" in verdict.summary


# Reports that do not add up

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def good(
    template: Sample, warm_interpreter: WarmInterpreter
) -> Iterator[tuple[Sample, Any, list[Report]]]:
    """A sample, a plan of two shards, and its two good reports."""
    with copied(template, warm_interpreter) as sample:
        (sample.root / "tests/test_prices.py").unlink()
        for file in FILES:
            sample.write(file, FOUR)
        once = {"id": "once", "uses": "command", "with": {"run": ["true"]}}
        sample.gate(SUITE, {**ALL, "expect": {"collected": ">=1"}}, once)
        sample.commit()
        plan = planned(sample, 2)
        yield sample, plan, in_shards(sample, plan)


@contextmanager
def copied(template: Sample, warm_interpreter: WarmInterpreter) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "sample"
        shutil.copytree(template.root, root)
        yield Sample(root, template.python, warm=warm_interpreter)


def with_part(report: Report, **changes: Any) -> Report:
    first, *rest = report.parts
    return replace(report, parts=[replace(first, **changes), *rest])


def renumbered(report: Report, **changes: Any) -> Report:
    assert report.shard is not None
    return replace(report, shard=replace(report.shard, **changes))


def doubled(report: Report) -> Report:
    return replace(report, parts=[*report.parts, report.parts[0]])


BROKEN: dict[str, tuple[Any, str]] = {
    "lost": (lambda one, _: [one], "cpu leg 2/2: no report"),
    "all lost": (lambda *_: [], "cpu leg 1/2: no report"),
    "doubled": (lambda one, two: [one, two, two], "cpu leg 2/2: 2 reports"),
    "the same twice": (lambda one, _: [one, renumbered(one, index=2)], "cpu leg 2/2: "),
    "of another plan": (
        lambda one, two: [one, renumbered(two, plan="0" * 64)],
        "report of the cpu leg 2/2: of another plan of shards",
    ),
    "of a larger plan": (
        lambda one, two: [one, renumbered(two, count=3)],
        "report of the cpu leg 2/3: of a shard that the plan does not have",
    ),
    "beyond the plan": (
        lambda one, two: [one, two, renumbered(two, index=3, count=3)],
        "report of the cpu leg 3/3: of a shard that the plan does not have",
    ),
    "of no shard": (lambda one, two: [one, replace(two, shard=None)], "of no shard, but the plan"),
    "a part is gone": (
        lambda one, two: [one, replace(two, parts=two.parts[1:])],
        "report of the cpu leg 2/2: has nothing on suite@cpu",
    ),
    "a part is there twice": (
        lambda one, two: [one, doubled(two)],
        "report of the cpu leg 2/2: is on suite@cpu, which the plan does not give to it so",
    ),
    "a whole cell is there twice": (
        lambda one, two: [replace(v, verdicts=[*one.verdicts, *two.verdicts]) for v in (one, two)],
        "is on once@cpu, which the plan does not give to it so",
    ),
    "a verdict in place of a part": (
        lambda one, two: [
            one,
            replace(
                two,
                parts=two.parts[1:],
                verdicts=[
                    *two.verdicts,
                    replace((*one.verdicts, *two.verdicts)[0], criterion="suite"),
                ],
            ),
        ],
        "report of the cpu leg 2/2: has nothing on suite@cpu",
    ),
    "tests of the other shard": (
        lambda one, two: [one, with_part(two, collected=one.parts[0].collected)],
        "suite@cpu: shards 1/2 and 2/2 both collected",
    ),
    "tests of another file": (
        lambda one, two: [one, with_part(two, collected={FILES[0] + "::x": ""})],
        "suite@cpu: shard 2/2 collected tests/test_a.py::x, which is another shard's",
    ),
    "files that were never visited": (
        lambda one, two: [one, with_part(two, files=[])],
        "suite@cpu: shard 2/2 says nothing of tests/test_",
    ),
    "an error": (lambda one, two: [one, with_part(two, error="it crashed")], ""),
    "fewer tests": (
        lambda one, two: [
            one,
            with_part(two, run=Tally(counts={"passed": 3})),
        ],
        "",
    ),
    "interrupted": (
        lambda one, two: [one, replace(two, complete=False)],
        "report of the cpu leg 2/2: incomplete",
    ),
}


@pytest.mark.parametrize(("change", "says"), BROKEN.values(), ids=BROKEN)
def test_shards_that_do_not_add_up_are_no_pass_and_the_leg_is_named(
    good: tuple[Sample, Any, list[Report]], change: Any, says: str
) -> None:
    sample, plan, reports = good
    assert decided(sample, reports, plan).exit_code == 0
    decision = decided(sample, change(*reports), plan)
    assert decision.exit_code != 0
    assert says in "\n".join(decision.problems), decision.problems


def test_shards_without_their_plan_are_no_pass(good: tuple[Sample, Any, list[Report]]) -> None:
    sample, _, reports = good
    decision = decided(sample, reports)
    assert decision.exit_code == 3
    assert "give the one that the legs had with --plan" in decision.problems[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spec": "0" * 64}, "made from another spec"),
        ({"head_spec": "0" * 64}, "made from another spec of the head"),
        ({"source": shards.Source("d" * 40, "8" * 64)}, "made for another state"),
    ],
)
def test_a_plan_of_something_else_is_no_pass(
    good: tuple[Sample, Any, list[Report]], changes: Any, says: str
) -> None:
    sample, plan, reports = good
    other = replace(plan, **changes)
    reports = [renumbered(report, plan=other.digest) for report in reports]
    decision = decided(sample, reports, other)
    assert decision.exit_code == 3
    assert [p for p in decision.problems if p.startswith("the plan of shards: " + says)]


def test_a_plan_that_lacks_a_cell_is_no_pass(good: tuple[Sample, Any, list[Report]]) -> None:
    sample, plan, reports = good
    device = plan.devices["cpu"]
    cells = {name: given for name, given in device.cells.items() if name != "once@cpu"}
    other = replace(plan, devices={"cpu": replace(device, cells=cells)})
    reports = [replace(renumbered(report, plan=other.digest), verdicts=[]) for report in reports]
    decision = decided(sample, reports, other)
    assert decision.exit_code == 3
    assert "does not have just the cells of the spec: once@cpu" in "\n".join(decision.problems)


def test_what_the_run_reported_before_its_plan_was_made_anew_is_left_out(
    good: tuple[Sample, Any, list[Report]],
) -> None:
    sample, plan, reports = good
    plan = replace(plan, run=Run("7", 2))
    again = [renumbered(replace(report, run=Run("7", 2)), plan=plan.digest) for report in reports]
    before = renumbered(replace(reports[0], run=Run("7", 1)), index=3, count=3)
    assert decided(sample, [*again, before], plan).exit_code == 0
    assert decided(sample, [again[0], replace(again[1], run=Run("7", 1))], plan).exit_code == 3


# Random suites

TESTS = {
    "passes": "def test_{n}():\n    pass\n",
    "fails": "def test_{n}():\n    assert 0\n",
    "errs": "def test_{n}(nothing):\n    pass\n",
    "skips": "import pytest\n\n\n@pytest.mark.skip\ndef test_{n}():\n    pass\n",
    "xfails": "import pytest\n\n\n@pytest.mark.xfail\ndef test_{n}():\n    assert 0\n",
    "xpasses": "import pytest\n\n\n@pytest.mark.xfail\ndef test_{n}():\n    pass\n",
    "many": (
        "import pytest\n\n\n@pytest.mark.parametrize('x', [1, 2])\ndef test_{n}(x):\n    pass\n"
    ),
    "returns": "def test_{n}():\n    return 1\n",
    "broken": "syntax error {n}\n",
}
names = st.sampled_from(["passes", "passes", "passes", *TESTS])
suites = st.lists(st.lists(names, max_size=3), min_size=2, max_size=5)


# Each example runs sessions: a failing one is not made smaller.
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(contents=suites, count=st.integers(2, 4), data=st.data())
def test_a_random_suite_is_judged_alike_and_no_change_of_its_shards_makes_it_green(
    template: Sample,
    warm_interpreter: WarmInterpreter,
    contents: list[list[str]],
    count: int,
    data: st.DataObject,
) -> None:
    with copied(template, warm_interpreter) as sample:
        (sample.root / "tests/test_prices.py").unlink()
        for number, kinds in enumerate(contents):
            text = "\n\n".join(TESTS[kind].format(n=n) for n, kind in enumerate(kinds))
            sample.write(f"tests/test_{number}.py", text)
        # Many of them pass: what is expected is what is there, if nothing is wrong.
        passing = sum({"passes": 1, "many": 2}.get(kind, 0) for kinds in contents for kind in kinds)
        sample.gate({**SUITE, "expect": {"passed": max(1, passing)}})
        sample.commit()
        plan = planned(sample, count)
        reports = in_shards(sample, plan)
        whole = decided(sample, [judged(sample)])
        assert essence(decided(sample, reports, plan)) == essence(whole)
        if plan.devices["cpu"].count == 1:
            return
        at = data.draw(st.integers(0, len(reports) - 1))
        other = reports[(at + 1) % len(reports)]
        worse = [
            reports[:at] + reports[at + 1 :],
            [*reports, reports[at]],
            [*reports[:at], other, *reports[at + 1 :]],
            [*reports[:at], renumbered(reports[at], plan="f" * 64), *reports[at + 1 :]],
            [*reports[:at], with_part(reports[at], error="x"), *reports[at + 1 :]],
            [*reports[:at], replace(reports[at], parts=other.parts), *reports[at + 1 :]],
        ]
        for changed in worse:
            assert decided(sample, changed, plan).exit_code != 0


# The plan


def cells_of(*criteria: str) -> list[plans.Cell]:
    return plans.cells(parse("gate: T\ncriteria:\n" + "".join(criteria)), "cpu")


def suite_cell(name: str, paths: str, args: str = "[]") -> str:
    return (
        f"  - {{id: {name}, uses: pytest, with: {{paths: [{paths}], args: {args}}}, "
        "expect: {passed: 1}}\n"
    )


PRESENT = ["src/a.py", "tests/a/test_x.py", "tests/b/test_x.py", "tests/help.py", "tests/test_y.py"]


@pytest.mark.parametrize(
    ("cell", "files"),
    [
        (("s", "tests"), ["tests/a/test_x.py", "tests/b/test_x.py", "tests/test_y.py"]),
        (("s", "tests/a, tests/help.py"), ["tests/a/test_x.py", "tests/help.py"]),
        (("s", "."), ["tests/a/test_x.py", "tests/b/test_x.py", "tests/test_y.py"]),
        (("s", "tests/test_y.py::test_z"), None),
        (("s", "tests/gone.py"), None),
        (("s", "tests", "[-x]"), None),
        (("s", "tests", "[--maxfail=2]"), None),
    ],
)
def test_a_suite_is_split_by_its_test_files_where_that_changes_nothing(
    cell: tuple[str, ...], files: list[str] | None
) -> None:
    found = splitting.files_of(cells_of(suite_cell(*cell)), PRESENT, splitting.folders_of(PRESENT))
    assert found == ({} if files is None else {"s@cpu": files})


def test_modules_of_one_name_stay_together() -> None:
    cells = cells_of(suite_cell("s", "tests"))
    files = splitting.files_of(cells, PRESENT, splitting.folders_of(PRESENT))
    split = splitting.spread(cells, [], 3, files, Durations()).cells["s@cpu"].files
    assert split["tests/a/test_x.py"] == split["tests/b/test_x.py"] != split["tests/test_y.py"]


seconds = st.floats(0.01, 50)


@settings(max_examples=60, deadline=None)
@given(st.lists(seconds, min_size=1, max_size=40), seconds, st.integers(1, 6), st.floats(0, 1))
def test_shards_are_balanced_and_every_piece_is_somewhere(
    took: list[float], other: float, count: int, overhead: float
) -> None:
    cells = cells_of(suite_cell("s", "tests"), "  - {id: c, uses: command, with: {run: [c]}}\n")
    names = [f"tests/test_{number}.py" for number in range(len(took))]
    known = dict(zip(names, took, strict=True))
    durations = Durations({"s@cpu": sum(took) + overhead, "c@cpu": other}, {"s@cpu": known})
    made = splitting.spread(cells, [], count, {"s@cpu": names}, durations)
    assert made == splitting.spread(cells, [], count, {"s@cpu": names}, durations)
    used = {shard for given in made.cells.values() for shard in given.shards}
    assert used == set(range(1, made.count + 1))
    assert made.count <= count
    given = made.cells["s@cpu"]
    assert not given.files or set(given.files) == set(names)
    # Graham's bound for giving each piece to whoever is done earliest. Every shard may pay for a
    # session, and the last piece for its own.
    bound = (sum(took) + other) / count + max(*took, other) * (1 - 1 / count) + 2 * overhead
    assert max(made.seconds) <= bound * 1.02 + 0.01


@given(st.sets(st.sampled_from(PRESENT)), st.integers(1, 4), st.data())
def test_every_file_belongs_to_exactly_one_shard(
    files: set[str], count: int, data: st.DataObject
) -> None:
    owners = {file: data.draw(st.integers(1, count)) for file in sorted(files)}
    given_ = Assignment(data.draw(st.integers(1, count)), owners)
    if not owners:
        return
    shares = [given_.share(index, count) for index in range(1, count + 1)]
    for file in [*PRESENT, "tests/never_heard_of.py"]:
        assert sum(share is not None and share.owns(file) for share in shares) == 1


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "1/9" * 9])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write it such as 2/4"):
        shards.parse_shard(text)


# The commands


def test_the_commands_judge_in_shards_and_decide(
    suite: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.gate(SUITE)  # one cell alone is shared by all shards
    suite.commit()
    in_workflow = {"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1"}
    plan = suite.root.parent / "plan.json"
    made = suite.tiergate(
        "plan", "--shards", "2", "--output", str(plan), "--github-matrix", **in_workflow
    )
    assert made.returncode == 0, made.stderr
    legs = json.loads(made.stdout)["include"]
    assert legs == [
        {"device": "cpu", "shard": "1/2", "leg": "cpu-1-of-2"},
        {"device": "cpu", "shard": "2/2", "leg": "cpu-2-of-2"},
    ]
    reports = suite.root.parent / "reports"
    for leg in legs:
        words = ["--plan", str(plan), "--shard", leg["shard"]]
        done = suite.run(*words, "--report", str(reports / leg["leg"]), **in_workflow)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Only `tiergate decide` decides" in done.stdout
        assert "GATE PASSED" not in done.stdout
    decision = suite.tiergate("decide", "--plan", str(plan), str(reports))
    assert decision.returncode == 0, decision.stdout + decision.stderr
    assert "TIER 0 GATE PASSED" in decision.stdout
    lost = suite.tiergate("decide", "--plan", str(plan), str(reports / "cpu-1-of-2"))
    assert lost.returncode == 3
    assert "cpu leg 2/2: no report" in lost.stdout

    monkeypatch.setenv("CI", "true")  # no history of this machine
    monkeypatch.chdir(suite.root)
    status = ["status", "--format", "json", "--plan", str(plan), "--report"]
    assert cli.run([*status, str(reports)]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["criterion"], cell["state"]) for cell in cells] == [("suite", "holds")]
    assert cli.run([*status, str(reports / "cpu-1-of-2")]) == 3
    assert "no whole run: cpu leg 2/2: no report" in capsys.readouterr().err
    export = suite.root.parent / "history.json"
    add = ["history", "--plan", str(plan), "--export", str(export), "--add"]
    assert cli.run([*add, str(reports)]) == 0
    ((run,), problems) = history.read_files([export])
    assert problems == []
    assert (run.shard, run.run.id, run.cells.keys()) == ("", "7", {"suite@cpu"})
    assert run.cells["suite@cpu"].files.keys() == set(FILES)
    assert run.cells["suite@cpu"].status == "pass"
    assert cli.run([*add, str(reports / "cpu-1-of-2")]) == 0
    assert "the shards are recorded as they are" in capsys.readouterr().err
    ((run,), _) = history.read_files([export])
    assert run.shard == "1/2"

    suite.write("tests/test_a.py", "def test_one():\n    assert 0\n")
    stale = suite.run("--plan", str(plan), "--shard", "1/2")
    assert stale.returncode == 2
    assert "made for another state of the repository" in stale.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--shard", "1/2"], "--shard and --plan belong together"),
        (["run", "--plan", "plan.json"], "--shard and --plan belong together"),
        (["plan", "--output", "x"], "belong to a plan of shards"),
        (["plan", "--shards", "2", "--failed", "x"], "--failed excludes"),
        (["plan", "--shards", "0"], "--shards"),
    ],
)
def test_options_that_mean_nothing_alone_are_refused(
    suite: Sample, arguments: list[str], says: str
) -> None:
    done = suite.tiergate(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a readable plan"),
        ('{"schema_version": 9}', "plan of schema version 9"),
        (None, "cannot read"),
    ],
)
def test_a_plan_that_cannot_be_read_is_not_a_pass(
    suite: Sample, tmp_path: Path, text: str | None, says: str
) -> None:
    plan = tmp_path / "plan.json"
    if text is not None:
        plan.write_text(text)
    done = suite.tiergate("decide", "--plan", str(plan), ".tiergate")
    assert done.returncode == 3
    assert says in done.stderr
