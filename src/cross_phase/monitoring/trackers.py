"""A run tracker by name."""

from collections.abc import Callable
from typing import Any, Literal, get_args

from .run_tracker import RunTracker
from .tensorboard_tracker import TensorBoardTracker
from .wandb_integration import WandBIntegration

TrackerName = Literal["wandb", "tensorboard", "none"]


def create_tracker(
    tracker: TrackerName = "wandb", project: str = "agent-forge-v2", **options: Any
) -> RunTracker:
    """Make a run tracker; all of them are used in the same way.

    Args:
        tracker: ``"wandb"`` (:class:`WandBIntegration`), ``"tensorboard"``
            (:class:`TensorBoardTracker`) or ``"none"``, which writes nothing.
        project: What the runs belong to.
        **options: Further arguments of the class. ``"none"`` takes ``strict``, and leaves
            the others unused.

    Returns:
        The tracker.

    Raises:
        ValueError: There is no tracker of that name.
    """
    makers: dict[str, Callable[[], RunTracker]] = {
        "wandb": lambda: WandBIntegration(project, **options),
        "tensorboard": lambda: TensorBoardTracker(project, **options),
        "none": lambda: WandBIntegration(
            project, mode="disabled", strict=bool(options.get("strict", False))
        ),
    }
    if tracker not in makers:
        known = ", ".join(repr(name) for name in get_args(TrackerName))
        raise ValueError(f"unknown tracker {tracker!r}: use one of {known}")
    return makers[tracker]()
