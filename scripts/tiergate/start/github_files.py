"""The files that make GitHub ask the gate before a merge."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tiergate.repository import Repository, git
from tiergate.start.judge_source import Package, Uses
from tiergate.yaml_text import flow, quoted

WORKFLOW = ".github/workflows/gate.yml"
OWNERS_PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
"""Where GitHub looks for code owners; the first one counts."""

_HEAD = """\
# The gate, as one check. Until `@CHECK@` is a required check of the default branch, it only tells.
# The spec comes from the base branch, so that a change cannot rewrite its own criteria.
name: gate

on:
  pull_request:
  merge_group:
  push:
    branches: [@BRANCH@]

permissions: {}

"""
_JOB = """\
concurrency:
  group: gate-${{ github.event_name == 'pull_request' && github.ref || github.run_id }}
  cancel-in-progress: ${{ github.event_name == 'pull_request' }}

jobs:
  gate:
    name: gate
    runs-on: ubuntu-24.04
    timeout-minutes: 60
    permissions:
      contents: read # to check out the repository
@ENVIRONMENT@    steps:
      - name: Check out
        uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with:
          fetch-depth: 0 # the base is compared with
          persist-credentials: false

      - name: Set up Python
        uses: actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0
        with:
          python-version: "3.11"

@SETUP@      # What is installed may run code: its output is not read as workflow commands.
      - name: Set up the candidate
        run: |
          token=$(cat /proc/sys/kernel/random/uuid)
          trap 'echo "::$token::"' EXIT
          echo "::stop-commands::$token"
          python -m venv "$RUNNER_TEMP/candidate"
          "$RUNNER_TEMP/candidate/bin/python" -m pip install @REQUIREMENTS@

@JUDGE@
      - name: Keep the report
        if: always()
        uses: actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f # v7.0.0
        with:
          name: report-cpu
          path: ${{ runner.temp }}/report
"""
_ENVIRONMENT = """\
    env:
      # Where the judge comes from: a release, the URL of a wheel, or git+https://… with a commit.
      TIERGATE: @SOURCE@
      BASE: ${{ github.event.pull_request.base.sha || github.event.merge_group.base_sha }}
"""
_SETUP = """\
      # An environment of its own: what the candidate installs cannot replace a part of the judge.
      - name: Set up the judge
        run: |
          : "${TIERGATE:?say in .github/workflows/gate.yml what pip installs the judge from}"
          python -m venv "$RUNNER_TEMP/judge"
          "$RUNNER_TEMP/judge/bin/python" -m pip install "$TIERGATE"

"""
_JUDGE = """\
      - name: Judge
        run: >-
          "$RUNNER_TEMP/judge/bin/tiergate" run --python "$RUNNER_TEMP/candidate/bin/python"
          ${BASE:+--base "$BASE"} --report "$RUNNER_TEMP/report" --format github
"""
_ACTION = """\
      - name: Judge
        uses: @USES@
        with:
          python: ${{ runner.temp }}/candidate/bin/python
          report-dir: ${{ runner.temp }}/report
"""
_CALL = """\
jobs:
  gate:
    permissions:
      contents: read # to check out the repository
    uses: @USES@
    with:
      judge-repository: @REPOSITORY@
      judge-ref: @REF@
"""


def workflow(repository: Repository, projects: Sequence[str], source: Package | Uses) -> str:
    """Return a workflow that judges pull requests, merge groups and the default branch.

    Args:
        repository: where it is written.
        projects: folders that may have a package to install.
        source: where the judge comes from.
    """
    parts = {"CHECK": "gate", "BRANCH": flow(_default_branch(repository))}
    parts["REQUIREMENTS"] = shlex.join(_requirements(repository, projects))
    text = _HEAD + _JOB
    if isinstance(source, Package):
        environment = _ENVIRONMENT.replace("@SOURCE@", quoted(source.requirement))
        parts |= {"ENVIRONMENT": environment, "SETUP": _SETUP, "JUDGE": _JUDGE}
    elif source.path:
        text = _HEAD + _CALL
        parts |= {"CHECK": "gate / gate", "REPOSITORY": source.repository, "REF": source.ref}
    else:
        parts |= {"ENVIRONMENT": "", "SETUP": "", "JUDGE": _ACTION}
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text if isinstance(source, Package) else text.replace("@USES@", source.name)


def _default_branch(repository: Repository) -> str:
    """Return the branch that the remote's HEAD names, or else the usual one that is there."""
    if not repository.is_git:
        return "main"
    listed = "refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master"
    found = git(repository.root, "for-each-ref", "--format=%(refname)%00%(symref)", *listed)
    names = [line.split("\0") for line in found.decode(errors="replace").splitlines()]
    heads = [target.removeprefix("refs/remotes/origin/") for _, target in names if target]
    return next(iter([*heads, *(name.rpartition("/")[2] for name, _ in names)]), "main")


def _requirements(repository: Repository, projects: Sequence[str]) -> list[str]:
    """Return what pip installs for the candidate, beside pytest."""
    files = [
        name
        for name in repository.files
        if "/" not in name and name.startswith("requirements") and name.endswith(".txt")
    ]
    words = ["pytest"]
    for name in files:
        words += ["-r", name]
    for folder in sorted(projects):
        if _installs(repository, folder):
            words += ["-e", folder if folder == "." else f"./{folder}"]
    return words


def _installs(repository: Repository, folder: str) -> bool:
    """Tell whether pip can install a folder: a pyproject.toml may be there for tools alone."""
    import tomli  # noqa: PLC0415 - only where a workflow is written

    prefix = "" if folder == "." else f"{folder}/"
    if f"{prefix}setup.py" in repository.files:
        return True
    if f"{prefix}pyproject.toml" not in repository.files:
        return False
    try:
        text = (repository.root / folder / "pyproject.toml").read_text(encoding="utf-8")
        return not {"project", "build-system"}.isdisjoint(tomli.loads(text))
    except (OSError, ValueError):
        return True  # pip will say what is wrong with it


def owner_lines(owner: str, spec: str) -> str:
    """Return the lines of CODEOWNERS that have people review what judges."""
    return (
        "# What judges is reviewed by people who answer for it.\n"
        f"/.github/    {owner}\n/{spec:<11} {owner}\n"
    )
