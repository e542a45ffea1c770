"""Makes the virtual environments that the commands beside this file run in; stdlib only.

``judge`` holds the gate alone, ``candidate`` what the judged library needs: neither sees the
other. ``comparisons`` holds the tools that a benchmark compares the gate with. An environment is
made once and again when its inputs change; an interrupted set-up is taken up where it stopped.
TIERGATE_VENVS names another place for them than ``.venvs``, and TIERGATE_CONSTRAINTS other pins of
the judge's packages. With ``--root``, what goes into them is read from another checkout, none of
whose code is run for it but what its requirements run when they are installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENVS = Path(os.environ.get("TIERGATE_VENVS") or ROOT / ".venvs").absolute()
NOT_EVALUATED = 3
_GIGABYTE = 1_000_000_000
# How the steps of a workflow speak to GitHub: nothing for what runs while packages are installed.
_WORKFLOW = ("ACTIONS_", "GITHUB_", "RUNNER_")


class SetUpError(Exception):
    """Why an environment could not be made, and what to do."""


@dataclass(frozen=True)
class Environment:
    """What goes into a virtual environment."""

    name: str
    folder: str
    project: str
    """The folder, below the root, whose pyproject.toml says what is needed."""
    extras: tuple[str, ...]
    editable: bool
    """Whether the project itself is installed; the candidate is judged from its files instead."""
    gigabytes: float
    root: Path = ROOT

    @property
    def path(self) -> Path:
        return VENVS / self.folder

    @property
    def stamp(self) -> Path:
        # Inside, so that it goes when the folder goes: two names may share one.
        return self.path / f"{self.name}.stamp"

    @property
    def constraints(self) -> Path:
        if self.editable and (named := os.environ.get("TIERGATE_CONSTRAINTS")):
            return Path(named)
        return self.root / self.project / "constraints.txt"

    @property
    def pyproject(self) -> Path:
        return self.root / self.project / "pyproject.toml"


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("judge", "judge", "scripts", (), True, 0.6),
        Environment("judge-dev", "judge", "scripts", ("dev",), True, 0.8),
        Environment("candidate", "candidate", ".", ("test",), False, 1.6),
        Environment("candidate-bench", "candidate", ".", ("test", "bench"), False, 1.7),
        Environment("comparisons", "comparisons", "benchmarks", (), False, 0.1),
    )
}


def main(arguments: list[str]) -> int:
    """Make the named environments; print what is done only where something is to do."""
    parser = argparse.ArgumentParser(prog="environments.py")
    parser.add_argument("names", nargs="+", choices=ENVIRONMENTS, metavar="NAME")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to read, if not this")
    options = parser.parse_args(arguments)
    try:
        for name in options.names:
            environment = replace(ENVIRONMENTS[name], root=options.root.resolve())
            wanted = _fingerprint(environment)
            if _stamped(environment) != wanted:
                with _locked():
                    if _stamped(environment) != wanted:
                        _make(environment, wanted)
    except SetUpError as error:
        _say(f"set-up failed: {error}")
        return NOT_EVALUATED
    except KeyboardInterrupt:
        _say("set-up interrupted; run the same command again to go on where it stopped")
        return NOT_EVALUATED
    except OSError as error:
        _say(f"set-up failed: {error}. {_space_advice()}")
        return NOT_EVALUATED
    return 0


def _fingerprint(environment: Environment) -> str:
    """Return a digest of all that decides what is in the environment."""
    digest = hashlib.sha256()
    for file in (environment.pyproject, environment.constraints, Path(__file__)):
        if not file.is_file():
            raise SetUpError(f"{file} is missing: it says what the {environment.name} needs")
        digest.update(file.read_bytes())
    places = f"{environment.path} {environment.pyproject}"
    digest.update(f"{sys.version} {sys.base_prefix} {places}".encode())
    return digest.hexdigest()


def _stamped(environment: Environment) -> str:
    try:
        stamp = json.loads(environment.stamp.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return ""
    ready = (environment.path / "bin" / "python").exists()
    return str(stamp) if ready else ""


def _make(environment: Environment, fingerprint: str) -> None:
    started = time.monotonic()
    _say(f"setting up {environment.path} (needed once; a few minutes with a slow network)")
    free = shutil.disk_usage(VENVS).free
    if free < environment.gigabytes * _GIGABYTE:
        raise SetUpError(f"the disk is full. {_space_advice(environment.gigabytes)}")
    requirements = _requirements(environment)
    environment.stamp.unlink(missing_ok=True)
    python = environment.path / "bin" / "python"
    if not _works(python):
        _run(
            [sys.executable, "-m", "venv", "--clear", str(environment.path)],
            "the virtual environment could not be made; on Debian: apt install python3-venv",
        )
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["--progress-bar", "off", "-c", str(environment.constraints)]
    _run([*pip, *requirements], "pip could not install the packages")
    environment.stamp.write_text(json.dumps(fingerprint), encoding="ascii")
    _say(f"{environment.folder} is ready after {time.monotonic() - started:.0f} s")


def _requirements(environment: Environment) -> list[str]:
    if environment.editable:
        extras = f"[{','.join(environment.extras)}]" if environment.extras else ""
        return ["-e", f"{environment.pyproject.parent}{extras}"]
    try:
        project = _toml(environment.pyproject.read_text(encoding="utf-8"))["project"]
        optional = project["optional-dependencies"]
        extra = [needed for extra in environment.extras for needed in optional[extra]]
        return [*project["dependencies"], *extra]
    except KeyError as error:
        raise SetUpError(f"{environment.pyproject}: no {error} in its [project]") from None
    except ValueError as error:
        raise SetUpError(f"{environment.pyproject}: not TOML: {error}") from None


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:  # pip has brought the parser along with which it reads the same files
        try:
            from pip._vendor import tomli as tomllib  # noqa: PLC0415
        except ImportError:
            raise SetUpError(
                f"{sys.executable} has no pip; on Debian: apt install python3-pip"
            ) from None
    return tomllib.loads(text)


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    asked = subprocess.run(
        [python, "-c", "import sys, pip; print(sys.version)"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.returncode == 0 and asked.stdout.strip() == sys.version


def _run(command: list[str], failed: str) -> None:
    """Run a step and show the lines that tell how far it is; explain its failure."""
    last: deque[str] = deque(maxlen=30)
    # Build requirements are pinned by the same constraints as all else.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_WORKFLOW)}
    if "-c" in command and "pip" in command:
        environment["PIP_CONSTRAINT"] = command[command.index("-c") + 1]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last.append(line.rstrip())
                words = line.split()
                if words and words[0] in {"Collecting", "WARNING:", "Installing", "Building"}:
                    _say("  " + " ".join(words)[:100])
        except KeyboardInterrupt:
            process.terminate()  # a terminal tells it as well, a signal to this process does not
            process.wait()
            raise
    if process.returncode == 0:
        return
    output = "\n".join(last)
    print(output, file=sys.stderr)
    if "No space left on device" in output:
        raise SetUpError(f"the disk is full. {_space_advice()}")
    unreachable = ("NewConnectionError", "name resolution", "timed out", "ProxyError", "Retrying")
    if any(sign in output for sign in unreachable):
        raise SetUpError(
            "the package index cannot be reached. Check the network, or name a mirror or a proxy "
            "(PIP_INDEX_URL, PIP_PROXY) or a folder of wheels (PIP_FIND_LINKS); then run again"
        )
    raise SetUpError(f"{failed}; the lines above say why. Run again to go on")


def _space_advice(gigabytes: float = 2.5) -> str:
    return (
        f"{VENVS} needs about {gigabytes:.1f} GB free: make room, or put the environments "
        "elsewhere with TIERGATE_VENVS=/other/disk; then run again"
    )


@contextmanager
def _locked() -> Iterator[None]:
    """Let one set-up work at a time; a second one waits and finds the work done."""
    VENVS.mkdir(parents=True, exist_ok=True)
    with (VENVS / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another set-up is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f"tiergate: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
