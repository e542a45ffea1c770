"""``--base``: the base's spec decides, and no test of the base vanishes unseen."""

from __future__ import annotations

import json
from types import FunctionType, SimpleNamespace

import pytest
from samples import PASSES, Sample, light_environment

from tiergate import base, spec
from tiergate.errors import NotEvaluatedError, UserError
from tiergate.probe.body import digest
from tiergate.repository import Repository

SUITE = {"id": "suite", "uses": "collection", "expect": {"collected": ">=base"}}
TESTS = "tests/test_prices.py"


@pytest.fixture
def suite(sample: Sample) -> Sample:
    """A repository whose suite must not shrink; its base is tagged."""
    sample.gate(SUITE)
    sample.commit()
    sample.git("tag", "base")
    return sample


def edit(sample: Sample, old: str, new: str, name: str = TESTS) -> None:
    path = sample.root / name
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_an_unchanged_suite_passes_and_nothing_is_kept_without_a_cache(suite):
    assert suite.run("--base", "base").returncode == 0
    notes = suite.verdicts()["suite"].evidence.notes
    assert any(note.startswith("2 tests on the base, commit ") for note in notes)
    assert not (suite.root / ".tiergate" / "base").exists()


def test_with_a_cache_the_base_is_asked_again_when_the_environment_changed(
    suite, candidate_python, tmp_path
):
    suite.python = light_environment(candidate_python, tmp_path / "venv")
    cache = {"TIERGATE_CACHE": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(**variables: str) -> list[str]:
        suite.run("--base", "base", **cache, **variables)
        return [failure.id for failure in suite.verdicts()["suite"].evidence.failures]

    assert run() == []  # learns what the interpreter is
    assert run() == []
    (answer,) = (suite.root / ".tiergate" / "base").iterdir()
    stored = json.loads(answer.read_text())
    stored["tests"]["tests/test_prices.py::test_of_the_cache"] = "0" * 16
    answer.write_text(json.dumps(stored))
    assert run() == ["tests/test_prices.py::test_of_the_cache"]
    assert run(LANG="tlh") == []
    next((tmp_path / "venv").glob("lib/*/site-packages")).joinpath("new.py").touch()
    assert run() == []


def test_a_vanished_test_is_named_although_the_count_is_the_same(suite):
    edit(
        suite,
        "def test_total():\n    assert total([1, 2]) == 3",
        "def test_other():\n    assert total([1, 2]) == 3 or True",
    )
    done = suite.run("--base", "base")
    assert done.returncode == 1
    verdict = suite.verdicts()["suite"]
    assert verdict.evidence.observed == {"collected": 2, "vanished": 1}
    assert [f.id for f in verdict.evidence.failures] == [f"{TESTS}::test_total"]


def test_a_renamed_test_is_known_again_by_its_body(suite):
    edit(suite, "def test_total(", "def test_sum(")
    done = suite.run("--base", "base")
    assert done.returncode == 0
    assert f"renamed since the base: {TESTS}::test_total → {TESTS}::test_sum" in done.stdout


def test_a_renamed_test_that_is_run_is_known_again_by_its_body(sample):
    sample.gate({**PASSES, "expect": {"passed": ">=base"}})
    sample.commit()
    edit(sample, "def test_total(", "def test_sum(")
    done = sample.run("--base", "HEAD")
    assert done.returncode == 0
    assert f"renamed since the base: {TESTS}::test_total → {TESTS}::test_sum" in done.stdout


def test_a_body_is_the_same_whatever_order_its_sets_have():
    sets = frozenset((0, 8)), frozenset((8, 0))
    assert len({str(kept) for kept in sets}) == 2  # as for texts in two processes

    def item(kept: frozenset[int]) -> SimpleNamespace:
        code = (lambda: None).__code__.replace(co_consts=(None, ("a", kept)))
        return SimpleNamespace(function=FunctionType(code, {}))

    assert len({digest(item(kept)) for kept in sets}) == 1
    assert digest(item(frozenset((0, 9)))) != digest(item(frozenset((0, 8))))


def test_a_test_moved_to_another_file_is_known_again(suite):
    (suite.root / TESTS).rename(suite.root / "tests" / "test_moved.py")
    assert suite.run("--base", "base").returncode == 0


def test_a_base_that_does_not_collect_is_an_error(sample):
    sample.gate(SUITE)
    sample.write("tests/test_broken.py", "import nowhere\n")
    sample.commit()
    sample.git("tag", "base")
    (sample.root / "tests" / "test_broken.py").unlink()
    assert sample.run("--base", "base").returncode == 3
    assert "the base does not collect" in sample.verdicts()["suite"].summary


def test_without_a_base_the_criterion_cannot_be_evaluated(suite):
    assert suite.run().returncode == 3
    assert "name the base with --base REF" in suite.verdicts()["suite"].summary


def test_the_base_work_tree_is_removed(suite):
    suite.run("--base", "base")
    assert suite.git("worktree", "list").count("\n") == 1


def test_the_spec_of_the_base_decides(sample):
    sample.git("tag", "base")
    edit(sample, "def test_total():\n", "def test_total():\n    assert False\n")
    sample.gate({**PASSES, "expect": {"passed": 1, "failed": 1}})
    assert sample.run().returncode == 0
    done = sample.run("--base", "base")
    assert done.returncode == 1
    assert "spec: prices: expects passed 1 instead of 2 (weaker)" in done.stdout
    assert sample.verdicts()["prices"].status == "fail"


def test_weakening_alone_fails_and_may_be_allowed(sample):
    sample.git("tag", "base")
    sample.gate({**PASSES, "expect": {"passed": ">=1"}})
    assert sample.run("--base", "base").returncode == 1
    assert sample.run("--base", "base", "--allow-weakening").returncode == 0
    allowed = sample.tiergate("decide", ".tiergate", "--base", "base", "--allow-weakening")
    assert allowed.returncode == 0
    assert sample.tiergate("decide", ".tiergate", "--base", "base").returncode == 1
    assert sample.tiergate("decide", ".tiergate").returncode == 3


def test_a_test_that_is_added_with_its_count_passes(sample):
    sample.git("tag", "base")
    text = (sample.root / TESTS).read_text()
    sample.write(TESTS, f"{text}\n\ndef test_one():\n    assert total([1]) == 1\n")
    sample.gate({**PASSES, "expect": {"passed": 3}})
    done = sample.run("--base", "base")
    assert done.returncode == 0, done.stdout
    assert "spec: prices: expects passed 3 instead of 2\n" in done.stdout


def test_a_removed_test_passes_only_where_weakening_is_allowed(sample):
    sample.git("tag", "base")
    sample.write(TESTS, "def test_one():\n    assert 1 + 1 == 2\n")
    sample.gate({**PASSES, "expect": {"passed": 1}})
    assert sample.run("--base", "base").returncode == 1
    assert sample.run("--base", "base", "--allow-weakening").returncode == 0


def test_a_criterion_that_the_head_adds_is_judged_as_well(sample):
    sample.git("tag", "base")
    added = {"id": "new", "uses": "imports", "with": {"module": "shop", "names": ["nothing"]}}
    sample.gate(PASSES, added)
    assert sample.run("--base", "base").returncode == 1
    assert sample.verdicts()["new"].status == "fail"


def test_the_first_pull_request_is_judged_by_its_own_spec(sample):
    sample.git("rm", "-q", "--cached", "gate.yaml")
    sample.git("commit", "-q", "-m", "no gate yet")
    sample.git("tag", "base")
    assert sample.run("--base", "base").returncode == 0
    assert sample.report().base.spec == "head"


def test_a_removed_spec_is_a_clear_error(sample):
    sample.git("tag", "base")
    (sample.root / "gate.yaml").unlink()
    done = sample.run("--base", "base")
    assert done.returncode == 2
    assert "the head removed the spec" in done.stderr


def test_judge_relevant_changes_are_listed(sample):
    sample.git("tag", "base")
    sample.write("tests/conftest.py", "")
    sample.write("src/shop/new.py", "")
    done = sample.run("--base", "base")
    assert done.returncode == 0
    assert "judge-relevant changes of the head: tests/conftest.py" in done.stdout


def test_a_program_that_a_criterion_runs_is_judge_relevant(sample):
    program = {"run": ["{python}", "./tools/style.py"]}
    path = sample.gate({"id": "style", "uses": "command", "with": program})
    sample.write("tools/style.py", "raise SystemExit(1)\n")
    sample.commit()
    sample.write("tools/style.py", "")
    sample.write("tools/other.py", "")
    changes = base.judge_relevant_changes(Repository(sample.root), "HEAD", [spec.load(path)])
    assert changes == ["tools/style.py"]


def test_a_name_that_is_a_tag_and_a_branch_is_refused_as_a_base(sample):
    first = sample.git("rev-parse", "HEAD").strip()
    sample.git("update-ref", "refs/remotes/origin/main", first)
    assert base.resolve(Repository(sample.root), "origin/main") == first
    sample.gate(PASSES)
    sample.commit()
    sample.git("tag", "origin/main")  # git would take the tag, and warn

    both = "names both refs/remotes/origin/main and refs/tags/origin/main"
    with pytest.raises(UserError, match=both):
        base.resolve(Repository(sample.root), "origin/main")
    assert base.resolve(Repository(sample.root), "refs/remotes/origin/main") == first


@pytest.fixture
def weakened(sample: Sample) -> Sample:
    """A repository whose head expects less than the commit before."""
    for passed in (2, 1):
        sample.gate({**PASSES, "expect": {"passed": passed}})
        sample.commit()
    return sample


def expected_passes(sample: Sample) -> int:
    commit = sample.git("rev-parse", "HEAD~1").strip()
    found = base.specs(Repository(sample.root), commit, sample.root / "gate.yaml")
    return found.base.criterion("prices").expect["passed"].value


def test_an_object_that_git_was_told_to_replace_is_read_as_it_is(weakened):
    assert expected_passes(weakened) == 2
    weakened.git("replace", "HEAD~1^{tree}", "HEAD^{tree}")
    assert expected_passes(weakened) == 2


def test_a_spec_of_the_base_that_cannot_be_read_is_not_taken_for_none(weakened):
    blob = weakened.git("rev-parse", "HEAD~1:gate.yaml").strip()
    (weakened.root / ".git/objects" / blob[:2] / blob[2:]).unlink()  # as in a partial clone
    with pytest.raises(NotEvaluatedError, match="git show failed"):
        expected_passes(weakened)


@pytest.mark.parametrize("ref", ["nowhere", "--all", ""])
def test_an_unknown_base_is_a_clear_error(sample, ref):
    done = sample.run(f"--base={ref}")
    if ref == "":
        assert done.returncode == 0  # no base was named
        return
    assert done.returncode == 2
    assert f"--base {ref}: " in done.stderr
    assert "Traceback" not in done.stderr
