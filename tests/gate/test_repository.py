"""Which files belong to the judged repository, and the digest that names its state."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import PASSES, Sample

from tiergate import base
from tiergate.errors import NotEvaluatedError
from tiergate.repository import Repository
from tiergate.verdict import Source


def source(sample: Sample) -> Source:
    return Repository(sample.root).source()


def test_committed_repository_is_clean_and_names_its_commit(sample: Sample):
    found = source(sample)
    assert found.commit == sample.git("rev-parse", "HEAD").strip()
    assert len(found.tree) == 64
    assert not found.dirty
    assert source(sample) == found


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.write("src/shop/prices.py", "def total(prices):\n    return 3\n"),
        lambda s: s.write("src/shop/new.py", ""),
        lambda s: s.write("src/shop/new.py", "") and s.git("add", "-A"),
        lambda s: (s.root / "src/shop/prices.py").unlink(),
        lambda s: (s.root / "src/shop/prices.py").chmod(0o755),
        lambda s: (s.root / "src/shop/prices.py").rename(s.root / "src/shop/price.py"),
        lambda s: (s.root / "src/link.py").symlink_to("shop/prices.py"),
    ],
    ids=["content", "new", "added", "gone", "mode", "name", "link"],
)
def test_digest_changes_with(sample: Sample, change: Callable[[Sample], object]):
    before = source(sample)
    change(sample)
    after = source(sample)
    assert after.tree != before.tree
    assert after.dirty
    assert after.commit == before.commit


def test_what_git_found_unchanged_it_need_not_read_again(sample: Sample):
    before = source(sample)
    os.utime(sample.root / "src/shop/prices.py", (1, 1))
    stale = "src/shop/prices.py"
    assert stale in sample.git("diff-files", "--name-only")
    assert source(sample) == before
    assert stale not in sample.git("diff-files", "--name-only")


def test_an_index_that_another_git_holds_is_left_alone(sample: Sample):
    before = source(sample)
    os.utime(sample.root / "src/shop/prices.py", (1, 1))
    index = (sample.root / ".git/index").read_bytes()
    sample.write(".git/index.lock", "")
    assert source(sample) == before
    assert (sample.root / ".git/index").read_bytes() == index


def test_digest_changes_with_where_a_link_leads(sample: Sample):
    link = sample.root / "link"
    link.symlink_to("src")
    before = source(sample)
    link.unlink()
    link.symlink_to("tests")
    assert source(sample).tree != before.tree


def test_digest_is_of_the_content_whether_committed_staged_or_not(sample: Sample):
    sample.write("src/shop/new.py", "x = 1\n")
    loose = source(sample)
    sample.git("add", "-A")
    staged = source(sample)
    sample.commit()
    committed = source(sample)
    assert loose.tree == staged.tree == committed.tree
    assert (loose.dirty, staged.dirty, committed.dirty) == (True, True, False)


def test_digest_is_equal_in_a_copy_with_another_history(sample: Sample, tmp_path: Path):
    copy = Sample(tmp_path / "copy", sample.python)
    shutil.copytree(sample.root, copy.root, ignore=shutil.ignore_patterns(".git"))
    copy.commit()
    copy.commit()
    assert source(copy).tree == source(sample).tree
    assert source(copy).commit != source(sample).commit


def test_file_with_new_times_and_the_same_content_changes_nothing(sample: Sample):
    before = source(sample)
    os.utime(sample.root / "src/shop/prices.py", (1, 1))
    assert source(sample) == before


@pytest.mark.parametrize("option", ["--assume-unchanged", "--skip-worktree"])
def test_change_that_git_was_told_not_to_look_for_is_seen(sample: Sample, option: str):
    before = source(sample)
    sample.git("update-index", option, "src/shop/prices.py")
    sample.write("src/shop/prices.py", "def total(prices):\n    return 3\n")
    assert source(sample).tree != before.tree


def test_file_of_equal_size_and_time_in_its_place_is_seen_whatever_git_is_set_to(sample: Sample):
    sample.git("config", "core.checkStat", "minimal")
    file = sample.root / "src/shop/prices.py"
    os.utime(file, (1, 1))
    sample.git("update-index", "--refresh")
    before = source(sample)
    other = sample.root / ".git/other"
    other.write_text(file.read_text().replace("sum", "max"))
    os.utime(other, (1, 1))
    other.replace(file)
    after = source(sample)
    assert after.tree != before.tree
    assert after.dirty


def test_ignored_files_do_not_belong_but_tracked_ones_do(sample: Sample):
    sample.write("kept.log", "x")
    sample.commit()
    sample.write(".gitignore", "*.log\n")
    sample.commit()
    before = source(sample)
    sample.write("other.log", "x")
    assert source(sample) == before
    files = Repository(sample.root).files
    assert "kept.log" in files
    assert "other.log" not in files
    sample.write("kept.log", "y")
    assert source(sample).tree != before.tree


def test_files_are_sorted_relative_and_there(sample: Sample):
    (sample.root / "src/shop/__init__.py").unlink()
    sample.write("sp ace/ü\n.py", "")
    assert Repository(sample.root).files == [
        "gate.yaml",
        "sp ace/ü\n.py",
        "src/shop/prices.py",
        "tests/test_prices.py",
    ]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["src"], ["src/shop/__init__.py", "src/shop/prices.py"]),
        (["./src/"], ["src/shop/__init__.py", "src/shop/prices.py"]),
        (["src/shop/prices.py"], ["src/shop/prices.py"]),
        (["src/sho"], []),
        (["none"], []),
        (["tests", "src/shop/prices.py"], ["src/shop/prices.py", "tests/test_prices.py"]),
    ],
)
def test_files_under_paths(sample: Sample, paths: list[str], found: list[str]):
    assert Repository(sample.root).files_under(paths) == found


def test_every_file_is_under_the_root(sample: Sample):
    repository = Repository(sample.root)
    assert repository.files_under(["."]) == repository.files
    assert len(repository.files) == 4


def test_subfolder_of_a_repository_is_judged_alone(sample: Sample):
    part = Repository(sample.root / "src")
    assert part.files == ["shop/__init__.py", "shop/prices.py"]
    before = part.source()
    sample.write("tests/test_more.py", "")
    assert Repository(sample.root / "src").source() == before
    sample.write("src/more.py", "")
    after = Repository(sample.root / "src").source()
    assert after.tree != before.tree
    assert (before.dirty, after.dirty) == (False, True)


def test_folder_without_git_has_files_and_no_source(sample: Sample):
    shutil.rmtree(sample.root / ".git")
    sample.write("src/__pycache__/prices.pyc", "")
    sample.write(".tiergate/report.json", "")
    os.mkfifo(sample.root / "src" / "pipe")  # reading it would wait for ever
    repository = Repository(sample.root)
    assert not repository.is_git
    assert repository.source() == Source()
    assert repository.files == [
        "gate.yaml",
        "src/shop/__init__.py",
        "src/shop/prices.py",
        "tests/test_prices.py",
    ]


def test_repository_without_a_commit_has_a_tree(sample: Sample):
    shutil.rmtree(sample.root / ".git")
    committed = source(sample)
    sample.git("init", "-q")
    found = source(sample)
    assert committed == Source()
    assert (found.commit, found.dirty) == ("", True)
    assert len(found.tree) == 64


def test_checkout_that_git_refuses_is_not_taken_for_a_mere_folder(sample: Sample):
    # As for a checkout that belongs to another user, which is common in containers.
    sample.write(".git/config", "this is no configuration\n")
    with pytest.raises(NotEvaluatedError, match=r"git ls-files failed in .*bad config"):
        source(sample)


def test_checkout_without_git_on_the_path_is_not_taken_for_a_mere_folder(
    sample: Sample, monkeypatch
):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotEvaluatedError, match="git is not installed, or not on PATH"):
        source(sample)
    shutil.rmtree(sample.root / ".git")
    assert source(sample) == Source()


def test_variables_that_point_git_elsewhere_do_not_count(
    sample: Sample, tmp_path: Path, monkeypatch
):
    expected = source(sample)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert source(sample) == expected


def test_leaving_follows_links_wherever_they_lead(sample: Sample, tmp_path: Path):
    (sample.root / "inside").symlink_to("src/shop")
    (sample.root / "outside").symlink_to(tmp_path)
    (sample.root / "loop").symlink_to("loop")
    repository = Repository(sample.root)
    assert not repository.leaves("src/shop/prices.py")
    assert not repository.leaves("inside/prices.py")
    assert not repository.leaves(".")
    assert not repository.leaves("loop")
    assert repository.leaves("outside/x.py")
    assert repository.leaves("../x.py")


def test_tracked_file_that_a_sparse_checkout_keeps_away_is_named(sample: Sample):
    sample.git("update-index", "--refresh")  # git leaves a file that it is not sure of
    sample.git("sparse-checkout", "set", "--no-cone", "/*", "!/src/shop/prices.py")
    assert not (sample.root / "src/shop/prices.py").exists()
    repository = Repository(sample.root)
    assert not repository.source().dirty  # git itself says nothing of it

    (said,) = repository.withheld(["src"])
    assert said.startswith("src/shop/prices.py is tracked, but kept out of the work tree")
    assert repository.withheld(["tests"]) == []
    sample.git("sparse-checkout", "disable")
    assert Repository(sample.root).withheld(["."]) == []


@pytest.mark.parametrize("criterion", ["prices", "rule", "models"])
def test_criterion_whose_files_are_not_all_checked_out_is_an_error(sample: Sample, criterion: str):
    sample.gate(
        PASSES,
        {"id": "rule", "uses": "semgrep", "with": {"rules": ["unsafe-torch-load"], "paths": ["."]}},
        {"id": "models", "uses": "checkpoints"},
    )
    sample.git("update-index", "--skip-worktree", "tests/test_prices.py")
    (sample.root / "tests/test_prices.py").unlink()

    verdict = sample.judged(criterion)
    assert verdict.status == "error"
    assert "tests/test_prices.py is tracked, but kept out of the work tree" in verdict.summary


def test_files_whose_names_differ_only_in_case_are_twins(sample: Sample):
    sample.write("tests/Test_Prices.py", "")
    sample.write("docs/A.md", "")
    sample.write("docs/a.md", "")
    repository = Repository(sample.root)
    (said,) = repository.twins(["tests"])
    assert said.startswith("tests/Test_Prices.py and tests/test_prices.py differ only in case")
    assert len(repository.twins(["."])) == 2
    assert repository.twins(["src"]) == []


def test_settings_of_the_repository_hide_no_change(sample: Sample):
    sample.git("config", "status.showUntrackedFiles", "no")
    sample.git("config", "core.fsmonitor", "true")
    sample.write("tests/conftest.py", "")
    assert Repository(sample.root).source().dirty
    assert base.changed_files(Repository(sample.root), "HEAD") == ["tests/conftest.py"]


def test_a_submodule_that_asks_not_to_be_looked_at_is_a_change(sample: Sample):
    (sample.root / "src/more").mkdir()
    sample.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},src/more")
    sample.write(
        ".gitmodules", '[submodule "more"]\n\tpath = src/more\n\turl = x\n\tignore = all\n'
    )
    sample.commit()
    sample.git("update-index", "--cacheinfo", f"160000,{'2' * 40},src/more")
    assert "src/more" in base.changed_files(Repository(sample.root), "HEAD")
