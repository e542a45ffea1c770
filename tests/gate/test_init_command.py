"""``tiergate init`` writes a gate that passes at once, or says which criterion does not hold."""

from __future__ import annotations

import json
import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from repositories import SHAPES
from samples import Sample, light_environment

from tiergate import spec
from tiergate.cli import run
from tiergate.repository import Repository
from tiergate.start import survey

SRC = SHAPES["src layout"]
SMALL = {"shop/__init__.py": "__all__ = ['total']\ntotal = sum\n"}


@pytest.fixture
def made(tmp_path: Path, light_python: Path):
    """Make a committed repository of some files."""

    def make(files: dict[str, str], *, git: bool = True) -> Sample:
        sample = Sample(tmp_path / "repository", light_python)
        for name, content in files.items():
            sample.write(name, content)
        if git:
            sample.commit()
        return sample

    return make


def init(sample: Sample, *words: str) -> int:
    return run(["init", "--repo", str(sample.root), "--python", str(sample.python), *words])


def judge(sample: Sample) -> int:
    return run(["run", "--repo", str(sample.root), "--python", str(sample.python)])


def written(sample: Sample) -> dict[str, spec.Criterion]:
    return {c.id: c for c in spec.load(sample.root / "gate.yaml").criteria}


def expected(sample: Sample) -> dict[str, dict[str, str]]:
    return {
        name: {outcome: str(bound) for outcome, bound in criterion.expect.items()}
        for name, criterion in written(sample).items()
        if criterion.uses in {"pytest", "collection"}
    }


# What is found: the modules, the folders on the path, and the numbers of the tests.
FOUND = {
    "src layout": (["shop"], ["src", "."], {"collection": 4, "tests": 4}),
    "flat": (["shop"], ["."], {"collection": 4, "tests": 4}),
    "single modules": (["prices"], ["."], {"collection": 4, "tests": 4}),
    "namespace package": (
        ["acme.store", "acme.shop.prices"],
        ["src", "."],
        {"collection": 4, "tests": 4},
    ),
    "no tests": (["shop"], ["."], {}),
    "scripts alone": ([], [], {}),
    "unittest style": (["shop"], ["."], {"collection": 2, "tests": 2}),
    "doctests": (["shop"], ["src", "."], {"doctests": 1}),
    "notebooks": (["shop"], ["."], {"collection": 4, "tests": 4}),
    "monorepo": (
        ["bank", "shop"],
        ["packages/bank", "packages/shop/src", "packages/shop"],
        {f"{kind}-packages-{p}": 4 for p in ("bank", "shop") for kind in ("collection", "tests")},
    ),
    "test files of one name": (["shop"], ["src", "."], {"collection": 8, "tests": 8}),
    "skipped tests": (
        ["shop"],
        ["src", "."],
        {"collection": 6, "tests": {"passed": ">=4", "skipped": "1", "xfailed": "1"}},
    ),
}

SCANNED = {
    "no tests": [["shop"]],
    "scripts alone": [["train.py"]],
    "notebooks": [["notebooks", "shop"]],
}


# What only unittest finds is run by unittest.
BY_UNITTEST = {
    "unittest style": [["{python}", "-m", "unittest", "discover", "-s", "tests", "-t", "."]]
}


def counted(criterion: str) -> str:
    return "collected" if criterion.startswith("collection") else "passed"


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_writes_passes_at_once(shape, made, capsys):
    modules, path, numbers = FOUND[shape]
    sample = made(SHAPES[shape])
    assert init(sample) == 0, capsys.readouterr().err
    found = written(sample)
    imported = [c.parameters.module for c in found.values() if c.uses == "imports"]
    assert imported == modules
    assert list(spec.load(sample.root / "gate.yaml").pythonpath) == path
    assert expected(sample) == {
        name: number if isinstance(number, dict) else {counted(name): f">={number}"}
        for name, number in numbers.items()
    }
    scanned = [c.parameters.paths for c in found.values() if c.uses == "semgrep"]
    assert scanned == SCANNED.get(shape, [])
    commands = [c.parameters.run for c in found.values() if c.uses == "command"]
    assert commands == BY_UNITTEST.get(shape, [])
    capsys.readouterr()
    assert judge(sample) == 0, capsys.readouterr().out
    assert "TIER 0 GATE PASSED — proceed to merge" in capsys.readouterr().out


def test_each_shape_is_tried():
    assert set(FOUND) == set(SHAPES)


# What it says of each criterion.


@pytest.fixture(scope="module")
def usual(tmp_path_factory, light_python) -> Sample:
    """A repository with a bit of everything, after ``init --owner @acme/ml``."""
    sample = Sample(tmp_path_factory.mktemp("usual") / "repository", light_python)
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights = struct.pack("<Q", len(header)) + header + b"\0" * 4
    code = "import torch\n\nDEVICE = torch.device('cuda')\n"
    sample.write("weights/model.safetensors", weights)
    for name, content in {**SRC, "src/shop/m.py": code, "run.py": "raise SystemExit\n"}.items():
        sample.write(name, content)
    sample.commit()
    assert init(sample, "--owner", "@acme/ml") == 0
    return sample


def test_public_names_are_held(usual):
    assert written(usual)["import-shop"].parameters.names == ["total"]


def test_committed_models_are_examined(usual):
    assert written(usual)["checkpoints"].parameters.paths == ["weights"]


def test_scripts_are_scanned_and_never_run(usual):
    naming = [name for name, c in written(usual).items() if "run.py" in str(c.parameters)]
    assert naming == ["loads"]


def test_code_for_cuda_gets_the_advice_how_to_judge_it(usual):
    text = (usual.root / "gate.yaml").read_text()
    assert "write `devices: [cpu, cuda]` here" in text
    assert yaml.safe_load(text)["devices"] == ["cpu"]


def test_the_schema_that_editors_are_sent_to_is_written_and_fits(usual):
    text = (usual.root / "gate.yaml").read_text()
    name = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    schema = json.loads((usual.root / name).read_text())
    assert list(Draft202012Validator(schema).iter_errors(yaml.safe_load(text))) == []


def test_code_owners_and_remedies_name_the_owner(usual):
    lines = (usual.root / ".github/CODEOWNERS").read_text().splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["/.github/", "@acme/ml"],
        ["/gate.yaml", "@acme/ml"],
    ]
    assert {c.remedy.owner for c in written(usual).values()} == {"@acme/ml"}


# What does not hold today.

FAILING = {"tests/test_more.py": "def test_wrong():\n    assert 1 == 2\n"}
UNSAFE = {"src/shop/load.py": "import torch\n\nmodel = torch.load('a')\n"}


def test_a_failing_test_is_named_and_never_expected(made, capsys):
    sample = made({**SRC, **FAILING})
    assert init(sample) == 1
    said = capsys.readouterr().err
    assert "tests                    does not hold: failed: expected 0, observed 1" in said
    assert "failed: tests/test_more.py::test_wrong: assert 1 == 2" in said
    assert expected(sample)["tests"] == {"passed": ">=4"}
    assert judge(sample) == 1


def test_what_does_not_hold_is_waived_with_an_owner_and_a_date_if_asked(made, capsys):
    sample = made({**SRC, **FAILING, **UNSAFE})
    assert init(sample, "--waive-failing", "--owner", "ml", "--days", "9") == 0
    gate = spec.load(sample.root / "gate.yaml")
    ends = datetime.now(timezone.utc).date() + timedelta(days=9)
    assert [(w.criterion, w.owner, w.expires) for w in gate.waivers] == [
        ("loads", "ml", ends),
        ("tests", "ml", ends),
    ]
    assert gate.waivers[0].finding[:2] == ("unsafe-torch-load", "src/shop/load.py")
    capsys.readouterr()
    assert judge(sample) == 0, capsys.readouterr().out
    # The waiver of one finding accepts no other.
    sample.write("src/shop/other.py", "import torch\n\nmodel = torch.load('b')\n")
    assert judge(sample) == 1


def test_a_waiver_without_an_owner_is_refused(made, capsys):
    sample = made(SRC)
    assert init(sample, "--waive-failing") == 2
    assert "--owner NAME" in capsys.readouterr().err
    assert not (sample.root / "gate.yaml").exists()


def test_a_broken_import_is_named(made, capsys):
    sample = made({**SRC, "src/shop/__init__.py": "import no_such_module\n"})
    assert init(sample) == 1
    said = capsys.readouterr().err
    assert "import-shop              does not hold" in said
    assert "No module named 'no_such_module'" in said
    assert expected(sample)["tests"] == {"passed": ">=1"}


# What it never does.


def test_nothing_that_is_there_is_overwritten(made, capsys):
    mine = {".github/CODEOWNERS": "* @me\n", ".github/workflows/gate.yml": "name: mine\n"}
    sample = made({**SMALL, **mine})
    assert init(sample, "--owner", "@acme/ml") == 0
    for name, content in mine.items():
        assert (sample.root / name).read_text() == content
    assert "it may want these lines:\n# What judges is reviewed" in capsys.readouterr().err
    before = (sample.root / "gate.yaml").read_bytes()
    assert init(sample) == 2
    assert "init never overwrites" in capsys.readouterr().err
    assert (sample.root / "gate.yaml").read_bytes() == before


def test_a_dry_run_prints_and_writes_nothing(made, capsys):
    sample = made(SMALL)
    assert init(sample, "--dry-run", "--owner", "@acme/ml") == 0
    shown = capsys.readouterr().out
    assert "# --- gate.yaml\n# yaml-language-server" in shown
    assert "# --- .github/workflows/gate.yml\n" in shown
    assert "\n/gate.yaml   @acme/ml\n" in shown
    assert sample.git("status", "--porcelain") == ""


# Where something is missing.


def test_without_git_it_works_and_says_what_is_lost(made, capsys):
    sample = made(
        {**SRC, ".venv/pyvenv.cfg": "home = /usr\n", ".venv/lib/x/__init__.py": ""}, git=False
    )
    assert init(sample) == 0
    said = capsys.readouterr().err
    assert "not a git repository" in said
    assert ".venv is a virtual environment that belongs to the repository" in said
    assert judge(sample) == 0


def test_without_pytest_the_rest_is_held_and_the_remedy_is_told(
    made, candidate_python, tmp_path, capsys
):
    sample = made(SHAPES["unittest style"])
    bare = light_environment(candidate_python, tmp_path / "bare")
    for link in (bare.parent.parent / "lib").glob("*/site-packages/*"):
        link.unlink()
    sample.python = bare
    assert init(sample) == 0, capsys.readouterr().err
    assert f"{bare} -m pip install pytest" in capsys.readouterr().err
    assert {c.uses for c in written(sample).values()} == {"imports", "command"}
    assert judge(sample) == 0
    text = (sample.root / "gate.yaml").read_text()
    assert "#    with: {paths: [tests]}" in text


def test_an_interpreter_that_does_not_work_is_told(made, tmp_path, capsys):
    sample = made(SRC)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    sample.python = broken
    assert init(sample) == 3
    assert f"the interpreter {broken} did not answer" in capsys.readouterr().err


def test_an_empty_folder_is_told_what_is_missing(made, capsys):
    sample = made({"README.md": "# Nothing\n"})
    assert init(sample) == 2
    assert "no package, test, notebook or model file to hold" in capsys.readouterr().err


# What is told from names and text alone.


@pytest.mark.parametrize(
    ("files", "tests", "options"),
    [
        ({"pytest.ini": "[pytest]\ntestpaths = checks\n", "checks/test_a.py": ""}, ["checks"], []),
        (
            {"setup.cfg": "[tool:pytest]\naddopts = --import-mode=importlib\n", "a/test_a.py": ""},
            ["a/test_a.py"],
            ["--import-mode=importlib"],
        ),
        ({"tox.ini": "[tox]\nenv_list = py\n", "pkg/tests/unit/test_a.py": ""}, ["pkg/tests"], []),
        ({"pytest.ini": "[pytest\n", "tests/test_a.py": ""}, ["tests"], []),
        ({"pyproject.toml": "[tool]\npytest = 3\n", "tests/test_a.py": ""}, ["tests"], []),
        # A configuration that leaves test files out does not make them vanish.
        (
            {"pytest.ini": "[pytest]\ntestpaths = a\n", "a/test_a.py": "", "b/tests/test_b.py": ""},
            ["a/test_a.py", "b/tests"],
            [],
        ),
    ],
)
def test_the_pytest_configuration_is_read(files, tests, options, made):
    (project,) = survey.survey(Repository(made(files).root)).projects
    assert project.test_paths == tests
    assert project.options == options


@pytest.mark.parametrize(
    ("files", "roots", "modules"),
    [
        (["src/__init__.py", "src/model/__init__.py"], ["."], ["src"]),
        (["my-package/__init__.py", "my-package/shop/__init__.py"], [], []),
        (["research-code/shop/__init__.py"], ["research-code"], ["shop"]),
        (["experiments/first/__init__.py"], ["."], ["experiments.first"]),
        (["python/shop/__init__.py", "docs/ext/__init__.py"], ["python"], ["shop"]),
        (["-x/__init__.py", "shop/__init__.py"], ["."], ["shop"]),
    ],
)
def test_packages_are_found_where_they_are(files, roots, modules, made):
    sample = made({**dict.fromkeys(files, ""), "tests/test_a.py": ""})
    (project,) = survey.survey(Repository(sample.root)).projects
    assert [module.name for module in project.modules] == modules
    assert [root for root in project.roots if root != "."] == [r for r in roots if r != "."]


def test_files_that_are_no_python_or_cannot_be_read_do_no_harm(made):
    sample = made(
        {"shop/__init__.py": "__all__ = [1, 'x']\n", "shop/bad.py": "def (\n", "x.ipynb": "{"}
    )
    (sample.root / "dangling.py").symlink_to("nowhere")
    (sample.root / "outside.py").symlink_to("/etc/hostname")
    seen = survey.survey(Repository(sample.root))
    assert [m.name for p in seen.projects for m in p.modules] == ["shop"]
