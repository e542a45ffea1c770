"""The checkpoints of a training run: which to keep, which is the latest, and how to go on."""

import logging
import math
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from .checkpoint_errors import CheckpointError
from .checkpoint_folders import MANIFEST_NAME, Manifest, read_manifest
from .checkpoints import open_checkpoint, save_checkpoint
from .random_states import get_random_states, set_random_states
from .state_trees import decode_tree

logger = logging.getLogger(__name__)

STEP_NAME = re.compile(r"step-(\d{8,})")


class Stateful(Protocol):
    """Anything with a state to save: an optimizer, a scheduler, a gradient scaler, a sampler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take the state over."""


@dataclass(frozen=True)
class ResumedRun:
    """Where a resumed run stands.

    Attributes:
        path: The checkpoint.
        step: The step that it was saved at.
        metrics: The metrics that were given then.
        config: The configuration that was given then.
        metadata: The metadata that was given then.
    """

    path: Path
    step: int
    metrics: dict[str, float]
    config: Any
    metadata: Any


class CheckpointSeries:
    """Saves a run's checkpoints, each in a folder named after its step, and resumes from them.

    Which is the latest is seen from the folders themselves: a crash cannot leave a pointer that
    is wrong. One process writes a series at a time.

    Args:
        folder: Where the checkpoints are; it is made with the first one.
        keep_last: How many of the latest ones are kept, at least 1.
        keep_best: How many of the best ones are kept besides.
        metric: The metric that decides which are best; needed for ``keep_best``.
        mode: Whether ``"min"`` or ``"max"`` of the metric is best.

    Raises:
        ValueError: A number is too small, ``mode`` is neither, or ``keep_best`` lacks a metric.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        keep_last: int = 3,
        keep_best: int = 0,
        metric: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise ValueError(
                f"keep_last must be 1 or more, and keep_best 0 or more, got {keep_last} and "
                f"{keep_best}"
            )
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        if keep_best and metric is None:
            raise ValueError("keep_best needs metric=, the name of the metric that decides")
        self.folder = Path(folder)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.metric = metric
        self.mode = mode

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: Stateful | None = None,
        scheduler: Stateful | None = None,
        *,
        metrics: Mapping[str, float] | None = None,
        config: Any = None,
        metadata: Any = None,
        stateful: Mapping[str, Stateful] | None = None,
        **options: Any,
    ) -> Path:
        """Save everything that training needs to go on as if it had not stopped.

        The states of the random number generators are saved too. Afterwards, checkpoints that
        need not be kept are removed.

        Args:
            step: The training step, 0 or more. A checkpoint of the same step is replaced.
            model: The model.
            optimizer: The optimizer.
            scheduler: The learning-rate scheduler.
            metrics: Metrics at this step.
            config: See ``save_checkpoint``, like the next.
            metadata: More about the run.
            stateful: More objects with a state, by name, such as a gradient scaler.
            **options: ``max_shard_size`` and ``checksum`` of ``save_checkpoint``.

        Returns:
            The checkpoint's folder.

        Raises:
            ValueError: ``step`` is negative, or the metric that decides is missing.
            CheckpointError: See ``save_checkpoint``.
        """
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        values = {name: float(value) for name, value in (metrics or {}).items()}
        if self.keep_best and self.metric not in values:
            raise ValueError(f"keep_best needs metric {self.metric!r}, which is not in metrics")
        states = {
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "random": get_random_states(),
            "stateful": {name: item.state_dict() for name, item in (stateful or {}).items()},
        }
        path = save_checkpoint(
            model,
            self.folder / f"step-{step:08}",
            config,
            {"step": step, "metrics": values, "metadata": {} if metadata is None else metadata},
            None if optimizer is None else optimizer.state_dict(),
            training_state=states,
            **options,
        )
        self._remove_old()
        return path

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, in order."""
        found = (STEP_NAME.fullmatch(path.name) for path in self._folders())
        return sorted(int(match[1]) for match in found if match is not None)

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint, whether it exists or not."""
        return self.folder / f"step-{step:08}"

    def latest(self) -> Path | None:
        """Return the complete checkpoint of the highest step, or None."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def best(self) -> Path | None:
        """Return the complete checkpoint with the best metric, or None.

        Raises:
            ValueError: The series has no metric.
        """
        if self.metric is None:
            raise ValueError("which is best needs metric=, the name of the metric that decides")
        ranked = self._ranked(self.steps())
        return self.path(ranked[0]) if ranked else None

    def resume(
        self,
        model: nn.Module,
        optimizer: Stateful | None = None,
        scheduler: Stateful | None = None,
        *,
        step: int | None = None,
        stateful: Mapping[str, Stateful] | None = None,
        device: str | torch.device = "cpu",
        restore_random: bool = True,
        config_types: Collection[type] = (),
    ) -> ResumedRun | None:
        """Put a checkpoint's state into the objects of a run.

        Everything is read and checked before the first of them is changed.

        Args:
            model: The model.
            optimizer: The optimizer, made anew from the model's parameters.
            scheduler: The learning-rate scheduler.
            step: The step to resume from; the latest by default.
            stateful: The objects given to :meth:`save`, by the same names.
            device: Where the optimizer's state is put before the optimizer takes it over.
            restore_random: Whether to restore the random number generators.
            config_types: See ``load_checkpoint``.

        Returns:
            Where the run stands; None where there is no checkpoint yet.

        Raises:
            FileNotFoundError: There is no checkpoint of ``step``.
            CheckpointError: It is damaged, or does not fit the objects; other steps may.
        """
        path = self.latest() if step is None else self.path(step)
        if path is None:
            return None
        with open_checkpoint(path) as checkpoint:
            contents = checkpoint.read_contents(
                device=device, load_optimizer=optimizer is not None, config_types=config_types
            )
            states = _check_states(path, contents, optimizer, scheduler, stateful or {})
            checkpoint.check_model(model, strict=True, mmap=False, verify=True)
            checkpoint.load_model(model, strict=True, mmap=False)
        for holder, state in states:
            holder.load_state_dict(state)
        if restore_random:
            set_random_states(contents["training_state"]["random"])
        about = contents["metadata"]
        return ResumedRun(
            path, about["step"], about["metrics"], contents["config"], about["metadata"]
        )

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if (path / MANIFEST_NAME).is_file()]

    def _ranked(self, steps: list[int]) -> list[int]:
        """Order steps by their metric, the best first, later before earlier ones."""
        values: dict[int, float] = {}
        for step in steps:
            try:
                metadata = Manifest.from_json(read_manifest(self.path(step))).metadata
                value = decode_tree(metadata)["metrics"].get(self.metric, math.nan)
            except (OSError, ValueError, TypeError, KeyError) as error:
                logger.warning("the metrics of %s cannot be read: %s", self.path(step), error)
                continue
            if not math.isnan(value):
                values[step] = value if self.mode == "min" else -value
        return sorted(values, key=lambda step: (values[step], -step))

    def _remove_old(self) -> None:
        steps = self.steps()
        kept = set(steps[-self.keep_last :])
        if self.keep_best:
            kept.update(self._ranked(steps)[: self.keep_best])
        for step in set(steps) - kept:
            _remove(self.path(step))
        # What a crash left of a removal or of a first save: a folder without a manifest.
        for path in self.folder.iterdir():
            if STEP_NAME.fullmatch(path.name) and not (path / MANIFEST_NAME).exists():
                _remove(path)


def _remove(path: Path) -> None:
    try:
        # First the manifest: without it the rest is no checkpoint, wherever a crash comes.
        (path / MANIFEST_NAME).unlink(missing_ok=True)
        shutil.rmtree(path)
    except OSError as error:
        # The new checkpoint is whole, so an old one too many is no reason to fail.
        logger.warning("%s is not needed any more, but stays: %s", path, error)


def _check_states(
    path: Path,
    contents: Mapping[str, Any],
    optimizer: Stateful | None,
    scheduler: Stateful | None,
    stateful: Mapping[str, Stateful],
) -> list[tuple[Stateful, dict[str, Any]]]:
    """Pair objects with their states, having checked what can be checked without changing any."""
    about, states = contents["metadata"], contents["training_state"]
    if not isinstance(about, dict) or not {"step", "metrics", "metadata"} <= set(about):
        raise CheckpointError(path, "is not of a series: use load_checkpoint")
    if not isinstance(states, dict) or set(states) != {"scheduler", "random", "stateful"}:
        raise CheckpointError(path, "is not of a series: use load_checkpoint")
    pairs: list[tuple[Stateful, dict[str, Any]]] = []
    if optimizer is not None:
        state = contents["optimizer_state_dict"]
        saved = [len(group["params"]) for group in state.get("param_groups", [])]
        here = [len(group["params"]) for group in optimizer.state_dict().get("param_groups", [])]
        if saved != here:
            raise CheckpointError(
                path,
                f"the optimizer's groups have {here} parameters, and those saved {saved}: make "
                "it from the same model in the same way",
            )
        pairs.append((optimizer, state))
    if scheduler is not None:
        if states["scheduler"] is None:
            raise CheckpointError(path, "has no scheduler's state: pass scheduler=None")
        pairs.append((scheduler, states["scheduler"]))
    for name, holder in stateful.items():
        if name not in states["stateful"]:
            raise CheckpointError(path, f"has no state of {name!r}")
        pairs.append((holder, states["stateful"][name]))
    return pairs
