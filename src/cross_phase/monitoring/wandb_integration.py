"""Track the runs of the eight phases with Weights & Biases, and in a local file."""

import logging
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from .metric_continuity import MetricContinuityTracker
from .phase_metrics import METRICS_COUNT
from .run_tracker import RunTracker

__all__ = ["METRICS_COUNT", "MetricContinuityTracker", "WandBIntegration", "sync_offline_runs"]

logger = logging.getLogger(__name__)

# The folder of an offline run that stands in for an online one that could not start.
STAND_IN_ID = re.compile(r"-([^-]+)-o[0-9a-f]{4}$")

Mode = Literal["online", "offline", "disabled"]


class WandBIntegration(RunTracker):
    """Tracks runs with Weights & Biases.

    wandb is imported when the first run starts, and never in mode ``"disabled"``, which writes
    nothing at all. Where W&B cannot be reached at the start of a run (no key, no network, no
    quota), the run is kept offline, for :func:`sync_offline_runs`.

    Args:
        project_name: The W&B project.
        mode: ``"online"``, ``"offline"`` (files for :func:`sync_offline_runs`) or
            ``"disabled"``.
        entity: The W&B user or team.
        project: The same as ``project_name``, and wins over it.
        directory: Where the offline files and the journal
            ``<project>/<session_id>-<phase>.jsonl`` are put.
        strict: Whether logging a metric that the phase does not declare is an error.
        init_timeout: How long an online run may take to start, in seconds.
        finish_timeout: How long :meth:`finish` waits for the upload, in seconds.

    Attributes:
        mode: As given.
        project: The W&B project.
        entity: As given.
        journal_path: The journal of the current or last run; None before the first, or where
            there is none.
        last_step: The highest step logged, also before the run was resumed; None without one.

    Raises:
        ValueError: ``mode`` is none of the three, or the project has no name or is a path.
    """

    backend: ClassVar[str] = "W&B"

    def __init__(
        self,
        project_name: str = "agent-forge-v2",
        mode: Mode = "offline",
        entity: str | None = None,
        project: str | None = None,
        *,
        directory: str | PathLike[str] = "runs",
        strict: bool = False,
        init_timeout: float = 20.0,
        finish_timeout: float = 60.0,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        super().__init__(
            project_name if project is None else project,
            directory,
            strict=strict,
            finish_timeout=finish_timeout,
        )
        self.mode: Mode = mode
        self.entity = entity
        self.init_timeout = init_timeout

    @property
    def writes_nothing(self) -> bool:
        """Whether runs leave no trace."""
        return self.mode == "disabled"

    def _start_run(
        self, name: str, session_id: str, config: Mapping[str, Any], run_id: str, *, resume: bool
    ) -> Any:
        # wandb takes a second to import, and is optional.
        try:
            import wandb  # noqa: PLC0415
        except ImportError as error:
            raise ImportError("W&B cannot be imported: pip install wandb") from error
        arguments: dict[str, Any] = {
            "project": self.project,
            "entity": self.entity,
            "dir": self.directory,
            "id": run_id,
            "name": name,
            "group": session_id,
            "job_type": self._phase,
            "config": dict(config),
        }
        # W&B would choose a folder elsewhere, where nobody looks for offline runs.
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.mode == "online":
            try:
                return wandb.init(
                    mode="online",
                    resume="allow" if resume else None,
                    settings={"init_timeout": self.init_timeout},
                    **arguments,
                )
            except Exception as error:  # noqa: BLE001 - whatever it is must not stop training
                self._report("start an online run, and keeps an offline one to sync later", error)
            # W&B keeps the id of a run that failed to start: take one that shows whose it is.
            arguments["id"] = f"{run_id}-o{secrets.token_hex(2)}"
        # Offline runs of one id become one run when they are synced.
        return wandb.init(mode="offline", **arguments)

    def _log_to_run(self, run: Any, metrics: Mapping[str, float], step: int | None) -> None:
        run.log(metrics, step=step)

    def _attach_to_run(
        self, run: Any, source: Path, name: str, kind: str, aliases: Sequence[str]
    ) -> None:
        import wandb  # noqa: PLC0415

        artifact = wandb.Artifact(name, type=kind)
        if source.is_dir():
            artifact.add_dir(str(source))
        else:
            artifact.add_file(str(source))
        run.log_artifact(artifact, aliases=list(aliases) or None)

    def _finish_run(self, run: Any, exit_code: int) -> None:
        run.finish(exit_code=exit_code)


def sync_offline_runs(
    directory: str | PathLike[str] = "runs", *, timeout: float | None = None
) -> dict[str, str]:
    """Upload the offline runs of a directory, with W&B's own command.

    Runs that were uploaded before are passed over by W&B.

    Args:
        directory: The ``directory`` of the runs.
        timeout: How long each upload may take, in seconds.

    Returns:
        The runs that could not be uploaded, by the names of their folders, each with the
        reason; empty where all of them could.
    """
    failed: dict[str, str] = {}
    for run in sorted(Path(directory).glob("wandb/offline-run-*")):
        if not run.is_dir():
            continue
        command = [sys.executable, "-m", "wandb", "sync"]
        stand_in = STAND_IN_ID.search(run.name)
        if stand_in is not None:
            command += ["--id", stand_in[1]]
        try:
            result = subprocess.run(
                [*command, str(run)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env={**os.environ, "WANDB_SILENT": "false"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            failed[run.name] = f"took longer than {timeout:g} s"
            continue
        if result.returncode != 0:
            lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
            failed[run.name] = lines[-1] if lines else f"exit code {result.returncode}"
    for name, reason in failed.items():
        logger.warning("the offline run %s is not synced: %s", name, reason)
    return failed
