"""Track the runs of the eight phases with Weights & Biases, and in a local file.

Tracking never stops training: whatever goes wrong in W&B, or on the disk, is logged once, and
the run goes on. Metrics are always kept in a local JSON Lines file too.
"""

import logging
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from .metric_continuity import MetricContinuityTracker
from .metric_values import as_number
from .phase_metrics import METRICS_COUNT, check_metric_names, phase_key
from .run_journal import RunJournal

__all__ = ["METRICS_COUNT", "MetricContinuityTracker", "WandBIntegration"]

logger = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]


class WandBIntegration:
    """One tracked run after another: a run for each phase of a session.

    wandb is imported when the first run starts, and never in mode ``"disabled"``, which writes
    nothing at all.

    Args:
        project_name: The W&B project.
        mode: ``"online"``, ``"offline"`` (files for ``wandb sync``) or ``"disabled"``.
        entity: The W&B user or team.
        project: The same as ``project_name``, and wins over it.
        directory: Where the offline files and the journal
            ``<project>/<session_id>-<phase>.jsonl`` are put.
        strict: Whether logging a metric that the phase does not declare is an error.

    Attributes:
        mode: As given.
        project: The W&B project.
        entity: As given.
        journal_path: The journal of the current or last run; None before the first, or where
            there is none.

    Raises:
        ValueError: ``mode`` is none of the three, or the project has no name or is a path.
    """

    def __init__(
        self,
        project_name: str = "agent-forge-v2",
        mode: Mode = "offline",
        entity: str | None = None,
        project: str | None = None,
        *,
        directory: str | PathLike[str] = "runs",
        strict: bool = False,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        self.mode: Mode = mode
        self.project = _file_name("project", project_name if project is None else project)
        self.entity = entity
        self.directory = Path(directory)
        self.strict = strict
        self.journal_path: Path | None = None
        self._phase: str | None = None
        self._run: Any = None
        self._journal: RunJournal | None = None

    def init_phase_run(self, phase: str | int, config: Mapping[str, Any], session_id: str) -> Any:
        """Start the run of a phase; one that is still open is finished first.

        The W&B run is named ``<session_id>-<phase>``, in the group ``session_id``.

        Args:
            phase: ``"phase1"`` to ``"phase8"``, or 1 to 8.
            config: The run's configuration.
            session_id: What the runs of one session have in common.

        Returns:
            The ``wandb.Run``, or None where W&B is disabled or failed.

        Raises:
            ValueError: There is no such phase, or ``session_id`` cannot be a file's name.
        """
        phase = phase_key(phase)
        session_id = _file_name("session_id", session_id)
        self.finish()
        self._phase = phase
        if self.mode == "disabled":
            return None
        name = f"{session_id}-{phase}"
        self.journal_path = self.directory / self.project / f"{name}.jsonl"
        self._journal = self._journalled(RunJournal, self.journal_path)
        self._write("start", phase=phase, session_id=session_id, config=config)
        self._run = self._attempt("start a W&B run", self._start_wandb, name, session_id, config)
        return self._run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of the current run.

        Args:
            metrics: Numbers, or tensors of one element, by name.
            step: The training step; W&B counts for itself where there is none.

        Raises:
            RuntimeError: No run was started.
            TypeError: A value is not a number.
            ValueError: In strict mode, the phase declares no such metric.
        """
        phase = self._current_phase()
        if self.strict:
            check_metric_names(phase, metrics)
        values = {name: as_number(name, value) for name, value in metrics.items()}
        self._write("metrics", step=step, metrics=values)
        if self._run is not None:
            self._attempt("log metrics to W&B", self._run.log, values, step=step)

    def log_artifact(
        self, path: str | PathLike[str], name: str | None = None, kind: str = "model"
    ) -> None:
        """Attach a file or a folder, such as a checkpoint, to the current run.

        Args:
            path: The file or folder.
            name: The artifact's name; the path's own by default.
            kind: The artifact's type in W&B.

        Raises:
            RuntimeError: No run was started.
            FileNotFoundError: There is nothing at ``path``.
        """
        self._current_phase()
        source = Path(path)
        if not source.exists():
            raise FileNotFoundError(f"no file or folder to log at {source}")
        name = name or source.name
        self._write("artifact", path=str(source), name=name, kind=kind)
        if self._run is not None:
            self._attempt("log an artifact to W&B", self._log_wandb_artifact, source, name, kind)

    def finish(self, exit_code: int = 0) -> None:
        """End the current run; without one, do nothing.

        Args:
            exit_code: Not 0 marks the run as failed.
        """
        self._write("finish", exit_code=exit_code)
        if self._run is not None:
            self._attempt("finish the W&B run", self._run.finish, exit_code=exit_code)
        if self._journal is not None:
            self._journalled(self._journal.close)
        self._run = None
        self._journal = None
        self._phase = None

    def __enter__(self) -> "WandBIntegration":
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

    def _start_wandb(self, name: str, session_id: str, config: Mapping[str, Any]) -> Any:
        # wandb takes a second to import, and is optional.
        try:
            import wandb  # noqa: PLC0415
        except ImportError as error:
            raise ImportError("W&B cannot be imported: pip install wandb") from error
        return wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=self.directory,
            name=name,
            group=session_id,
            job_type=self._phase,
            config=dict(config),
        )

    def _log_wandb_artifact(self, source: Path, name: str, kind: str) -> None:
        import wandb  # noqa: PLC0415

        artifact = wandb.Artifact(name, type=kind)
        if source.is_dir():
            artifact.add_dir(str(source))
        else:
            artifact.add_file(str(source))
        self._run.log_artifact(artifact)

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

    def _attempt(self, what: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call into W&B; after its first failure, leave W&B alone until the next run."""
        try:
            return call(*args, **kwargs)
        except Exception:
            kept = "no file" if self._journal is None else self.journal_path
            logger.exception("could not %s: training goes on, metrics are kept in %s", what, kept)
            self._run = None
            return None


def _file_name(what: str, name: str) -> str:
    if not name or name in {".", ".."} or any(mark in name for mark in "/\\:\0"):
        raise ValueError(f"{what} must be a name without / \\ and :, got {name!r}")
    return name
