"""The composite action, the hooks, and what the workflow asks of the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from github.act import ROOT, SPEC, Origin
from samples import Sample

import action
import smoke
from tiergate import cli

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
BROKEN = "def question() -> int:\n    return 42\n"


def inputs(**given: str) -> dict[str, str]:
    """Return the action's environment with its defaults, as the runner would give it."""
    environment = {
        f"INPUT_{name.upper().replace('-', '_')}": str(about.get("default", ""))
        for name, about in ACTION["inputs"].items()
    }
    environment["INPUT_BASE"] = ""
    return environment | {f"INPUT_{name}": value for name, value in given.items()}


def test_every_input_reaches_the_script_through_the_environment() -> None:
    (step,) = ACTION["runs"]["steps"]
    assert set(step["env"]) - {"ACTION"} == set(inputs())
    assert "${{" not in step["run"]
    assert all(about.get("description") for about in ACTION["inputs"].values())
    assert all(about.get("description") for about in ACTION["outputs"].values())
    assert ACTION["branding"].keys() == {"icon", "color"}


def test_inputs_become_the_judges_command_line(tmp_path: Path) -> None:
    given = inputs(
        BASE="abc", ALLOW_WEAKENING="true", ONLY="a,b", REPORT_DIR="out", CACHE="True",
        REPOSITORY_PATH=str(tmp_path), SPEC="ci/gate.yaml", DEVICE="cuda", PYTHON="py",
    )  # fmt: skip
    assert action.run_arguments(given) == [
        "run", "--repo", str(tmp_path), "--spec", str(tmp_path / "ci/gate.yaml"),
        "--device", "cuda", "--python", "py", "--report", str(tmp_path / "out"),
        "--only", "a,b", "--format", "github", "--cache", "--base", "abc", "--allow-weakening",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"CACHE": "yes"}, "the input cache is 'yes': write 'true' or 'false'"),
        ({"ALLOW_WEAKENING": ""}, "the input allow-weakening is ''"),
        ({"CONSTRAINTS": "nowhere.txt"}, "names no file: 'nowhere.txt'"),
    ],
)
def test_an_input_that_means_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, given: dict[str, str], words: str
) -> None:
    output = tmp_path / "output"
    assert action.main(inputs(**given) | {"GITHUB_OUTPUT": str(output)}) == 2
    assert words in capsys.readouterr().out
    assert "conclusion=not evaluated\n" in output.read_text()


def test_an_environment_that_cannot_be_made_is_not_a_pass(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("")
    (tmp_path / "tiergate").write_text("a file where the environments would go")
    given = inputs(CONSTRAINTS=str(pins)) | {"RUNNER_TEMP": str(tmp_path)}
    assert action.main(given) == 3
    assert "could not be made" in capfd.readouterr().out


def test_another_repository_uses_the_action(origin: Origin, tmp_path: Path) -> None:
    tool = origin
    (tool.files / "action.yml").write_text((ROOT / "action.yml").read_text())
    tool.git("remote", "add", "origin", "https://github.com/octo/tiergate.git")
    tool.commit()
    other = tool.without_judge(
        tmp_path / "other",
        f"""\
on: pull_request
jobs:
  gate:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1
        with: {{fetch-depth: "0"}}
      - id: gate
        uses: octo/tiergate@v1
        with: {{python: "{sys.executable}", judge-python: "{sys.executable}"}}
      - if: always()
        run: |
          echo "${{{{ steps.gate.outputs.conclusion }}}} ${{{{ steps.gate.outputs.failed }}}}" \\
            >> "$GITHUB_STEP_SUMMARY"
          test -s "${{{{ steps.gate.outputs.report }}}}"
""",
    )
    base = other.commit()
    other.write("src/sample.py", BROKEN)
    head = other.commit()
    payload = {"number": 1, "base": {"sha": base, "ref": "main"}, "head": {"sha": head}}
    run = other.trigger("pull_request", {"pull_request": payload}, tool=tool)
    assert run.jobs["gate"] == "failure", run.log
    assert run.outputs["conclusion"] == "failed", run.log
    assert (run.outputs["passed"], run.outputs["failed"]) == ("0", "1")
    assert run.outputs["report"].endswith("/.tiergate/report.json")
    assert "failed 1" in run.log


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


# The hooks


def test_each_hook_runs_a_kind_that_the_script_knows() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    script = (ROOT / "scripts/hook").read_text()
    assert {hook["id"] for hook in hooks} == {"tiergate-validate", "tiergate-static", "tiergate"}
    for hook in hooks:
        program, kind = hook["entry"].split()
        assert (program, hook["language"]) == ("scripts/hook", "script")
        assert f"    {kind}) exec " in script


# What the workflow asks of the command line


def spec_of(sample: Sample, devices: str = "[cpu, cuda]") -> None:
    sample.write("gate.yaml", SPEC.replace("[cpu]", devices) + f"    devices: {devices}\n")
    sample.write("src/sample.py", "def answer():\n    return 42\n")
    sample.commit()


def run(sample: Sample, *words: str) -> int:
    return cli.run([words[0], "--repo", str(sample.root), *words[1:]])


def test_a_leg_that_nobody_can_judge_is_reported_as_errors_and_writes_outputs(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec_of(sample)
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    report = tmp_path / "report"
    words = ["--device", "cuda", "--unjudged", "no runner", "--report", str(report)]
    assert run(sample, "run", *words, "--format", "github") == 3
    (verdict,) = json.loads((report / "report.json").read_text())["verdicts"]
    assert (verdict["status"], verdict["summary"]) == ("error", "no runner")
    assert output.read_text() == "conclusion=not evaluated\npassed=0\nwaived=0\nfailed=1\n"


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped", ""])
def test_a_job_that_did_not_succeed_is_no_pass_whatever_the_reports_say(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], result: str
) -> None:
    spec_of(sample, "[cpu]")
    report = str(tmp_path / "report")
    python = ["--python", str(sample.python)]
    assert run(sample, "run", *python, "--report", report, "--isolation", "process") == 0
    assert run(sample, "decide", report, "--job", "judge=success") == 0
    assert run(sample, "decide", report, "--job", "prove=success", "--job", f"judge={result}") == 3
    assert f"the judge job ended with {result or 'no result'!r}" in capsys.readouterr().out


def test_a_part_is_decided_as_a_part(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec_of(sample)
    report = str(tmp_path / "report")
    words = ["--python", str(sample.python), "--report", report, "--isolation", "process"]
    assert run(sample, "run", *words) == 0
    assert run(sample, "decide", report) == 3
    assert run(sample, "decide", report, "--only", "exports,", "--device", "cpu,") == 0
    assert "This is no decision on the gate." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["decide", "--job", "judge"], "write it NAME=RESULT"),
        (["decide", "--device", "gpu"], "'gpu' is not one of"),
        (["decide", "--only", "export"], "did you mean 'exports'?"),
        (["plan", "--github-matrix", "--device", "cuda"], "has no such leg"),
    ],
)
def test_a_wrong_word_is_refused(
    sample: Sample, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    spec_of(sample, "[cpu]")
    assert run(sample, *words) == 2
    assert complaint in capsys.readouterr().err


# Other systems


def test_on_windows_run_says_that_it_cannot(
    sample: Sample, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert run(sample, "run") == 3
    assert "needs a POSIX system" in capsys.readouterr().err


def test_the_smoke_test_sees_a_command_that_does_what_it_must_not(tmp_path: Path) -> None:
    with pytest.raises(smoke.SmokeError, match="exit code 2"):
        smoke.tiergate(tmp_path, 0, "validate")


# The documentation


def snippets(language: str) -> list[str]:
    text = (ROOT / "docs/github.md").read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def test_each_workflow_of_the_documentation_is_what_its_schema_demands(tmp_path: Path) -> None:
    *workflows, hooks = snippets("yaml")
    files = [tmp_path / f"{number}.yml" for number, _ in enumerate(workflows)]
    for file, body in zip(files, workflows, strict=True):
        assert body.startswith("# .github/workflows/gate.yml\n")
        file.write_text(body)
    check = Path(sys.executable).parent / "check-jsonschema"
    words = ["--builtin-schema", "vendor.github-workflows", *map(str, files)]
    done = subprocess.run([check, *words], capture_output=True, text=True, check=False)
    assert len(files) > 2
    assert done.returncode == 0, done.stdout + done.stderr
    (repository,) = yaml.safe_load(hooks)["repos"]
    assert repository.keys() == {"repo", "rev", "hooks"}


def test_each_input_and_hook_of_a_snippet_exists() -> None:
    *workflows, hooks = (yaml.safe_load(body) for body in snippets("yaml"))
    called = [job for w in workflows for job in w["jobs"].values() if "uses" in job]
    assert {job["uses"].partition("@")[0] for job in called} == {
        f"OWNER/tiergate/{path.relative_to(ROOT)}"
        for path in (ROOT / ".github/workflows").glob("*.yml")
        if path.name != "ci.yml"
    }
    for job in called:
        file = job["uses"].partition("@")[0].removeprefix("OWNER/tiergate/")
        workflow = yaml.load((ROOT / file).read_text(), yaml.BaseLoader)
        inputs = workflow["on"]["workflow_call"]["inputs"]
        assert set(job["with"]) <= set(inputs)
        assert {k for k, v in inputs.items() if v.get("required") == "true"} <= set(job["with"])
        # A called job may ask for no more than its caller grants: GitHub starts nothing otherwise.
        for asked in (called_job["permissions"] for called_job in workflow["jobs"].values()):
            assert asked.items() <= job["permissions"].items()
    known = {h["id"] for h in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} == known


def test_each_command_of_a_snippet_has_the_options_that_it_is_given() -> None:
    lines = [line for body in snippets("sh") for line in body.splitlines()]
    used = [re.split(r" \| |#", line)[0].split()[1:] for line in lines if "tiergate" in line]
    assert {words[0] for words in used} == {"run", "protect", "doctor"}
    for name, *words in used:
        command: Any = cli.tiergate.get_command(cli.click.Context(cli.tiergate), name)
        options = {opt for parameter in command.params for opt in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
    subprocess.run(["sh", "-n"], input="\n".join(lines), text=True, check=True)


def test_codeowners_of_the_documentation_covers_what_judges() -> None:
    from tiergate.github import codeowners

    (body,) = snippets("text")
    rules = codeowners.parse(body.replace("OWNER", "octo"))
    assert codeowners.gaps(rules, ["gate.yaml"]) == []
