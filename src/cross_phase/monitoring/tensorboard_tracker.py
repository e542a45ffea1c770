"""Track the runs of the eight phases as TensorBoard event files, without any service."""

import json
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from .run_tracker import RunTracker


class TensorBoardTracker(RunTracker):
    """Tracks runs in TensorBoard's files, written by its own library.

    ``tensorboard --logdir <directory>`` shows them. TensorBoard keeps numbers as float32; the
    journal keeps them exactly.

    Args:
        project: What the runs belong to.
        directory: Where the event files ``<project>/<session_id>-<phase>/`` and the journal
            ``<project>/<session_id>-<phase>.jsonl`` are put.
        strict: Whether logging a metric that the phase does not declare is an error.
        finish_timeout: How long :meth:`finish` waits for the disk, in seconds.

    Raises:
        ValueError: The project has no name or is a path.
    """

    backend: ClassVar[str] = "TensorBoard"

    def __init__(
        self,
        project: str = "agent-forge-v2",
        *,
        directory: str | PathLike[str] = "runs",
        strict: bool = False,
        finish_timeout: float = 60.0,
    ) -> None:
        super().__init__(project, directory, strict=strict, finish_timeout=finish_timeout)
        self._next_step = 0

    def _start_run(
        self,
        name: str,
        session_id: str,  # noqa: ARG002 - is in the name
        config: Mapping[str, Any],
        run_id: str,  # noqa: ARG002 - a folder's files are one run
        *,
        resume: bool,  # noqa: ARG002 - as above
    ) -> Any:
        try:
            from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]  # noqa: PLC0415
        except ImportError as error:
            raise ImportError("TensorBoard cannot be imported: pip install tensorboard") from error
        self._next_step = 0 if self.last_step is None else self.last_step + 1
        writer = event_file_writer.EventFileWriter(str(self.directory / self.project / name))
        text = json.dumps(dict(config), indent=1, default=repr)
        self._add_text(writer, "config", f"```\n{text}\n```")
        writer.flush()
        return writer

    def _log_to_run(self, run: Any, metrics: Mapping[str, float], step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]  # noqa: PLC0415
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]  # noqa: PLC0415

        step = self._next_step if step is None else step
        self._next_step = step + 1
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        run.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _attach_to_run(
        self, run: Any, source: Path, name: str, kind: str, aliases: Sequence[str]
    ) -> None:
        # TensorBoard holds no files: it says where this one is.
        also = f" ({', '.join(aliases)})" if aliases else ""
        self._add_text(run, f"{kind}/{name}", f"{source.resolve()}{also}")

    def _finish_run(self, run: Any, exit_code: int) -> None:
        if exit_code:
            self._add_text(run, "failed", f"exit code {exit_code}")
        run.close()

    def _add_text(self, writer: Any, tag: str, text: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]  # noqa: PLC0415

        summary = text_pb(tag, text)
        writer.add_event(Event(wall_time=time.time(), step=self._next_step, summary=summary))
