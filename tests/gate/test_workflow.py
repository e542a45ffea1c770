"""The workflow: what validators say of it, and what it does when it runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from github.act import ROOT, SPEC, STAND_INS, TOOLS, WORKFLOW, Origin, Run
from github.server import TOKEN, GitHub, serving, workflow_run

import environments
from tiergate import cli, history
from tiergate.github import codeowners

# What is done to an artifact while it is kept; in shell.
LOSE = '[ "$NAME" != %s ] || rm -r "$artifact"'
DOUBLE = '[ "$NAME" != %s ] || cp -r "$artifact" "$artifact-again"'

BROKEN = "def question() -> int:\n    return 42\n"


WORKFLOWS = sorted(WORKFLOW.parent.glob("*.yml"))


def on_devices(devices: str) -> str:
    return SPEC.replace("[cpu]", devices) + f"    devices: {devices}\n"


def check(*command: str | Path) -> None:
    done = subprocess.run(
        [TOOLS / command[0], *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    # Every scalar as text: YAML 1.1 would read `on` as true.
    document = yaml.load(WORKFLOW.read_text(), yaml.BaseLoader)
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    documents = [yaml.load(path.read_text(), yaml.BaseLoader) for path in WORKFLOWS]
    jobs = [job for document in documents for job in document["jobs"].values()]
    return [step for job in jobs for step in job["steps"]]


def test_zizmor_finds_nothing_as_an_auditor() -> None:
    check(
        "zizmor",
        "--offline",
        "--no-progress",
        "-q",
        "--persona",
        "auditor",
        ".github",
        "tests",
        ".",
    )


ACTIONS = [ROOT / "action.yml", *sorted(STAND_INS.glob("*/action.yml"))]


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.github-actions", ACTIONS),
        ("vendor.dependabot", [ROOT / ".github/dependabot.yml"]),
    ],
)
def test_files_satisfy_the_schema(schema: str, files: list[Path]) -> None:
    assert files
    check("check-jsonschema", "--builtin-schema", schema, *files)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_act_accepts_every_key_of_the_workflow(path: Path) -> None:
    check("act", "--validate", "--strict", "--workflows", path)


def test_every_action_is_pinned_by_commit_with_its_version() -> None:
    texts = [path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")]
    lines = "\n".join([*texts, (ROOT / "action.yml").read_text()]).splitlines()
    uses = [line for line in lines if re.match(r" +(- )?uses:", line)]
    assert uses
    for line in uses:
        assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_no_checkout_leaves_its_token_behind(steps: list[dict[str, Any]]) -> None:
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert [step["with"]["persist-credentials"] for step in checkouts] == ["false"] * len(checkouts)


def test_no_expression_reaches_a_shell(steps: list[dict[str, Any]]) -> None:
    scripts = [step["run"] for step in steps if "run" in step]
    assert scripts
    assert [script for script in scripts if "${{" in script] == []


def test_jobs_have_no_rights_but_to_read_the_contents(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(
    ("name", "rights"),
    [
        ("history.yml", {"actions": "read", "contents": "read"}),
        ("status.yml", {"contents": "write"}),
    ],
)
def test_a_right_beyond_reading_the_contents_is_another_workflows_that_callers_ask_for(
    name: str, rights: dict[str, str]
) -> None:
    document = yaml.load((WORKFLOW.parent / name).read_text(), yaml.BaseLoader)
    assert document["on"].keys() == {"workflow_call"}
    assert document["permissions"] == {}
    (job,) = document["jobs"].values()
    assert job["permissions"] == rights


def test_the_workflow_runs_for_every_change_and_never_with_the_rights_of_the_base(
    workflow: dict[str, Any],
) -> None:
    triggers = workflow["on"]
    assert set(triggers) == {
        "pull_request", "merge_group", "push", "workflow_call", "workflow_dispatch",
    }  # fmt: skip
    # A filter would leave the required check pending for ever.
    usual = ["opened", "synchronize", "reopened"]
    assert triggers["pull_request"] == {"types": [*usual, "labeled"]}
    assert not triggers["merge_group"]


def test_only_a_pull_request_can_be_cancelled_by_a_newer_run(workflow: dict[str, Any]) -> None:
    assert workflow["concurrency"] == {
        # Two calls in one run are told apart by their prefix: one would cancel the other.
        "group": (
            "gate-${{ inputs.artifact-prefix }}"
            "${{ github.event_name == 'pull_request' && github.ref || github.run_id }}"
        ),
        "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
    }


def test_the_required_job_cannot_be_skipped_and_no_step_may_fail_unseen(
    workflow: dict[str, Any], steps: list[dict[str, Any]]
) -> None:
    gate = workflow["jobs"]["gate"]
    assert gate["if"] == "always()"
    assert gate["needs"] == ["plan", "judge", "prove"]
    # A dispatch judges by the spec of its own branch, perhaps a part: it satisfies no merge.
    assert gate["name"] == (
        "${{ github.event_name == 'workflow_dispatch' && 'gate (dispatched)' || 'gate' }}"
    )
    assert [step for step in gate["steps"] if "if" in step] == []
    assert [x for x in (*workflow["jobs"].values(), *steps) if "continue-on-error" in x] == []


def test_code_owners_review_all_that_judges() -> None:
    files = [path.name for path in ROOT.iterdir()]
    assert {"action.yml", ".pre-commit-hooks.yaml"} <= set(codeowners.judging(files))
    rules = codeowners.parse((ROOT / ".github/CODEOWNERS").read_text())
    assert codeowners.gaps(rules, files) == []


def test_dependabot_moves_the_actions_and_both_sets_of_packages() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    places = {
        (update["package-ecosystem"], place)
        for update in updates
        for place in update.get("directories", [update.get("directory")])
    }
    assert places == {("github-actions", "/"), ("pip", "/"), ("pip", "/scripts")}


# The matrix of legs


def matrix(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> Any:
    spec = folder / "gate.yaml"
    spec.write_text(on_devices("[cpu, cuda]"))
    status = cli.run(["plan", "--spec", str(spec), "--github-matrix", *arguments])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out.count("\n") == 1
    return json.loads(printed.out)["include"]


def test_matrix_names_the_runner_of_each_leg(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    several = '["self-hosted", "linux", "cuda"]'
    legs = matrix(capsys, tmp_path, "--runner", "cpu=ubuntu-24.04", "--runner", f"cuda={several}")
    assert legs == [
        {"device": "cpu", "runner": "ubuntu-24.04"},
        {"device": "cuda", "runner": ["self-hosted", "linux", "cuda"]},
    ]


@pytest.mark.parametrize("empty", [["--runner", "cuda="], ["--runner", "cuda=[]"], []])
def test_matrix_keeps_a_leg_without_a_runner_and_says_why_it_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, empty: list[str]
) -> None:
    cpu, cuda = matrix(capsys, tmp_path, "--runner", "cpu=ubuntu-24.04", *empty)
    assert cpu == {"device": "cpu", "runner": "ubuntu-24.04"}
    assert cuda.keys() == {"device", "problem"}
    assert "the cuda leg has no runner" in cuda["problem"]
    assert "TIERGATE_CUDA_RUNNER" in cuda["problem"]


def test_matrix_has_the_devices_alone_when_no_runner_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert matrix(capsys, tmp_path) == [{"device": "cpu"}, {"device": "cuda"}]


@pytest.mark.parametrize(
    ("runners", "complaint"),
    [
        (["gpu-box"], "write it DEVICE=LABEL"),
        (["cdua=gpu-box"], "did you mean 'cuda'?"),
        (["cuda=a", "cuda=b"], "has a runner already"),
        (["cuda=[1"], "not a JSON list of labels"),
        (["cuda=[1]"], "not a list of labels"),
        (['cuda=["a", " "]'], "not a list of labels"),
        (['cuda={"group": "a"}'], "not a list of labels"),
    ],
)
def test_matrix_refuses_a_runner_that_no_job_could_run_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, runners: list[str], complaint: str
) -> None:
    (tmp_path / "gate.yaml").write_text(SPEC)
    options = [part for runner in runners for part in ("--runner", runner)]
    status = cli.run(["plan", "--spec", str(tmp_path / "gate.yaml"), "--github-matrix", *options])
    assert status == 2
    assert complaint in capsys.readouterr().err


def test_runners_without_a_matrix_are_a_mistake(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "gate.yaml").write_text(SPEC)
    status = cli.run(["plan", "--spec", str(tmp_path / "gate.yaml"), "--runner", "cpu=x"])
    assert status == 2
    assert "--github-matrix" in capsys.readouterr().err


# What the workflow does when it runs


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


def pull_request(
    origin: Origin, base: str, happened: dict[str, Any] | None = None, **options: Any
) -> Run:
    head = origin.commit()
    payload = {"number": 1, "base": {"sha": base, "ref": "main"}, "head": {"sha": head}}
    event = {"pull_request": payload, "repository": {"default_branch": "main"}}
    event |= {"action": "synchronize", **(happened or {})}
    run = origin.trigger("pull_request", event, **options)
    assert "history" not in run.jobs or options.get("tool")
    assert run.jobs.keys() >= {"plan", "gate"}, run.log
    return run


def ended(run: Run) -> dict[str, str]:
    """Return how the jobs ended that judge; whether the proofs held is another matter."""
    return {job: run.jobs[job] for job in ("plan", "judge", "gate")}


@dataclass(frozen=True)
class Green:
    """A good pull request, judged."""

    origin: Origin
    base: str
    run: Run


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Green:
    origin = Origin(tmp_path_factory.mktemp("green"))
    base = origin.commit()
    origin.write("src/sample.py", "def answer() -> int:\n    return 6 * 7\n")
    return Green(origin, base, pull_request(origin, base))


def test_a_good_pull_request_is_green(green: Green) -> None:
    run = green.run
    assert ended(run) == {"plan": "success", "judge": "success", "gate": "success"}, run.log
    assert run.outputs["judge"] == green.base
    assert run.outputs["candidate"] == green.origin.git("rev-parse", "HEAD").strip() != green.base
    assert run.summaries["gate"].startswith("## SAMPLE GATE PASSED — proceed to the release\n")
    assert run.jobs["prove"] == "success"
    assert run.summaries.keys() == {"judge (cpu)", "prove", "gate"}


# act can be interrupted as a whole only. What GitHub says of a leg that was cancelled, timed out or
# skipped goes through the workflow's own command line.


@dataclass
class Decision:
    """The step ``Decide`` of the good pull request, once more; ``reports`` may be changed first."""

    command: str
    environment: dict[str, str]
    reports: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, **results: str) -> tuple[int, str]:
        """Return the exit code and what is said, where jobs ended so: JUDGE, PROVE."""
        words = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"printf '%s\\0' {self.command}"],
            env={**self.environment, **results},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")[1:-1]
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            self.monkeypatch.delenv(name, raising=False)
        self.monkeypatch.setenv("GITHUB_RUN_ID", "1")  # as act numbers its runs
        code = cli.run(words)
        return code, self.capsys.readouterr().out


@pytest.fixture
def decision(
    green: Green,
    workflow: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Decision:
    (step,) = (s for s in workflow["jobs"]["gate"]["steps"] if s["name"] == "Decide")
    shutil.copytree(green.origin.folder / "artifacts", tmp_path / "reports")
    (tmp_path / "candidate").symlink_to(green.origin.files)
    monkeypatch.chdir(tmp_path)
    values = dict.fromkeys(step["env"], "")
    values |= {"JUDGE": "success", "PROVE": "success", "BASE": green.base}
    values |= {"ALLOW_WEAKENING": "", "RUNNER_TEMP": str(tmp_path)}
    return Decision(step["run"], values, tmp_path / "reports", capsys, monkeypatch)


def test_the_decision_over_what_the_legs_left_is_green(decision: Decision) -> None:
    code, said = decision()
    assert code == 0
    assert "SAMPLE GATE PASSED" in said


@pytest.mark.parametrize("job", ["JUDGE", "PROVE"])
@pytest.mark.parametrize("result", ["cancelled", "skipped", "failure", ""])
def test_a_job_that_github_cancelled_or_skipped_is_red_although_its_report_passes(
    decision: Decision, job: str, result: str
) -> None:
    code, said = decision(**{job: result})
    assert code == 3
    assert f"the {job.lower()} job ended with {result or 'no result'!r}: this is not a pass" in said
    assert "PASSED" not in said


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("commit", "0123456789abcdef", "of another state of the repository (commit 0123456789ab"),
        ("id", "7", "report of the cpu leg: of run 7, this is run 1"),
    ],
)
def test_a_stale_report_is_red(decision: Decision, field: str, value: str, sentence: str) -> None:
    path = decision.reports / "report-cpu" / "report.json"
    text, count = re.subn(
        rf'"{field}": ?"[0-9a-f]+"', f'"{field}":"{value}"', path.read_text(), count=1
    )
    assert count == 1
    path.write_text(text)
    code, said = decision()
    assert code == 3
    assert sentence in said


def test_a_doubled_report_is_red(decision: Decision) -> None:
    shutil.copytree(decision.reports / "report-cpu", decision.reports / "report-cpu-again")
    code, said = decision()
    assert code == 3
    assert "exports@cpu: 2 verdicts, where there must be exactly one" in said


def test_a_criterion_that_cannot_fail_is_red(origin: Origin) -> None:
    base = origin.commit()
    always = '  - {id: always, uses: command, with: {run: ["true"]}}\n'
    origin.write("gate.yaml", SPEC + always)
    run = pull_request(origin, base)
    assert run.jobs["judge"] == "success", run.log
    assert run.jobs["prove"] == "failure"
    assert run.jobs["gate"] == "failure"
    assert "the prove job ended with 'failure'" in run.summaries["gate"]


def test_a_broken_change_that_rewrites_its_judge_is_red_by_that_of_the_base_with_its_evidence(
    origin: Origin,
) -> None:
    base = origin.commit()
    origin.write("src/sample.py", BROKEN)
    origin.write("gate.yaml", SPEC.replace("answer", "question"))
    origin.write("scripts/tiergate/cli.py", "def main() -> None:\n    raise SystemExit(0)\n")
    origin.write("scripts/environments.py", "")
    # A label of an earlier commit allows nothing of this one.
    run = pull_request(origin, base, {"action": "synchronize", **ALLOWED})
    assert ended(run) == {"plan": "success", "judge": "failure", "gate": "failure"}, run.log
    assert run.steps["judge (cpu)", "Judge"] == "failure"
    assert run.steps["judge (cpu)", "Keep the report"] == "success"
    assert run.summaries["gate"].startswith("## SAMPLE GATE FAILED")
    assert "sample.answer" in run.summaries["gate"]
    assert "--allow-weakening lets that pass" in run.summaries["gate"]


ALLOWED = {"label": {"name": "allow-weakening"}}


def test_a_label_allows_the_weaker_spec_of_the_commit_that_it_is_put_on(origin: Origin) -> None:
    twin = "  - {id: twin, uses: imports, with: {module: sample, names: [answer]}}\n"
    origin.write("gate.yaml", SPEC + twin)
    base = origin.commit()
    origin.write("gate.yaml", SPEC)
    run = pull_request(origin, base, {"action": "labeled", **ALLOWED})
    assert ended(run) == {"plan": "success", "judge": "success", "gate": "success"}, run.log
    assert "twin" in run.summaries["gate"]
    assert "(weaker)" in run.summaries["gate"]


def test_a_report_that_was_lost_is_red_although_its_leg_passed(origin: Origin) -> None:
    base = origin.commit()
    origin.write("src/other.py", "")
    run = pull_request(origin, base, environment={"ACT_TAMPER": LOSE % "report-cpu"})
    assert ended(run) == {"plan": "success", "judge": "success", "gate": "failure"}, run.log
    assert "the cpu leg has no report" in run.summaries["gate"]


@pytest.mark.parametrize(
    ("edits", "sentences"),
    [
        (["$d"], ["not a readable report"]),
        (
            ['s/"commit": *"[0-9a-f]*"/"commit": "0123456789abcdef"/', 's/"id": *"1"/"id": "7"/'],
            ["of another state", "of run 7, this is run 1"],
        ),
    ],
    ids=["corrupt", "stale"],
)
def test_a_report_that_is_corrupt_or_of_another_run_is_red(
    origin: Origin, edits: list[str], sentences: list[str]
) -> None:
    base = origin.commit()
    origin.write("src/other.py", "")
    tamper = "\n".join(f"sed -i '{edit}' \"$artifact/report.json\"" for edit in edits)
    run = pull_request(origin, base, environment={"ACT_TAMPER": tamper})
    assert ended(run) == {"plan": "success", "judge": "success", "gate": "failure"}, run.log
    assert [said for said in sentences if said not in run.summaries["gate"]] == []


def test_a_candidate_that_kills_its_judge_is_red(origin: Origin) -> None:
    tests = "  - {id: tests, uses: pytest, with: {paths: [tests]}, expect: {passed: 1}}\n"
    origin.write("gate.yaml", SPEC + tests)
    origin.write("tests/test_it.py", TEST)
    base = origin.commit()
    origin.write("tests/test_it.py", KILLER)
    run = pull_request(origin, base)
    assert ended(run) == {"plan": "success", "judge": "failure", "gate": "failure"}, run.log
    assert run.steps["judge (cpu)", "Keep the report"] == "success"
    assert "the judge job ended with 'failure'" in run.summaries["gate"]
    assert "tests@\u200bcpu: no verdict: the cpu leg has no report" in run.summaries["gate"]


SIX = """\
gate: SAMPLE
next: the release
devices: [cpu]
pythonpath: [src]
criteria:
  - {id: exports, uses: imports, with: {module: sample, names: [answer]}}
  - id: count
    uses: pytest
    with: {paths: [tests/test_count.py], collect-only: true}
    expect: {collected: 2}
  - {id: tests, uses: pytest, with: {paths: [tests/test_a.py]}, expect: {passed: 1}}
  - id: loads
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [src]}
    expect: {findings: 0}
  - {id: more, uses: pytest, with: {paths: [tests/test_b.py]}, expect: {passed: 1}}
  - {id: whole, uses: collection, with: {paths: [tests]}, expect: {collected: ">=4"}}
"""
TEST = "from sample import answer\n\ndef test_it():\n    assert answer() == 42\n"


KILLER = """\
import os
import signal

def test_it():
    process = os.getpid()
    while process > 1:
        with open(f"/proc/{process}/cmdline", "rb") as stream:
            words = stream.read().split(b"\\0")
        if b"tiergate" in words and b"run" in words:
            os.kill(process, signal.SIGKILL)
        with open(f"/proc/{process}/stat") as stream:
            process = int(stream.read().rpartition(")")[2].split()[1])
"""


def test_each_of_six_criteria_can_turn_the_gate_red(origin: Origin) -> None:
    origin.write("gate.yaml", SIX)
    origin.write("tests/test_count.py", TEST + TEST.partition("\n")[2].replace("it", "again"))
    origin.write("tests/test_a.py", TEST)
    origin.write("tests/test_b.py", TEST)
    base = origin.commit()
    origin.write("src/sample.py", "import torch\n\nanswer = None\nx = torch.load(answer)\n")
    origin.write("tests/test_count.py", TEST)
    origin.write("tests/test_b.py", "import pytest\n\n@pytest.mark.skip\n" + TEST)
    run = pull_request(origin, base)
    assert run.jobs["gate"] == "failure", run.log
    rows = re.findall(r"^\| (\w+) \| \S+ \*\*(\w+)\*\* \|", run.summaries["gate"], re.MULTILINE)
    assert {name for name, _ in rows} == {"exports", "count", "tests", "loads", "more", "whole"}
    assert {status for _, status in rows} <= {"fail", "error"}


AFTER_PUSH = """\
on: push
jobs:
  tier0:
    permissions: {contents: read}
    uses: octo/tiergate/.github/workflows/gate.yml@v1
    with: {judge-repository: octo/tiergate, judge-ref: main, shards: 2}
  status:
    needs: tier0
    permissions: {contents: write}
    uses: octo/tiergate/.github/workflows/status.yml@v1
    with: {judge-repository: octo/tiergate, judge-ref: main, file: STATUS.md}
"""


def test_a_push_to_the_default_branch_records_what_it_has_over_shards_and_writes_the_status(
    origin: Origin, tmp_path: Path
) -> None:
    tool = as_tool(origin)
    other = tool.without_judge(tmp_path / "other", AFTER_PUSH)
    other.git("remote", "add", "origin", "https://github.com/octo/transformer.git")
    commit = other.commit()
    event = {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "repository": {"default_branch": "main"},
    }
    with serving(GitHub()) as github:
        run = other.trigger(
            "push", event, tool=tool, token=TOKEN, environment={"ACT_API": github.url}
        )
    assert run.jobs["gate"] == "success", run.log
    reports = sorted((other.folder / "artifacts").glob("report-*/report.json"))
    assert [path.parent.name for path in reports] == ["report-cpu-1-of-2", "report-cpu-2-of-2"]
    assert {json.loads(p.read_text())["source"]["commit"] for p in reports} == {commit}
    runs, problems = history.read_files([other.folder / "artifacts/gate-history"])
    assert problems == []
    assert [(run.commit, run.shard) for run in runs] == [(commit, "")]
    assert {name: cell.status for name, cell in runs[0].cells.items()} == {
        "exports@cpu": "pass",
        "tests@cpu": "pass",
    }
    assert github.messages == ["main: Update STATUS.md"], run.log
    assert f"| `tests@cpu` | ✓ holds | `{commit[:12]}` |" in github.files["STATUS.md"]


CALLER = """\
on: pull_request
jobs:
  history:
    permissions: {actions: read, contents: read}
    uses: octo/tiergate/.github/workflows/history.yml@v1
    with: {judge-repository: octo/tiergate, judge-ref: main, artifact-prefix: tier0-}
  tier0:
    needs: history
    permissions: {contents: read}
    uses: octo/tiergate/.github/workflows/gate.yml@v1
    with:
      judge-repository: octo/tiergate
      judge-ref: main
      shards: 2
      artifact-prefix: tier0-
"""


def test_another_repository_reuses_the_workflow_with_this_judge_and_its_own_history(
    origin: Origin, tmp_path: Path
) -> None:
    tool = as_tool(origin)
    other = tool.without_judge(tmp_path / "other", CALLER)
    other.git("remote", "add", "origin", "https://github.com/octo/transformer.git")
    base = other.commit()
    other.write("src/sample.py", BROKEN)
    # The latest run for a push to the default branch that succeeded is that of id 4.
    runs = [
        workflow_run(7, "pull_request", "main", "success"),
        workflow_run(6, "push", "topic", "success"),
        workflow_run(5, "push", "main", "failure"),
        workflow_run(4, "push", "main", "success"),
        workflow_run(3, "push", "main", "success"),
    ]
    took = {"status": "pass", "seconds": 900.0, "files": {}}
    took["files"] = {"tests/test_one.py": 800.0, "tests/test_two.py": 100.0}
    kept = history.RunRecord(
        schema_version=history.SCHEMA_VERSION,
        started="2026-01-01T00:00:00+00:00",
        device="cpu",
        commit=base,
        tree="7" * 64,
        cells={"tests@cpu": msgspec.convert(took, history.CellRecord)},
    )
    target = other.folder / "artifacts-of-run-4/tier0-gate-history/history.json"
    history.write(target, history.encode([kept]))
    with serving(GitHub(runs=runs)) as github:
        run = pull_request(other, base, tool=tool, token=TOKEN, environment={"ACT_API": github.url})
    assert run.outputs["run"] == "4", run.log
    assert run.outputs["base"] == base
    assert run.outputs["judge"] == tool.git("rev-parse", "HEAD").strip()
    assert run.jobs["gate"] == "failure"
    assert "sample.answer" in run.summaries["gate"]
    assert {path.name for path in (other.folder / "artifacts").iterdir()} == {
        "tier0-gate-history-base",
        "tier0-gate-plan",
        "tier0-report-cpu-1-of-2",
        "tier0-report-cpu-2-of-2",
    }
    plan = json.loads((other.folder / "artifacts/tier0-gate-plan/plan.json").read_text())
    assert max(plan["devices"]["cpu"]["seconds"]) > 700


TWO_FILES = "  - {id: tests, uses: pytest, with: {paths: [tests]}, expect: {passed: 2}}\n"


def as_tool(origin: Origin) -> Origin:
    """Make the repository that others take the judge from; two shards share a criterion of it."""
    origin.git("remote", "add", "origin", "https://github.com/octo/tiergate.git")
    write_two_files(origin, SPEC + TWO_FILES)
    origin.commit()
    return origin


def write_two_files(origin: Origin, spec: str) -> None:
    """Write a criterion of two files, which two shards share."""
    origin.write("gate.yaml", spec)
    for name in ("one", "two"):
        origin.write(f"tests/test_{name}.py", TEST)


def legs(run: Run) -> list[str]:
    """Return the legs of the matrix."""
    return [leg.get("leg", leg["device"]) for leg in json.loads(run.outputs["matrix"])["include"]]


def test_two_shards_are_put_together_beside_a_leg_without_a_runner(origin: Origin) -> None:
    write_two_files(origin, on_devices("[cpu, cuda]") + TWO_FILES + waiver())
    base = origin.commit()
    origin.write("src/other.py", "")
    run = pull_request(origin, base, variables={"TIERGATE_SHARDS": "2"})
    assert ended(run) == {"plan": "success", "judge": "success", "gate": "success"}, run.log
    assert legs(run) == ["cpu-1-of-2", "cpu-2-of-2", "cuda"]
    assert json.loads(run.outputs["matrix"])["include"][2].keys() == {"device", "problem"}
    kept = {path.name for path in (origin.folder / "artifacts").glob("report-*")}
    assert kept == {"report-cpu-1-of-2", "report-cpu-2-of-2", "report-cuda"}
    assert "2 passed" in run.summaries["gate"]
    # Nothing of a criterion changed, so that nothing is proven.
    assert run.jobs["prove"] == "success"
    assert "prove" not in run.summaries


def test_a_dispatch_spreads_the_chosen_device_and_a_doubled_and_a_lost_shard_are_named(
    origin: Origin,
) -> None:
    write_two_files(origin, on_devices("[cpu, cuda]") + TWO_FILES)
    origin.commit()
    tamper = "\n".join([DOUBLE % "report-cpu-1-of-2", LOSE % "report-cpu-2-of-2"])
    inputs = {"devices": "cpu", "shards": "2"}
    run = origin.trigger(
        "workflow_dispatch", {"inputs": inputs}, environment={"ACT_TAMPER": tamper}
    )
    assert legs(run) == ["cpu-1-of-2", "cpu-2-of-2"], run.log
    assert ended(run) == {"plan": "success", "judge": "success", "gate": "failure"}, run.log
    said = run.summaries["gate"]
    assert "cpu leg 1/2: 2 reports, where there must be exactly one" in said
    assert "cpu leg 2/2: no report" in said


def test_a_leg_that_did_not_end_well_is_red_although_its_report_passes(origin: Origin) -> None:
    base = origin.commit()
    origin.write("src/other.py", "")
    run = pull_request(origin, base, environment={"ACT_TAMPER": "exit 1"})
    assert run.steps["judge (cpu)", "Judge"] == "success", run.log
    assert ended(run) == {"plan": "success", "judge": "failure", "gate": "failure"}
    assert run.summaries["gate"].startswith("## SAMPLE GATE NOT EVALUATED")
    assert "the judge job ended with 'failure': this is not a pass" in run.summaries["gate"]


def waiver() -> str:
    day = datetime.now(timezone.utc).date() + timedelta(days=30)
    about = "criterion: exports, device: cuda, reason: no GPU yet, owner: qa"
    return f"waivers:\n  - {{{about}, expires: {day}}}\n"


@pytest.mark.parametrize(("in_base", "result"), [(False, "failure"), (True, "success")])
def test_a_leg_without_a_runner_is_red_unless_the_base_waives_it(
    origin: Origin, in_base: bool, result: str
) -> None:
    spec = on_devices("[cpu, cuda]")
    origin.write("gate.yaml", spec + waiver() * in_base)
    base = origin.commit()
    origin.write("gate.yaml", spec + waiver())  # the head's own waiver counts for nothing
    origin.write("src/other.py", "")
    run = pull_request(origin, base)
    assert run.steps["judge (cpu)", "Keep the report"] == "success", run.log
    assert run.steps["judge (cuda)", "Keep the report"] == "success"
    assert run.steps["judge (cuda)", "Judge"] == run.jobs["gate"] == result
    assert ("judge (cuda)", "Set up the candidate") not in run.steps
    for job in ("judge (cuda)", "gate"):
        assert "the cuda leg has no runner" in run.summaries[job]


def test_the_label_of_the_repository_variable_reaches_the_matrix(origin: Origin) -> None:
    origin.write("gate.yaml", on_devices("[cuda]"))
    base = origin.commit()
    origin.write("src/other.py", "")
    run = pull_request(origin, base, variables={"TIERGATE_CUDA_RUNNER": "ubuntu-24.04"})
    assert json.loads(run.outputs["matrix"]) == {
        "include": [{"device": "cuda", "runner": "ubuntu-24.04"}]
    }
    # The runner is there, but has no GPU: an error of the cell with a diagnosis, never a skip.
    assert run.steps["judge (cuda)", "Judge"] == "failure", run.log
    assert run.steps["judge (cuda)", "Diagnose the GPU"] == "failure"
    assert "not ready to judge" in run.log
    assert run.jobs["gate"] == "failure"


def test_the_pull_request_that_brings_the_gate_is_judged_by_it_with_a_warning(
    origin: Origin,
) -> None:
    (origin.files / "gate.yaml").rename(origin.folder / "gate.yaml")
    base = origin.commit()
    (origin.folder / "gate.yaml").rename(origin.files / "gate.yaml")
    run = pull_request(origin, base)
    assert ended(run) == {"plan": "success", "judge": "success", "gate": "success"}, run.log
    assert run.outputs["judge"] == run.outputs["base"] == run.outputs["candidate"] != base
    assert f"the base ({base}) has no gate.yaml yet" in run.summaries["plan"]


def test_a_plan_that_fails_is_red_although_the_legs_are_skipped(origin: Origin) -> None:
    origin.write("gate.yaml", "gate: SAMPLE\n")
    base = origin.commit()
    origin.write("src/other.py", "")
    run = pull_request(origin, base)
    assert run.jobs["plan"] == run.jobs["gate"] == "failure", run.log
    assert not [step for step in run.steps if step[0].startswith("judge")]
    assert "the plan job ended with 'failure'" in run.summaries["gate"]


def test_an_entry_of_the_merge_queue_is_judged_by_its_base_over_shards(origin: Origin) -> None:
    write_two_files(origin, SPEC + TWO_FILES)
    base = origin.commit()
    origin.write("src/sample.py", BROKEN)
    origin.write("gate.yaml", (SPEC + TWO_FILES).replace("answer", "question"))
    head = origin.commit()
    run = origin.trigger(
        "merge_group",
        {"merge_group": {"base_sha": base, "head_sha": head}},
        variables={"TIERGATE_SHARDS": "2"},
    )
    assert run.outputs["judge"] == base, run.log
    assert legs(run) == ["cpu-1-of-2", "cpu-2-of-2"]
    assert ended(run) == {"plan": "success", "judge": "failure", "gate": "failure"}
    assert "sample.answer" in run.summaries["gate"]


def test_a_dispatch_judges_the_ref_that_it_names(origin: Origin) -> None:
    criterion = "  - {id: %s, uses: imports, with: {module: sample, names: [answer]}}\n"
    origin.write("gate.yaml", on_devices("[cpu, cuda]") + criterion % "twin" + criterion % "never")
    trunk = origin.commit()
    origin.git("checkout", "-q", "-b", "feature")
    origin.write("src/sample.py", BROKEN)
    feature = origin.commit()
    origin.git("checkout", "-q", "main")
    inputs = {"ref": "feature", "criteria": "twin, exports", "devices": "cpu"}
    run = origin.trigger("workflow_dispatch", {"inputs": inputs})
    assert (run.outputs["judge"], run.outputs["candidate"]) == (trunk, feature), run.log
    assert ended(run) == {"plan": "success", "judge": "failure", "gate": "failure"}
    assert json.loads(run.outputs["matrix"])["include"] == [
        {"device": "cpu", "runner": "ubuntu-24.04"}
    ]
    summary = run.summaries["gate"]
    assert "| exports | ❌ **fail** |" in summary
    assert "| twin | ❌ **fail** |" in summary
    assert "| never |" not in summary


# The environments of two checkouts


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environments, "VENVS", tmp_path / "venvs")
    folder = tmp_path / "head"
    folder.mkdir()
    (folder / "constraints.txt").write_text("")
    (folder / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch"]\n[project.optional-dependencies]\ntest = ["pytest"]\n'
    )
    return folder


def test_the_bases_script_makes_the_environment_that_the_head_asks_for(
    head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(environments, "_make", lambda environment, _: made.append(environment))
    assert environments.main(["--root", str(head), "candidate"]) == 0
    (environment,) = made
    assert environments._requirements(environment) == ["torch", "pytest"]
    assert environment.constraints == head / "constraints.txt"
    assert environment.path == head.parent / "venvs" / "candidate"


@pytest.mark.parametrize(
    ("project", "complaint"),
    [
        ("[project", "not TOML"),
        ("[project]\ndependencies = []\n", "no 'optional-dependencies'"),
        (None, "pyproject.toml is missing"),
    ],
)
def test_a_head_whose_requirements_cannot_be_read_is_told_so(
    head: Path, capsys: pytest.CaptureFixture[str], project: str | None, complaint: str
) -> None:
    if project is None:
        (head / "pyproject.toml").unlink()
    else:
        (head / "pyproject.toml").write_text(project)
    assert environments.main(["--root", str(head), "candidate"]) == 3
    assert complaint in capsys.readouterr().err


def test_what_is_installed_cannot_speak_to_the_workflow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = {"GITHUB_ENV", "GITHUB_OUTPUT", "ACTIONS_RUNTIME_TOKEN", "RUNNER_TEMP"}
    for name in (*hidden, "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "set")
    program = "import os\nfor name in os.environ: print('Collecting', name)"
    environments._run([sys.executable, "-c", program], "")
    seen = set(capsys.readouterr().err.split())
    assert "PIP_INDEX_URL" in seen
    assert not hidden & seen
