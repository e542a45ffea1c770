"""Measures what an ordinary pipeline does with every attack, and writes ordinary.json.

    python tests/attacks/measure_ordinary.py --pre-commit PATH

The pipeline is pytest, then semgrep with the same rule, then an import, twice: as a shell script
that stops at the first failure, and as local hooks under pre-commit. Semgrep runs in the engine
that the gate uses. Run it in the judge's environment; pre-commit may be installed anywhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "scripts")]

import attack_suite  # noqa: E402 - this file is a program, found beside the suite
from attack_gate import lean_environment  # noqa: E402
from attack_sample import Changes, make  # noqa: E402

from tiergate.scanning.rules import RULES  # noqa: E402

RESULTS = Path(__file__).with_name("ordinary.json")
LIMIT = 30.0
"""Seconds after which a pipeline counts as hanging."""

RULE = shlex.quote(str(RULES / "unsafe-torch-load.yaml"))
SEMGREP = f"semgrep scan --error --metrics=off --config {RULE}"
IMPORT = "python -c 'from shop import discount, total'"
SCRIPT = f"set -e\npython -m pytest -q\n{SEMGREP} src\n{IMPORT}\n"
HOOKS = json.dumps(
    {
        "repos": [
            {
                "repo": "local",
                "hooks": [
                    {
                        "id": name,
                        "name": name,
                        "entry": entry,
                        "language": "system",
                        "pass_filenames": files,
                        "always_run": not files,
                        **({"types": ["python"], "files": "^src/"} if files else {}),
                    }
                    for name, entry, files in (
                        ("pytest", "python -m pytest -q", False),
                        ("semgrep", SEMGREP, True),
                        ("import", IMPORT, False),
                    )
                ],
            }
        ]
    }
)


def main() -> None:
    """Run both pipelines on the sample, which must be green, and on every attack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pre-commit", required=True, metavar="PATH", help="the program")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these attacks")
    options = parser.parse_args()
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["attacks"] if options.only else {}
    with tempfile.TemporaryDirectory(prefix="ordinary-") as folder:
        work = Path(folder)
        environment = _environment(work)
        commands = {
            "shell": ["bash", "-c", SCRIPT],
            "pre-commit": [str(Path(options.pre_commit).absolute()), "run", "--all-files"],
        }
        untouched = _measure(work / "sample", {}, commands, environment)
        if set(untouched.values()) != {"green"}:
            raise SystemExit(f"the untouched sample is not green: {untouched}")
        attacks = {}
        for number, attack in enumerate(attack_suite.ATTACKS):
            if options.only and attack.name not in options.only:
                attacks[attack.name] = known[attack.name]
                continue
            variables = {**environment, **attack.environment}
            attacks[attack.name] = _measure(work / str(number), attack.changes, commands, variables)
            print(attack.name, *attacks[attack.name].values(), flush=True)
    versions = {name: metadata.version(name) for name in ("pytest", "semgrep")}
    versions["pre-commit"] = _version(options.pre_commit)
    RESULTS.write_text(json.dumps({"versions": versions, "attacks": attacks}, indent=1) + "\n")


def _environment(work: Path) -> dict[str, str]:
    """Return the variables of a shell in which python and semgrep are found."""
    python = lean_environment(work / "environment")
    shim = python.with_name("semgrep")
    spec = importlib.util.find_spec("semgrep")
    if spec is None or spec.origin is None:
        raise SystemExit("semgrep is not installed here: run this in the judge's environment")
    core = Path(spec.origin).parent / "bin" / "semgrep-core"
    shim.write_text(
        "#!/bin/bash\nscan=$1; shift\n"
        f'exec -a osemgrep {shlex.quote(str(core))} "$scan" --experimental -j 1 "$@"\n'
    )
    shim.chmod(0o755)
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(work),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": "src",
        "PRE_COMMIT_HOME": str(work / "pre-commit"),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def _measure(
    folder: Path,
    changes: Changes,
    commands: Mapping[str, list[str]],
    environment: Mapping[str, str],
) -> dict[str, str]:
    results = {}
    for name, command in commands.items():
        root = folder / name
        make(root, changes)
        (root / ".pre-commit-config.yaml").write_text(HOOKS)
        for arguments in (["init", "-q"], ["add", "-A"]):
            subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)
        results[name] = _outcome(command, root, environment)
    return results


def _outcome(command: list[str], root: Path, environment: Mapping[str, str]) -> str:
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "hangs"
    return "red" if status else "green"


def _version(program: str) -> str:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[-1]


if __name__ == "__main__":
    main()
