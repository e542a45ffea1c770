"""The one exception of checkpoints."""

from pathlib import Path


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or cannot be loaded.

    Attributes:
        path: The checkpoint.
        reason: What is wrong, naming the file and the tensor, and how to mend it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """Name the checkpoint, then the reason."""
        return f"{self.path}: {self.reason}"
