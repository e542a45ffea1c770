"""What an optimizer does with each parameter, as rows and as a table."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class DescribedParameter(NamedTuple):
    """One parameter: what updates it, how fast, why, and what its state takes."""

    name: str
    shape: tuple[int, ...]
    algorithm: str
    lr: float
    weight_decay: float
    reason: str
    state_bytes: int
    """Bytes of the state after the first step, over all processes, without its step counts."""


@dataclass(frozen=True)
class Description:
    """The rows of ``MuonGrokfast.describe()``; ``print`` shows them as a table."""

    rows: tuple[DescribedParameter, ...]

    def __iter__(self) -> Iterator[DescribedParameter]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        table = [("parameter", "shape", "route", "lr", "weight decay", "reason")]
        table += [
            (
                row.name,
                "×".join(map(str, row.shape)) or "scalar",
                row.algorithm,
                f"{row.lr:g}",
                f"{row.weight_decay:g}",
                row.reason,
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in table
        ]
        return "\n".join([*lines, *self._totals()])

    def _totals(self) -> Iterator[str]:
        for algorithm in dict.fromkeys(row.algorithm for row in self.rows):
            rows = [row for row in self.rows if row.algorithm == algorithm]
            entries = sum(math.prod(row.shape) for row in rows)
            mebibytes = sum(row.state_bytes for row in rows) / 2**20
            yield (
                f"{algorithm}: {len(rows)} parameters, {entries:,} entries, "
                f"{mebibytes:,.1f} MiB of state"
            )
