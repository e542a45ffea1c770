"""Runs the real workflow with act: on this machine, as the events of GitHub would start it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "gate.yml"
TOOLS = Path(sys.executable).parent
STAND_INS = Path(__file__).resolve().parent
_ACTION = re.compile(r"uses: ((?:[\w.-]+/)*([\w.-]+))@(\S+)")

SPEC = """\
gate: SAMPLE
next: the release
devices: [cpu]
pythonpath: [src]
criteria:
  - id: exports
    uses: imports
    with: {module: sample, names: [answer]}
"""


@dataclass
class Run:
    """How the jobs ended and what they said; empty where a job did not get that far."""

    jobs: dict[str, str] = field(default_factory=dict)
    """Job id → result; a job that was skipped is not there."""
    steps: dict[tuple[str, str], str] = field(default_factory=dict)
    """Job or leg, such as ``judge (cpu)``, and step → result."""
    outputs: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    """Job or leg → its summary. Annotations are not here: act loses some that a step ends with."""
    log: str = ""


class Origin:
    """A repository on a server: this project's judge, and a library of one function to judge.

    Args:
        folder: an empty folder to work in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "origin"
        shutil.copytree(
            ROOT / "scripts",
            self.files / "scripts",
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
        scripts = self.files / "scripts"
        (scripts / "environments.py").rename(scripts / "real_environments.py")
        shutil.copy(STAND_INS / "offline_environments.py", scripts / "environments.py")
        shutil.copytree(WORKFLOW.parent, self.files / ".github" / "workflows")
        self.write("gate.yaml", SPEC)
        self.write("pyproject.toml", "")
        self.write("constraints.txt", "")
        self.write("src/sample.py", "def answer() -> int:\n    return 42\n")
        self._init()

    def write(self, name: str, text: str) -> None:
        """Write a file of the work tree."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def without_judge(self, folder: Path, workflow: str) -> Origin:
        """Return another repository: the same library and spec, and a workflow of its own."""
        other = Origin.__new__(Origin)
        other.folder, other.files = folder, folder / "origin"
        shutil.copytree(self.files, other.files, ignore=shutil.ignore_patterns(".git", "scripts"))
        shutil.rmtree(other.files / ".github")
        other.write(".github/workflows/gate.yml", workflow)
        other._init()
        return other

    def _init(self) -> None:
        self.git("init", "-q", "-b", "main", "--template=")
        # Eight checkouts of a run fetch from here: to compress for each costs more than all else.
        self.git("config", "core.compression", "0")
        self.git("config", "pack.window", "0")

    def commit(self) -> str:
        """Commit the work tree; return the commit."""
        self.git("add", "--all")
        self.git("commit", "-q", "--message", "change")
        return self.git("rev-parse", "HEAD").strip()

    def git(self, *arguments: str) -> str:
        """Run git in the work tree."""
        identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.files,
            env=_clean_environment(self.folder),
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def trigger(
        self,
        event: str,
        payload: Mapping[str, Any],
        *,
        variables: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        tool: Origin | None = None,
        token: str = "",
    ) -> Run:
        """Run the workflow for an event whose commit is the work tree's.

        Args:
            event: such as ``pull_request``.
            payload: the event as GitHub sends it, as far as the workflow reads it.
            variables: the repository's variables.
            environment: for the stand-ins.
            tool: the repository ``octo/tiergate``, where the workflow uses it.
            token: the workflow's.
        """
        artifacts = self.folder / "artifacts"
        artifacts.mkdir()
        python = self.folder / "python" / "python"
        python.parent.mkdir()
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        event_file = self.folder / "event.json"
        event_file.write_text(json.dumps(payload))
        command = [str(TOOLS / "act"), event, "--json", "--eventpath", str(event_file)]
        command += ["--workflows", ".github/workflows/gate.yml", "--no-skip-checkout"]
        command += ["--platform", "ubuntu-24.04=-self-hosted"]
        command += ["--no-cache-server", "--action-offline-mode", "--pull=false"]
        # Jobs side by side share a map of local repositories without a lock: at times act crashes.
        command += ["--concurrent-jobs", "1"]
        command += ["--action-cache-path", str(self.folder / "act")]
        texts = "".join(path.read_text() for path in WORKFLOW.parent.glob("*.yml"))
        for name, last, ref in set(_ACTION.findall(texts)):
            command += ["--local-repository", f"{name}@{ref}={STAND_INS / last}"]
        if tool is not None:
            command += ["--local-repository", f"octo/tiergate@v1={tool.files}"]
        stand_ins = {
            "ACT_TOOL": str(tool.files if tool else ""),
            "ACT_ORIGIN": str(self.files),
            "ACT_ARTIFACTS": str(artifacts),
            "ACT_PYTHON": str(python.parent),
            **(environment or {}),
        }
        for key, value in stand_ins.items():
            command += ["--env", f"{key}={value}"]
        for key, value in (variables or {}).items():
            command += ["--var", f"{key}={value}"]
        if token:
            command += ["--secret", f"GITHUB_TOKEN={token}"]
        done = subprocess.run(
            command,
            cwd=self.files,
            env=_clean_environment(self.folder),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        run = _read(done.stdout)
        run.log = done.stdout + done.stderr
        return run


def _clean_environment(home: Path) -> dict[str, str]:
    """No variable of whoever runs the tests decides what the jobs see."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}


def _read(events: str) -> Run:
    run = Run()
    for line in events.splitlines():
        event = json.loads(line)
        matrix = event.get("matrix") or {}
        leg = matrix.get("leg") or matrix.get("device")
        job = event.get("jobID", "") + (f" ({leg})" if leg else "")
        if "jobResult" in event:
            run.jobs[event["jobID"]] = event["jobResult"]
        if event.get("stage") == "Main" and "stepResult" in event:
            run.steps[job, event["step"]] = event["stepResult"]
        match event.get("command"):
            case "set-output":
                run.outputs[event["name"]] = event["arg"]
            case "summary":
                run.summaries[job] = event["content"]
    return run
