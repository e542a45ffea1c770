"""What every way of tracking runs has in common: phases, metrics by name, a local journal.

Tracking never stops training, and training never waits for it: whatever goes wrong in the
backend, or on the disk, is logged once, and the run goes on. Metrics are always kept in a local
JSON Lines file too.
"""

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from .background_calls import BackgroundCalls
from .metric_values import as_number
from .phase_metrics import check_metric_names, phase_key
from .run_journal import RunJournal, read_journal

logger = logging.getLogger(__name__)

Tracker = TypeVar("Tracker", bound="RunTracker")


class RunTracker(ABC):
    """One tracked run after another: a run for each phase of a session.

    Args:
        project: What the runs belong to.
        directory: Where files are put, among them the journal
            ``<project>/<session_id>-<phase>.jsonl``.
        strict: Whether logging a metric that the phase does not declare is an error.
        finish_timeout: How long :meth:`finish` waits for the backend, in seconds.

    Attributes:
        project: As given.
        directory: As given.
        journal_path: The journal of the current or last run; None before the first, or where
            there is none.
        last_step: The highest step that was logged in the current or last run, or before it was
            resumed; None where there was none.

    Raises:
        ValueError: The project has no name or is a path.
    """

    backend: ClassVar[str]

    def __init__(
        self,
        project: str,
        directory: str | PathLike[str],
        *,
        strict: bool = False,
        finish_timeout: float = 60.0,
    ) -> None:
        self.project = _file_name("project", project)
        self.directory = Path(directory)
        self.strict = strict
        self.finish_timeout = finish_timeout
        self.journal_path: Path | None = None
        self.last_step: int | None = None
        self._phase: str | None = None
        self._run: Any = None
        self._calls: BackgroundCalls | None = None
        self._journal: RunJournal | None = None

    @abstractmethod
    def _start_run(
        self, name: str, session_id: str, config: Mapping[str, Any], run_id: str, *, resume: bool
    ) -> Any:
        """Start a run of the backend; may raise anything."""

    @abstractmethod
    def _log_to_run(self, run: Any, metrics: Mapping[str, float], step: int | None) -> None:
        """Log metrics; called in the background."""

    @abstractmethod
    def _attach_to_run(
        self, run: Any, source: Path, name: str, kind: str, aliases: Sequence[str]
    ) -> None:
        """Attach a file or folder; called in the background."""

    @abstractmethod
    def _finish_run(self, run: Any, exit_code: int) -> None:
        """End the run; called in the background."""

    @property
    def writes_nothing(self) -> bool:
        """Whether runs leave no trace."""
        return False

    def init_phase_run(
        self,
        phase: str | int,
        config: Mapping[str, Any],
        session_id: str,
        *,
        resume: bool = False,
    ) -> Any:
        """Start the run of a phase; one that is still open is finished first.

        The run is named ``<session_id>-<phase>``, in the group ``session_id``.

        Args:
            phase: ``"phase1"`` to ``"phase8"``, or 1 to 8.
            config: The run's configuration.
            session_id: What the runs of one session have in common.
            resume: Go on with the last run of this session and phase, which the journal knows,
                where there was one.

        Returns:
            The backend's run, or None where it is disabled or failed.

        Raises:
            ValueError: There is no such phase, or ``session_id`` cannot be a file's name.
        """
        phase = phase_key(phase)
        session_id = _file_name("session_id", session_id)
        self.finish()
        self._phase = phase
        self.last_step = None
        if self.writes_nothing:
            return None
        name = f"{session_id}-{phase}"
        self.journal_path = self.directory / self.project / f"{name}.jsonl"
        run_id = self._last_run_id() if resume else None
        resumed = run_id is not None
        run_id = run_id or secrets.token_hex(4)
        self._journal = self._journalled(RunJournal, self.journal_path)
        self._write(
            "start",
            phase=phase,
            session_id=session_id,
            run_id=run_id,
            resumed=resumed,
            config=config,
        )
        try:
            self._run = self._start_run(name, session_id, config, run_id, resume=resumed)
        except Exception as error:  # noqa: BLE001 - whatever it is must not stop training
            self._report("start a run", error)
        else:
            self._calls = BackgroundCalls(lambda error: self._report("log to the run", error))
        return self._run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of the current run.

        Args:
            metrics: Numbers, or tensors of one element, by name.
            step: The training step; the backend counts for itself where there is none.

        Raises:
            RuntimeError: No run was started.
            TypeError: A value is not a number.
            ValueError: In strict mode, the phase declares no such metric.
        """
        phase = self._current_phase()
        if self.strict:
            check_metric_names(phase, metrics)
        values = {
            # Nearly always a float; a call for each would be most of the time.
            name: value if type(value) is float else as_number(name, value)
            for name, value in metrics.items()
        }
        if step is not None:
            self.last_step = step if self.last_step is None else max(step, self.last_step)
        if self._journal is not None:
            self._journalled(self._journal.write_metrics, step, values)
        self._submit(self._log_to_run, values, step)

    def log_artifact(
        self,
        path: str | PathLike[str],
        name: str | None = None,
        kind: str = "model",
        *,
        aliases: Sequence[str] = (),
    ) -> None:
        """Attach a file or a folder, such as a checkpoint, to the current run.

        It is read in the background: :meth:`flush` before changing or removing it.

        Args:
            path: The file or folder.
            name: The artifact's name; the path's own by default.
            kind: The artifact's type.
            aliases: More names for this version of it, such as ``"best"``.

        Raises:
            RuntimeError: No run was started.
            FileNotFoundError: There is nothing at ``path``.
        """
        self._current_phase()
        source = Path(path)
        if not source.exists():
            raise FileNotFoundError(f"no file or folder to log at {source}")
        name = name or source.name
        self._write("artifact", path=str(source), name=name, kind=kind, aliases=list(aliases))
        self._submit(self._attach_to_run, source, name, kind, tuple(aliases))

    def flush(self) -> None:
        """Wait until the backend has taken what was logged so far."""
        if self._calls is not None:
            self._calls.flush()

    def finish(self, exit_code: int = 0) -> None:
        """End the current run; without one, do nothing.

        Args:
            exit_code: Not 0 marks the run as failed.
        """
        self._write("finish", exit_code=exit_code)
        if self._calls is not None:
            self._submit(self._finish_run, exit_code)
            if not self._calls.close(self.finish_timeout):
                logger.warning(
                    "%s did not finish the run in %g s: training goes on, metrics are kept in %s",
                    self.backend,
                    self.finish_timeout,
                    self._kept(),
                )
        if self._journal is not None:
            self._journalled(self._journal.close)
        self._run = None
        self._calls = None
        self._journal = None
        self._phase = None

    def __enter__(self: Tracker) -> Tracker:
        """Return self; leaving the block finishes the run."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the run, as failed where an exception leaves the block."""
        self.finish(exit_code=0 if exc_type is None else 1)

    def _current_phase(self) -> str:
        if self._phase is None:
            raise RuntimeError("no run to log to: call init_phase_run first")
        return self._phase

    def _submit(self, call: Callable[..., object], *args: Any) -> None:
        if self._calls is not None:
            run = self._run
            self._calls.submit(lambda: call(run, *args))

    def _last_run_id(self) -> str | None:
        """Find the last run of the journal, and the last step that it reached."""
        assert self.journal_path is not None
        try:
            events = read_journal(self.journal_path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._report("read the journal of the run to resume", error)
            return None
        steps = [event.get("step") for event in events]
        self.last_step = max((step for step in steps if isinstance(step, int)), default=None)
        starts = [event.get("run_id") for event in events if event["event"] == "start"]
        return starts[-1] if starts and isinstance(starts[-1], str) else None

    def _write(self, event: str, **fields: Any) -> None:
        if self._journal is not None:
            self._journalled(self._journal.write, event, **fields)

    def _journalled(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call into the journal; after its first failure, do without until the next run."""
        try:
            return call(*args, **kwargs)
        except Exception:
            logger.exception(
                "the journal %s cannot be written: it ends here, and training goes on",
                self.journal_path,
            )
            self._journal = None
            return None

    def _report(self, what: str, error: Exception) -> None:
        logger.error(
            "%s could not %s: training goes on, metrics are kept in %s",
            self.backend,
            what,
            self._kept(),
            exc_info=error,
        )

    def _kept(self) -> Path | str:
        kept = None if self._journal is None else self.journal_path
        return "no file" if kept is None else kept


def _file_name(what: str, name: str) -> str:
    if not name or name in {".", ".."} or any(mark in name for mark in "/\\:\0"):
        raise ValueError(f"{what} must be a name without / \\ and :, got {name!r}")
    return name
