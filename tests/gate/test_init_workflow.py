"""The workflow that ``tiergate init`` writes, and where it gets the judge from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from samples import Sample

from tiergate.cli import run
from tiergate.errors import UserError
from tiergate.repository import Repository
from tiergate.start import github_files, judge_source
from tiergate.start.judge_source import Package, Uses

COMMIT = "c" * 40
ACTION = Uses("acme/tiergate", COMMIT)
WORKFLOW = Uses("acme/tiergate", COMMIT, "/.github/workflows/gate.yml")
PACKAGE = Package(f"git+https://example.org/tiergate@{COMMIT}#subdirectory=scripts")


@pytest.fixture
def checkout(tmp_path: Path) -> Sample:
    """A checkout of a judge, in a folder of it, that was cloned and has not been changed."""
    origin = Sample(tmp_path / "origin", Path("python"))
    origin.write("scripts/pyproject.toml", "")
    origin.commit()
    copy = Sample(tmp_path / "copy", Path("python"))
    copy.root.mkdir()
    copy.git("clone", "-q", str(origin.root), ".")
    return copy


def written(source: Package | Uses, folder: Path) -> str:
    return github_files.workflow(Repository(folder), ["."], source)


def test_validators_find_nothing_in_any_of_its_forms(tmp_path: Path):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    forms = {"package": PACKAGE, "action": ACTION, "workflow": WORKFLOW}
    for name, source in forms.items():
        (folder / f"{name}.yml").write_text(written(source, tmp_path))
    tools = Path(sys.executable).parent
    schema = [tools / "check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    auditor = [tools / "zizmor", "--offline", "--no-progress", "--persona", "auditor"]
    for command in ([*schema, *folder.iterdir()], [*auditor, tmp_path]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_installs_or_uses_what_was_named(tmp_path: Path):
    by_package = yaml.safe_load(written(PACKAGE, tmp_path))["jobs"]["gate"]
    assert by_package["env"]["TIERGATE"] == PACKAGE.requirement
    by_action = yaml.safe_load(written(ACTION, tmp_path))["jobs"]["gate"]
    assert f"acme/tiergate@{COMMIT}" in [step.get("uses") for step in by_action["steps"]]
    by_workflow = yaml.safe_load(written(WORKFLOW, tmp_path))["jobs"]["gate"]
    assert by_workflow["uses"] == f"acme/tiergate/.github/workflows/gate.yml@{COMMIT}"
    assert by_workflow["with"] == {"judge-repository": "acme/tiergate", "judge-ref": COMMIT}


def test_a_judge_that_nobody_knows_keeps_the_workflow_red(tmp_path: Path):
    steps = yaml.safe_load(written(Package("", "why"), tmp_path))["jobs"]["gate"]["steps"]
    (script,) = (step["run"] for step in steps if step["name"] == "Set up the judge")
    done = subprocess.run(
        ["/bin/bash", "-e", "-c", script],
        env={"PATH": "/nowhere", "TIERGATE": ""},
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b"say in .github/workflows/gate.yml what pip installs the judge from" in done.stderr


def test_pushes_to_the_default_branch_are_judged(checkout: Sample):
    assert "branches: [main]" in written(ACTION, checkout.root)
    checkout.git("branch", "-q", "-m", "master")
    checkout.git("remote", "remove", "origin")
    assert "branches: [master]" in written(ACTION, checkout.root)


def test_the_candidate_gets_what_can_be_installed(tmp_path: Path):
    sample = Sample(tmp_path / "monorepo", Path("python"))
    sample.write("pyproject.toml", "[tool.ruff]\n")
    sample.write("requirements-dev.txt", "")
    sample.write("packages/a shop/pyproject.toml", "[project]\nname = 'shop'\n")
    sample.write("packages/bank/setup.py", "")
    sample.write("packages/none/shop.py", "")
    folders = [".", "packages/bank", "packages/a shop", "packages/none"]
    text = github_files.workflow(Repository(sample.root), folders, ACTION)
    assert (
        "pip install pytest -r requirements-dev.txt -e './packages/a shop' -e ./packages/bank\n"
    ) in text


# Where this judge came from.


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (
            {
                "url": "https://user:secret@example.org/tiergate",
                "vcs_info": {"vcs": "git", "commit_id": COMMIT},
                "subdirectory": "scripts",
            },
            PACKAGE.requirement,
        ),
        (
            {"url": "https://example.org/tiergate-0.1.0-py3-none-any.whl", "archive_info": {}},
            "https://example.org/tiergate-0.1.0-py3-none-any.whl",
        ),
        ({"url": "file:///tmp/tiergate-0.1.0-py3-none-any.whl", "archive_info": {}}, ""),
        ({"url": "file:///nowhere/at/all", "dir_info": {}}, ""),
    ],
    ids=["git", "wheel", "a wheel of this machine", "a folder that is gone"],
)
def test_what_the_installer_recorded_is_what_the_workflow_installs(origin, requirement):
    assert judge_source.of_origin(origin).requirement == requirement


@pytest.mark.parametrize(
    "remote",
    ["https://token@example.org/acme/tiergate.git", "git@example.org:acme/tiergate.git"],
)
def test_a_checkout_is_known_by_its_pushed_commit(checkout: Sample, remote: str):
    commit = checkout.git("rev-parse", "HEAD").strip()
    origin = {"url": (checkout.root / "scripts").as_uri(), "dir_info": {}}
    assert judge_source.of_origin(origin).requirement == ""  # a remote of this machine alone
    checkout.git("remote", "set-url", "origin", remote)
    assert judge_source.of_origin(origin).requirement == (
        f"git+https://example.org/acme/tiergate.git@{commit}#subdirectory=scripts"
    )
    checkout.commit()
    assert judge_source.of_origin(origin).requirement == ""  # nobody else has this commit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--uses", "tiergate"], "write it OWNER/REPO@REF"),
        (["--uses", "a/b@v1\n  x"], "write it OWNER/REPO@REF"),
        (["--judge", "${{ secrets.X }}"], "name one package"),
        (["--judge", "-r x"], "name one package"),
        (["--judge", "x", "--uses", "a/b@v1"], "exclude each other"),
    ],
)
def test_what_does_not_fit_into_a_workflow_is_refused(words, said, tmp_path: Path, capsys):
    assert run(["init", "--repo", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_name_that_yaml_would_read_otherwise_is_quoted(tmp_path: Path):
    source = judge_source.chosen('tiergate @ https://e.org/"x": #y', "")
    assert isinstance(source, Package)
    job = yaml.safe_load(written(source, tmp_path))["jobs"]["gate"]
    assert job["env"]["TIERGATE"] == source.requirement
    assert judge_source.chosen("", "acme/tiergate@v1") == Uses("acme/tiergate", "v1")
    with pytest.raises(UserError):
        judge_source.chosen("a\nb", "")
