"""Order in a graph of needs: waves of what may run together, and cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter


def find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the nodes of one cycle, its first node repeated at the end, or an empty list."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[::-1]
    return []


def waves(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the nodes in waves: each needs only nodes of earlier waves; order within is kept.

    Needs that are no nodes of the mapping are ignored.
    """
    order = {node: index for index, node in enumerate(needs)}
    known = {node: [need for need in wanted if need in needs] for node, wanted in needs.items()}
    sorter = TopologicalSorter(known)
    sorter.prepare()
    result = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=order.__getitem__)
        result.append(ready)
        sorter.done(*ready)
    return result
