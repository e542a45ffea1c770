"""Spec → cells (criterion × device), and which may be evaluated together."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from tiergate.fields import Device
from tiergate.spec import Criterion, Spec
from tiergate.verdict import cell_name
from tiergate.waves import waves


class Cell(msgspec.Struct, frozen=True):
    """One criterion on one device."""

    criterion: Criterion
    device: Device
    tier: int
    needs: tuple[str, ...]
    """Cells of the same leg that must pass first."""

    @property
    def name(self) -> str:
        """Such as ``ISS-003@cpu``."""
        return cell_name(self.criterion.id, self.device)


def cells(spec: Spec, device: Device) -> list[Cell]:
    """Return the cells of one leg, in the order of the file.

    A cell needs what its criterion needs on the same device, and every cell of lower tiers.
    A need that is not evaluated on this device is checked when the legs are put together.
    """
    result: list[Cell] = []
    for index, tier in enumerate(spec.tiers):
        lower = tuple(cell.name for cell in result)
        for criterion in tier.criteria:
            if device in criterion.devices:
                needs = tuple(
                    cell_name(need, device)
                    for need in criterion.needs
                    if device in spec.criterion(need).devices
                )
                # A need of a lower tier stands among the lower cells already.
                after = tuple(dict.fromkeys((*needs, *lower)))
                result.append(Cell(criterion, device, index, after))
    return result


def all_cells(spec: Spec, devices: Collection[Device] | None = None) -> list[Cell]:
    """Return the cells of every leg, or of the legs of ``devices``."""
    return [
        cell
        for device in spec.devices
        if devices is None or device in devices
        for cell in cells(spec, device)
    ]


def cell_waves(planned: list[Cell]) -> list[list[str]]:
    """Return the cells' names in waves: what may run in parallel, what waits for what."""
    return waves({cell.name: cell.needs for cell in planned})
