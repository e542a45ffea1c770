"""Can this machine judge? Interpreter, torch, GPU, semgrep, git, disk: each one tried."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tiergate import checkers, processes, spec
from tiergate.candidate import Candidate, find_python
from tiergate.diagnosis import Line, State
from tiergate.errors import NotEvaluatedError, UserError
from tiergate.fields import Device
from tiergate.processes import Cancellation
from tiergate.repository import Repository, git

_TIMEOUT = 180.0
_FREE = 2_000_000_000
_PYTEST = (7, 0)
_CANARY = b"""\
gate: doctor
next: nothing
criteria:
  - id: semgrep
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [.]}
    expect: {findings: 1}
"""


def examine(root: Path, spec_path: Path, python: str | None, device: Device) -> list[Line]:
    """Look at everything that judging a leg on this machine needs.

    Args:
        root: the repository that is to be judged.
        spec_path: its spec; that it is missing or wrong is one of the findings.
        python: the candidate's interpreter, or None to find it.
        device: the leg; on ``cuda`` a device that does not compute is a problem.
    """
    cancellation = Cancellation()
    parts: list[Callable[[], Iterator[Line]]] = [
        _judge,
        lambda: _spec(spec_path),
        lambda: _candidate(root, spec_path, python, device, cancellation),
    ]
    if device == "cuda" or shutil.which("nvidia-smi"):
        parts.append(lambda: _driver(device, cancellation))
    parts += [lambda: _semgrep(cancellation), lambda: _git(root), lambda: _disk(root)]
    return [line for part in parts for line in part()]


def _judge() -> Iterator[Line]:
    about = f"tiergate with Python {platform.python_version()} on {platform.platform()}"
    if os.name == "posix":
        yield Line("ok", "judge", about)
    else:
        yield Line("problem", "judge", about, "run it on Linux or macOS: candidates need POSIX")


def _spec(path: Path) -> Iterator[Line]:
    try:
        gate = spec.load(path)
    except UserError as error:
        yield Line("problem", "spec", str(error), "mend it; `tiergate validate` checks it")
    else:
        yield Line("ok", "spec", f"{path}: {len(gate.criteria)} criteria")


def _candidate(
    root: Path, spec_path: Path, python: str | None, device: Device, cancellation: Cancellation
) -> Iterator[Line]:
    try:
        gate = spec.load(spec_path)
    except UserError:
        gate = spec.Spec(spec_path, "", (device,), ())
    try:
        interpreter = find_python(python, root)
        judged = Candidate(interpreter, Repository(root), gate, 1, cancellation)
        found = judged.run_job("environment", device, _TIMEOUT, {})
    except UserError as error:
        yield Line("problem", "interpreter", str(error))
        return
    if found.problem:
        said = f"{interpreter}: {found.problem}\n{found.output[-500:]}".strip()
        yield Line("problem", "interpreter", said, "make the environment again")
        return
    known = found.of("environment")[0]["values"]
    yield Line("ok", "interpreter", f"{interpreter}: Python {known['python']}")
    yield _pytest(known["pytest"], interpreter)
    if not known["torch"]:
        mend = f"{interpreter} -m pip install torch"
        yield Line("problem" if device == "cuda" else "note", "torch", "not installed", mend)
        return
    imported = judged.run_job("imports", device, _TIMEOUT, {"module": "torch", "names": ["Tensor"]})
    if imported.problem or not imported.of("imported"):
        failed = imported.of("import-failed")
        said = str(failed[0]["error"]) if failed else imported.problem
        yield Line("problem", "torch", f"{known['torch']} does not import: {said}", "reinstall it")
    else:
        yield Line("ok", "torch", f"{known['torch']}, imports")
    if device == "cuda":
        yield _cuda(judged)


def _pytest(version: str, interpreter: Path) -> Line:
    install = f"{interpreter} -m pip install 'pytest>={_PYTEST[0]}'"
    if not version:
        return Line("note", "pytest", "not installed: criteria that run tests cannot pass", install)
    major = version.split(".", maxsplit=1)[0]
    if major.isdecimal() and int(major) < _PYTEST[0]:
        return Line("problem", "pytest", f"{version} is too old", install)
    return Line("ok", "pytest", version)


def _cuda(judged: Candidate) -> Line:
    proof = judged.run_job("cuda", "cuda", _TIMEOUT, {})
    if proof.problem or not proof.of("device"):
        refusals = proof.of("no-device")
        said = str(refusals[0]["reason"]) if refusals else proof.problem
        return Line("problem", "CUDA device", said, _advice(said))
    values = proof.of("device")[0]["values"]
    return Line(
        "ok",
        "CUDA device",
        f"{values['count']} × {values['name']}, capability {values['capability']}, CUDA "
        f"{values['cuda']}; a product of matrices is exact",
    )


def _advice(said: str) -> str:
    if "build without CUDA" in said:
        return "install a build of torch with CUDA into the candidate's environment"
    if "no CUDA device is visible" in said:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None:
            return f"CUDA_VISIBLE_DEVICES is {hidden!r} here: name a device, or unset it"
        return "give the runner a GPU: in a container, --gpus all and the NVIDIA toolkit"
    return "update the driver to one that this build's CUDA supports, or restart the machine"


def _driver(device: Device, cancellation: Cancellation) -> Iterator[Line]:
    state: State = "problem" if device == "cuda" else "note"
    program = shutil.which("nvidia-smi")
    if program is None:
        text = "nvidia-smi is not there: no NVIDIA driver, or a container without it"
        yield Line(
            "problem", "driver", text, "install the NVIDIA driver, and its container toolkit"
        )
        return
    query = "--query-gpu=name,driver_version,memory.total"
    try:
        done = processes.run(
            [program, query, "--format=csv,noheader"],
            cwd=Path.cwd(),
            env=dict(os.environ),
            timeout=60,
            cancellation=cancellation,
            merge_stderr=True,
        )
    except NotEvaluatedError as error:
        yield Line(state, "driver", str(error))
        return
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode == 0 and said:
        yield Line("ok", "driver", said)
    else:
        text = f"nvidia-smi: {done.ending}: {said}"
        yield Line(state, "driver", text, "restart it")


def _semgrep(cancellation: Cancellation) -> Iterator[Line]:
    """Let the engine find a load that it must find."""
    version = importlib.metadata.version("semgrep")
    with tempfile.TemporaryDirectory(prefix="tiergate-doctor-") as folder:
        root = Path(folder)
        (root / "canary.py").write_text('import torch\n\ntorch.load("x.pt", weights_only=False)\n')
        gate = spec.parse(_CANARY, root / "gate.yaml")
        (criterion,) = gate.criteria
        judged = Candidate(Path(sys.executable), Repository(root), gate, 1, cancellation)
        context = checkers.Context(criterion, judged, "cpu", lambda _: None)
        observed = checkers.get("semgrep").observe(criterion.parameters, context)
    if observed.error or observed.counts.get("findings") != 1:
        said = observed.error or f"it found {observed.counts.get('findings')} instead of 1"
        mend = "install tiergate again: pip install --force-reinstall tiergate"
        yield Line("problem", "semgrep", f"{version}: {said}", mend)
    else:
        yield Line("ok", "semgrep", f"{version}, finds an unsafe torch.load")


def _git(root: Path) -> Iterator[Line]:
    try:
        version = git(root, "--version").decode().strip()
        inside = Repository(root).is_git
    except UserError as error:
        yield Line("problem", "git", str(error), "install git, and let it read the repository")
        return
    if inside:
        yield Line("ok", "git", version)
    else:
        text = f"{version}; {root} is no git repository: reports are of no commit"
        yield Line("note", "git", text, "git init")


def _disk(root: Path) -> Iterator[Line]:
    for folder in dict.fromkeys([root.resolve(), Path(tempfile.gettempdir())]):
        free = shutil.disk_usage(folder).free
        text = f"{free / 1e9:.1f} GB free at {folder}"
        if free < _FREE:
            yield Line("problem", "disk", text, f"make room: {_FREE / 1e9:.0f} GB at least")
        else:
            yield Line("ok", "disk", text)
