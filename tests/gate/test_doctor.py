"""``tiergate doctor``: would this machine judge, and would GitHub obey?"""

from __future__ import annotations

import copy
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import ROOT
from github.server import ACTIONS, TOKEN, Answer, GitHub, protection, serving
from samples import Sample

from tiergate import cli

WORKFLOW = """\
on:
  pull_request:
  merge_group:
jobs:
  judge: {runs-on: x, steps: []}
  gate:
    if: always()
    needs: judge
    steps: []
"""
FILES = {
    "CODEOWNERS": "* @octo/core\n",
    ".github/workflows/gate.yml": WORKFLOW,
    ".github/workflows/notes.txt": "not a workflow",
    "gate.yaml": "",
}
RULES: list[dict[str, Any]] = [
    {
        "type": "required_status_checks",
        "parameters": {
            "strict_required_status_checks_policy": True,
            "required_status_checks": [{"context": "gate", "integration_id": ACTIONS}],
        },
    },
    {
        "type": "pull_request",
        "parameters": {
            "dismiss_stale_reviews_on_push": True,
            "require_code_owner_review": True,
            "require_last_push_approval": False,
            "required_approving_review_count": 1,
            "required_review_thread_resolution": False,
        },
    },
]
QUEUE = {
    "type": "merge_queue",
    "parameters": {
        "check_response_timeout_minutes": 60,
        "grouping_strategy": "ALLGREEN",
        "max_entries_to_build": 5,
        "max_entries_to_merge": 5,
        "merge_method": "MERGE",
        "min_entries_to_merge": 1,
        "min_entries_to_merge_wait_minutes": 5,
    },
}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    ruleset = {
        "id": 40,
        "name": "tiergate",
        "target": "branch",
        "source_type": "Repository",
        "source": "octo/transformer",
        "enforcement": "active",
        "bypass_actors": [],
        "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
        "rules": copy.deepcopy(RULES),
    }
    with serving(GitHub(files=dict(FILES), rulesets=[ruleset])) as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        monkeypatch.setenv("GH_TOKEN", TOKEN)
        monkeypatch.delenv("GITHUB_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, str], str]:
    """Return the exit code, and the states of the lines by their names: the worst where several."""
    code = cli.run(["doctor", *words])
    out, err = capsys.readouterr()
    assert TOKEN not in out + err
    assert err == ""
    states: dict[str, str] = {}
    order = ("ok", "note", "unknown", "problem")
    for line in out.splitlines():
        if match := re.match(r"(ok|note|problem|unknown) +(.{1,16}?)  +\S", line + "  x"):
            state, name = match[1], match[2].strip()
            states[name] = max(state, states.get(name, "ok"), key=order.index)
    return code, states, out


def test_where_a_red_gate_blocks_it_says_so(
    github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    code, states, out = ask(capsys, "--github", "octo/transformer")
    assert code == 0, out
    assert set(states.values()) == {"ok"}
    assert states.keys() == {
        "required", "reporter", "merged state", "workflow", "job", "bypass", "code owners",
        "CODEOWNERS",
    }  # fmt: skip
    assert out.endswith("a red gate blocks the merge\n")
    assert github.changes == []


def rules(github: GitHub) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = github.rulesets[0]["rules"]
    return found


def other_name(github: GitHub) -> None:
    rules(github)[0]["parameters"]["required_status_checks"][0]["context"] = "Gate"


def any_app(github: GitHub) -> None:
    del rules(github)[0]["parameters"]["required_status_checks"][0]["integration_id"]


def other_app(github: GitHub) -> None:
    rules(github)[0]["parameters"]["required_status_checks"][0]["integration_id"] = 7


def evaluated(github: GitHub) -> None:
    github.rulesets[0]["enforcement"] = "evaluate"


def bypassed(github: GitHub) -> None:
    github.rulesets[0]["bypass_actors"] = [{"actor_id": 5, "actor_type": "RepositoryRole"}]


def unreviewed(github: GitHub) -> None:
    rules(github)[1]["parameters"]["require_code_owner_review"] = False


def unowned(github: GitHub) -> None:
    github.files["CODEOWNERS"] += "/gate.yaml\n"


def unknown_owner(github: GitHub) -> None:
    github.owner_errors = [
        {"line": 1, "column": 3, "kind": "Unknown owner", "message": "m", "path": "CODEOWNERS"}
    ]


def in_workflow(old: str, new: str) -> Any:
    def edit(github: GitHub) -> None:
        path = ".github/workflows/gate.yml"
        assert old in github.files[path]
        github.files[path] = github.files[path].replace(old, new)

    return edit


def queue_without_trigger(github: GitHub) -> None:
    rules(github).append(copy.deepcopy(QUEUE))
    in_workflow("  merge_group:\n", "")(github)


def doubled(github: GitHub) -> None:
    github.files[".github/workflows/other.yaml"] = (
        "on: pull_request\njobs: {x: {name: gate, steps: []}}\n"
    )


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        (other_name, "required", "required are: Gate"),
        (any_app, "reporter", "any app or token"),
        (other_app, "reporter", "app 7, which is not GitHub Actions"),
        (evaluated, "required", "its enforcement is 'evaluate'"),
        (bypassed, "bypass", "RepositoryRole 5 (always)"),
        (unreviewed, "code owners", "--code-owner-review"),
        (unowned, "CODEOWNERS", "gate.yaml (gate.yaml, by line 2)"),
        (unknown_owner, "CODEOWNERS", "CODEOWNERS:1: Unknown owner"),
        (queue_without_trigger, "merge queue", "does not run on merge_group"),
        (doubled, "workflow", "each have a job that reports as 'gate'"),
        (in_workflow("  gate:", "  decide:"), "workflow", "there are: judge, decide"),
        (in_workflow("always()", "success()"), "job", "skipped counts as a success"),
        (in_workflow("    if: always()\n", ""), "job", "when a job that it needs fails"),
        (in_workflow("steps: []\n", "continue-on-error: true\n"), "job", "continue-on-error"),
        (in_workflow("request:\n", "request: {paths: [src]}\n"), "workflow", "filter paths"),
        (in_workflow("request:\n", "request: {types: [opened]}\n"), "workflow", "synchronize"),
        (in_workflow("request:\n", "request_target:\n"), "workflow", "rights of the base"),
    ],
)
def test_each_way_around_a_red_gate_is_a_problem(
    github: GitHub, capsys: pytest.CaptureFixture[str], edit: Any, line: str, words: str
) -> None:
    edit(github)
    code, states, out = ask(capsys, "--github", "octo/transformer")
    assert code == 1, out
    assert states[line] == "problem", out
    assert words in out
    assert "may not block" in out


def hidden_bypass(github: GitHub) -> None:
    github.hide_bypass = True


def cut_tree(github: GitHub) -> None:
    github.cut_tree = True


def not_yaml(github: GitHub) -> None:
    github.files[".github/workflows/odd.yml"] = "a: ["


def hidden_protection(github: GitHub) -> None:
    github.rulesets.clear()
    github.instead["GET .*/protection"] = Answer(403, b'{"message": "no"}')
    github.organisation_rules = [{**RULES[1], "ruleset_source_type": "Organization"}]


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (hidden_bypass, "bypass"),
        (cut_tree, "workflow"),
        (not_yaml, "workflow"),
        (hidden_protection, "required"),
    ],
)
def test_what_cannot_be_seen_is_no_pass(
    github: GitHub, capsys: pytest.CaptureFixture[str], edit: Any, line: str
) -> None:
    edit(github)
    code, states, out = ask(capsys, "--github", "octo/transformer")
    assert code == 3, out
    assert states[line] == "unknown", out


@pytest.mark.parametrize(("admins", "code"), [(True, 0), (False, 1)])
def test_classic_protection_counts_and_so_do_exempt_administrators(
    github: GitHub, capsys: pytest.CaptureFixture[str], admins: bool, code: int
) -> None:
    github.rulesets.clear()
    github.classic = protection(
        {
            "required_status_checks": {
                "strict": False,
                "checks": [{"context": "gate", "app_id": ACTIONS}],
            },
            "enforce_admins": admins,
            "required_pull_request_reviews": {
                "require_code_owner_reviews": True,
                "dismiss_stale_reviews": False,
            },
            "restrictions": None,
        }
    )
    got, states, out = ask(capsys, "--github", "octo/transformer")
    assert got == code, out
    assert states["required"] == states["reporter"] == states["code owners"] == "ok"
    assert states["administrators"] == ("ok" if admins else "problem")
    assert states["merged state"] == "note"


def test_the_repository_is_that_of_the_remote(
    github: GitHub, capsys: pytest.CaptureFixture[str], sample: Sample
) -> None:
    sample.git("remote", "add", "origin", "git@github.com:octo/transformer.git")
    code, _, out = ask(capsys, "--github", "--repo", str(sample.root))
    assert code == 0
    assert out.startswith("octo/transformer, branch main\n")


# This machine


def test_a_machine_that_can_judge_is_told_so(
    capsys: pytest.CaptureFixture[str], sample: Sample, candidate_python: Path
) -> None:
    code, states, out = ask(capsys, "--repo", str(sample.root), "--python", str(candidate_python))
    assert code == 0, out
    names = {"judge", "spec", "interpreter", "pytest", "torch", "semgrep", "git", "disk"}
    assert {name: states[name] for name in names} == dict.fromkeys(names, "ok")
    assert "finds an unsafe torch.load" in out


def test_a_machine_without_a_working_gpu_is_told_why_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
    sample: Sample,
    light_python: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed: no driver'; exit 9\n")
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    sample.write("gate.yaml", "gate: [\n")
    code, states, out = ask(
        capsys, "--device", "cuda", "--repo", str(sample.root), "--python", str(light_python)
    )
    assert code == 1
    assert states["torch"] == states["driver"] == states["spec"] == "problem"
    assert "exit code 9: NVIDIA-SMI has failed: no driver" in out
    assert "-m pip install torch" in out
    assert "not ready to judge" in out


def test_an_interpreter_that_does_not_start_is_a_problem(
    capsys: pytest.CaptureFixture[str], sample: Sample, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    code, states, out = ask(capsys, "--repo", str(sample.root), "--python", str(broken))
    assert code == 1
    assert states["interpreter"] == "problem"
    assert "exit code 7" in out


@pytest.mark.parametrize("words", [["octo/x"], ["--branch", "main"]])
def test_what_is_meant_for_github_is_not_ignored_here(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.run(["doctor", "--repo", str(ROOT), *words]) == 2
    assert "--github" in capsys.readouterr().err
