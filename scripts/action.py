"""What ``action.yml`` runs: makes the judge's environment and judges the caller's repository.

Its inputs come as INPUT_ variables. Standard library only, for an interpreter of 3.10 or newer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_EVALUATED = 3
_SWITCHES = {"true": True, "false": False}


class InputError(Exception):
    """An input that means nothing."""


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Judge, and return the exit code of ``tiergate run``."""
    # A step that ends early must not look like one that judged.
    _output(environment, conclusion="not evaluated", passed="0", failed="0", waived="0", report="")
    try:
        arguments = run_arguments(environment)
        extra = _constraints(environment)
    except InputError as error:
        print(f"::error title=tiergate::{error}")
        return 2
    place = Path(environment.get("RUNNER_TEMP") or "/tmp") / "tiergate"  # noqa: S108
    kept = {**environment, "TIERGATE_VENVS": str(place), **extra}
    made = subprocess.run(
        [sys.executable, HERE / "environments.py", "judge"], env=kept, check=False
    ).returncode
    if made:
        print("::error title=tiergate::the judge's environment could not be made; see the log")
        return NOT_EVALUATED
    program = place / "judge" / "bin" / "tiergate"
    code = subprocess.run([program, *arguments], env=dict(environment), check=False).returncode
    report = Path(arguments[arguments.index("--report") + 1]) / "report.json"
    if report.is_file():
        _output(environment, report=str(report))
    return code if code >= 0 else NOT_EVALUATED


def run_arguments(environment: Mapping[str, str]) -> list[str]:
    """Return the words of the judge's command line.

    Raises:
        InputError: an input is wrong.
    """

    def given(name: str) -> str:
        return environment.get(f"INPUT_{name}", "").strip()

    def switch(name: str) -> bool:
        if (value := given(name).lower()) not in _SWITCHES:
            shown = name.lower().replace("_", "-")
            raise InputError(f"the input {shown} is {value[:40]!r}: write 'true' or 'false'")
        return _SWITCHES[value]

    root = Path(given("REPOSITORY_PATH") or ".")
    arguments = ["run", "--repo", str(root), "--spec", str(root / (given("SPEC") or "gate.yaml"))]
    arguments += ["--device", given("DEVICE") or "cpu", "--python", given("PYTHON") or "python"]
    arguments += ["--report", str((root / (given("REPORT_DIR") or ".tiergate")).absolute())]
    arguments += ["--only", given("ONLY"), "--format", "github"]
    arguments += ["--cache" if switch("CACHE") else "--no-cache"]
    if base := given("BASE"):
        arguments += ["--base", base]
    if switch("ALLOW_WEAKENING"):
        arguments += ["--allow-weakening"]
    return arguments


def _constraints(environment: Mapping[str, str]) -> dict[str, str]:
    """Return how the judge's packages are pinned otherwise, as a variable for its set-up.

    Raises:
        InputError: there is no such file.
    """
    if not (named := environment.get("INPUT_CONSTRAINTS", "").strip()):
        return {}
    path = Path(named).absolute()
    if not path.is_file():
        raise InputError(f"the input constraints names no file: {named[:200]!r}")
    return {"TIERGATE_CONSTRAINTS": str(path)}


def _output(environment: Mapping[str, str], **values: str) -> None:
    if target := environment.get("GITHUB_OUTPUT"):
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.writelines(f"{name}={value}\n" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
