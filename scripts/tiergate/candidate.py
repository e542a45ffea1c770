"""The candidate's interpreter: starts the probe in it and collects what the probe reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tiergate import processes
from tiergate.environment import candidate_environment
from tiergate.errors import UserError
from tiergate.fields import Device
from tiergate.processes import Cancellation, Completed
from tiergate.repository import Repository
from tiergate.spec import Spec

if TYPE_CHECKING:
    from tiergate.warm import WarmInterpreter

Record = dict[str, Any]

Isolation = Literal["fork", "process"]
"""Whether a job's process is forked from a warm interpreter, or started afresh."""


class ProbeResult(msgspec.Struct):
    """What a job reported, and how it ended."""

    records: list[Record] = []
    problem: str = ""
    """Why the records cannot be believed; empty when the job ended with its closing record."""
    status: int = -1
    output: str = ""
    left_behind: int = 0

    def of(self, event: str) -> list[Record]:
        """Return the records of one event."""
        return [record for record in self.records if record["event"] == event]


class Imported(msgspec.Struct):
    """What jobs import from the environment's own folders; each once, in the order of its end."""

    modules: dict[str, None] = {}
    rewritten: dict[str, None] = {}
    """Files of tests and plug-ins that pytest rewrote."""


class Reads(msgspec.Struct):
    """What the jobs of one cell read, as the probe saw it."""

    files: dict[str, None] = {}
    folders: dict[str, None] = {}
    opened: dict[str, None] = {}
    """Of what git ignores, what was opened by whatever code."""
    asked: dict[str, None] = {}
    """Of which it was only asked whether, and what, they are."""
    reasons: dict[str, None] = {}
    """Why their outcome depends on more than what was seen."""

    def add(self, result: ProbeResult) -> None:
        """Take over what one job read."""
        for record in result.of("inputs"):
            among = {"file": self.files, "folder": self.folders, "asked": self.asked}
            among[record["kind"]].update(dict.fromkeys(record["paths"]))
        told = result.of("inputs-seen")
        if not told or result.problem:
            self.reasons["what a job read was not told"] = None
        for record in told:
            self.reasons.update(dict.fromkeys(record["reasons"]))


class Candidate(msgspec.Struct, frozen=True):
    """An interpreter, the repository that it runs, and the environment that it gets."""

    python: Path
    repository: Repository
    spec: Spec
    threads: int
    cancellation: Cancellation
    warm: WarmInterpreter | None = None
    """Forks the processes of jobs on the CPU; without it each job gets a fresh interpreter."""

    imported: Imported | None = None
    """Where it is given: collects what jobs import."""

    reads: Reads | None = None
    """Where it is given: collects what jobs read."""

    alone: bool = True
    """Whether nothing may work beside a job's own process."""

    def with_spec(self, spec: Spec) -> Candidate:
        """Return the same candidate under another spec."""
        return msgspec.structs.replace(self, spec=spec)

    def environment(self, device: Device) -> dict[str, str]:
        """Return the environment variables of a process on ``device``."""
        return candidate_environment(
            os.environ,
            device=device,
            threads=self.threads,
            set_=self.spec.env,
            passed=self.spec.pass_env,
        )

    def run_job(
        self,
        kind: str,
        device: Device,
        timeout: float,
        values: Mapping[str, Any],
        on_record: Callable[[Record], None] = lambda _: None,
        test_files: Sequence[str] = (),
    ) -> ProbeResult:
        """Run one of the probe's jobs in a process of its own.

        Args:
            kind: the module of ``tiergate.probe`` that does it.
            device: told to candidate code as ``TIERGATE_DEVICE``.
            timeout: seconds.
            values: the job's own parameters.
            on_record: called with each record as it arrives.
            test_files: what pytest will rewrite, in this order: files of the repository.
        """
        from tiergate.warm import LostError  # noqa: PLC0415 - only where something is evaluated

        nonce = os.urandom(16).hex()
        job = {
            "nonce": nonce,
            "kind": kind,
            "device": device,
            "repository": str(self.repository.root),
            "pythonpath": [str(self.repository.root / part) for part in self.spec.pythonpath],
            "tell-modules": self.imported is not None,
            "tell-inputs": self.reads is not None,
            **values,
        }
        receiver = _Receiver(nonce, on_record)
        try:
            data = msgspec.json.encode(job)
            with self._watched():
                done = self._process(device, timeout, data, receiver.line, test_files)
        except LostError as error:
            return ProbeResult(records=receiver.records, problem=str(error))
        result = ProbeResult(
            records=receiver.records,
            output=done.stdout.decode(errors="replace"),
            left_behind=done.left_behind,
        )
        if done.cancelled:
            result.problem = f"cancelled: {self.cancellation.reason}"
        elif done.timed_out:
            result.problem = f"timed out after {timeout:g} s; its process group was ended"
        elif receiver.problem:
            result.problem = receiver.problem
        elif receiver.closed is None:
            result.problem = f"ended without its closing record ({done.ending})"
        elif done.returncode != 0:
            result.problem = f"{done.ending} after its closing record"
        else:
            result.status = receiver.closed
        if self.reads is not None:
            self.reads.add(result)
        if self.imported is not None:
            for record in result.of("modules"):
                self.imported.modules.update(dict.fromkeys(record["names"]))
                self.imported.rewritten.update(dict.fromkeys(record["rewritten"]))
        return result

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Take over what is opened meanwhile, where it is asked what jobs read."""
        if self.reads is None:
            yield
            return
        from tiergate.opened import Opened  # noqa: PLC0415 - as above

        with Opened(str(self.repository.root), frozenset(self.repository.files)) as opened:
            yield
        self.reads.opened.update(opened.files)
        self.reads.reasons.update(opened.reasons)

    def _process(
        self,
        device: Device,
        timeout: float,
        job: bytes,
        on_record: Callable[[bytes], None],
        test_files: Sequence[str],
    ) -> Completed:
        from tiergate.warm import PROBE  # noqa: PLC0415 - as above

        environment = self.environment(device)
        root = self.repository.root
        warm = self.warm
        # A CUDA job may initialise the device, which no fork survives: it starts afresh.
        if (
            warm is not None
            and device == "cpu"
            and warm.environment == environment
            and warm.accepts(self.repository, self.spec.pythonpath, self.cancellation)
        ):
            return warm.run(
                cwd=self.repository.root,
                timeout=timeout,
                cancellation=self.cancellation,
                stdin=job,
                on_record=on_record,
                test_files=[] if self.alone else [str(root / name) for name in test_files],
            )
        return processes.run(
            [self.python, "-I", "-B", PROBE, "{records}"],
            cwd=self.repository.root,
            env=environment,
            timeout=timeout,
            cancellation=self.cancellation,
            stdin=job,
            merge_stderr=True,
            on_record=on_record,
        )


class _Receiver:
    """Accepts the records of one job: JSON with its nonce, without a gap or a sequel."""

    def __init__(self, nonce: str, on_record: Callable[[Record], None]) -> None:
        self.records: list[Record] = []
        self.closed: int | None = None
        self.problem = ""
        self._nonce = nonce
        self._on_record = on_record

    def line(self, data: bytes) -> None:
        if self.problem:
            return
        try:
            record = msgspec.json.decode(data)
            # What was checked is not kept.
            genuine = record.pop("nonce") == self._nonce
            genuine = genuine and record.pop("number") == len(self.records)
            event = record["event"]
        except (msgspec.DecodeError, AttributeError, TypeError, KeyError):
            genuine, event, record = False, "", {}
        if not genuine or self.closed is not None:
            self.problem = "its record pipe carried something that the probe did not write"
            return
        self.records.append(record)
        if event == "closed":
            self.closed = int(record["status"])
        else:
            self._on_record(record)


def find_python(name: str | None, repository: Path) -> Path:
    """Return the candidate's interpreter: the given one, or the active or a local environment's.

    Raises:
        UserError: none was found.
    """
    if name is not None:
        found = _program(name)
        if found is None:
            raise UserError(f"--python {name}: no such interpreter")
        return Path(found).absolute()
    active = os.environ.get("VIRTUAL_ENV")
    folders = [Path(active)] if active else []
    folders += [repository / ".venv", repository / "venv"]
    for folder in folders:
        python = folder / "bin" / "python"
        if python.exists():
            return python.absolute()
    raise UserError(
        "which interpreter has the candidate's dependencies? None is active and there is no .venv; "
        "name it with --python PATH"
    )


def _program(name: str) -> str | None:
    """Return the path of a program that is named by its path, or found on PATH."""
    if os.sep in name:
        return name if Path(name).is_file() and os.access(name, os.X_OK) else None
    import shutil  # noqa: PLC0415 - slow, and scripts name an interpreter by its path

    return shutil.which(name)


@contextmanager
def warmed(candidate: Candidate, device: Device, isolation: Isolation) -> Iterator[Candidate]:
    """Yield the candidate with a warm interpreter, where jobs are to be forked.

    On CUDA none is forked: the device would be initialised in the child of another process.

    Raises:
        UserError: this platform cannot fork.
    """
    if isolation == "process" or device != "cpu":
        yield candidate
        return
    from tiergate.warm import PRELOADED, WarmInterpreter, supported  # noqa: PLC0415 - as above

    if not supported():
        raise UserError("--isolation fork: only on Linux; use --isolation process")
    modules = _mentioned(PRELOADED, candidate.repository)
    with WarmInterpreter(candidate.python, candidate.environment(device), modules) as warm:
        yield msgspec.structs.replace(candidate, warm=warm)


def _mentioned(modules: Sequence[str], repository: Repository) -> list[str]:
    """Return the modules that Python files of the repository speak of, and pytest."""
    wanted = {module for module in modules if module != "pytest"}
    for name in repository.files:
        if not wanted:
            break
        if name.endswith(".py"):
            # A link to nothing, or a file without permission, speaks of none.
            with suppress(OSError):
                text = (repository.root / name).read_bytes()
                wanted -= {module for module in wanted if module.encode() in text}
    return [module for module in modules if module not in wanted]
