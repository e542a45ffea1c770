"""Muon over several processes: each matrix is orthogonalised by one of them.

Momentum, filter and AdamW work on each entry by itself and need no communication. Newton-Schulz
needs whole matrices, so these are shared out over the group by their cost:

- parameters that every process holds whole (DistributedDataParallel): each process orthogonalises
  its share and broadcasts the result;
- parameters that are sharded (DTensor, as ``fully_shard`` makes them): one all-to-all brings the
  pieces of each matrix to its owner, a second one takes the pieces of the result back. Both are in
  bfloat16, the type in which the iteration runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Orthogonalize = Callable[[list[Tensor]], list[Tensor]]


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Tell whether a tensor is a DTensor, without importing that class where nobody did."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a DTensor, and any other tensor itself."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def mesh_groups(tensors: Sequence[Tensor]) -> list[dist.ProcessGroup]:
    """Return the process groups of all meshes that DTensors among ``tensors`` lie on."""
    meshes = {tensor.device_mesh: None for tensor in tensors if is_dtensor(tensor)}
    groups = [mesh.get_group(i) for mesh in meshes for i in range(mesh.ndim)]
    return list(dict.fromkeys(groups))


def all_reduce_max(value: Tensor, groups: Sequence[dist.ProcessGroup]) -> Tensor:
    """Return the largest ``value`` over the processes of all ``groups``, one after another."""
    value = value.clone()
    for group in groups:
        dist.all_reduce(value, op=dist.ReduceOp.MAX, group=group)
    return value


def world_size(group: dist.ProcessGroup | None) -> int:
    """Return the number of processes in a group, 1 without one."""
    return 1 if group is None else dist.get_world_size(group)


class Workload:
    """Shares matrices out over the processes of each group, the same way on every process."""

    def __init__(self) -> None:
        self._loads: dict[dist.ProcessGroup, list[int]] = {}

    def owners(self, shapes: Sequence[torch.Size], group: dist.ProcessGroup) -> list[int]:
        """Return the group rank that orthogonalises each matrix, so that the loads stay even.

        Args:
            shapes: Of the parameters, in the same order on every process.
            group: The processes to choose from.
        """
        loads = self._loads.setdefault(group, [0] * dist.get_world_size(group))
        costs = [_cost(shape) for shape in shapes]
        owners = [0] * len(costs)
        for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
            owners[i] = loads.index(min(loads))
            loads[owners[i]] += costs[i]
        return owners


def _cost(shape: torch.Size) -> int:
    short, long = sorted((shape[0], shape[1:].numel()))
    return short * short * (2 * long + short)


def orthogonalize_replicated(
    updates: list[Tensor], orthogonalize: Orthogonalize, group: dist.ProcessGroup, work: Workload
) -> list[Tensor]:
    """Orthogonalise matrices that every process of a group holds, each on one process only.

    Args:
        updates: Matrices (m, n), the same on every process.
        orthogonalize: Gives one bfloat16 matrix for each.
        group: The processes that share the work; all of them must call this.
        work: Their loads.

    Returns:
        One bfloat16 matrix for each of ``updates``.
    """
    owners = work.owners([update.shape for update in updates], group)
    rank = dist.get_rank(group)
    mine = [i for i, owner in enumerate(owners) if owner == rank]
    done = iter(orthogonalize([updates[i] for i in mine]))
    result: list[Tensor] = [update.new_empty(0) for update in updates]
    pending = []
    for owner in sorted(set(owners)):
        indices = [i for i, o in enumerate(owners) if o == owner]
        sizes = [updates[i].numel() for i in indices]
        if owner == rank:
            flat = torch.cat([matrix.flatten() for matrix in done])
        else:
            flat = updates[indices[0]].new_empty(sum(sizes), dtype=torch.bfloat16)
        pending.append(dist.broadcast(flat, group=group, group_src=owner, async_op=True))
        for i, part in zip(indices, torch.split(flat, sizes), strict=True):
            result[i] = part.view(updates[i].shape)
    for handle in pending:
        if handle is not None:
            handle.wait()
    return result


class _Layout(NamedTuple):
    """How a parameter is sharded: along one dimension, over one group."""

    group: dist.ProcessGroup
    dim: int


def orthogonalize_sharded(
    params: Sequence[DTensor],
    updates: list[Tensor],
    orthogonalize: Orthogonalize,
    work: Workload,
) -> list[Tensor]:
    """Orthogonalise sharded matrices, each on one process of the group it is sharded over.

    A parameter that is sharded along one dimension over one mesh dimension (and replicated over the
    others, each replica by itself) takes the two all-to-alls. Any other layout is gathered whole by
    every process, which costs everyone the whole product.

    Args:
        params: The parameters, of 2 or more dimensions.
        updates: This process's shards of their updates.
        orthogonalize: Takes whole matrices (m, n) and gives a bfloat16 one for each.
        work: The loads of the processes.

    Returns:
        This process's shards of the results, shaped like ``updates``, in bfloat16.
    """
    result = list(updates)
    by_group: dict[dist.ProcessGroup, list[tuple[int, int]]] = {}
    for i, param in enumerate(params):
        layout = _layout(param)
        if layout is None:
            result[i] = _orthogonalize_gathered(param, updates[i], orthogonalize)
        else:
            by_group.setdefault(layout.group, []).append((i, layout.dim))
    for group, members in by_group.items():
        indices = [i for i, _ in members]
        pieces = _exchange(
            [params[i].shape for i in indices],
            [dim for _, dim in members],
            [updates[i] for i in indices],
            orthogonalize,
            group,
            work,
        )
        for i, piece in zip(indices, pieces, strict=True):
            result[i] = piece
    return result


def _layout(param: DTensor) -> _Layout | None:
    sharded = [(i, p) for i, p in enumerate(param.placements) if not p.is_replicate()]
    if len(sharded) != 1:
        return None
    mesh_dim: int = sharded[0][0]
    placement: Any = sharded[0][1]
    # The exact type: its subclasses lay the pieces out in another order.
    if type(placement).__name__ != "Shard":
        return None
    return _Layout(param.device_mesh.get_group(mesh_dim), placement.dim)


def _exchange(
    shapes: list[torch.Size],
    dims: list[int],
    updates: list[Tensor],
    orthogonalize: Orthogonalize,
    group: dist.ProcessGroup,
    work: Workload,
) -> list[Tensor]:
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    owners = work.owners(shapes, group)
    owned = [[i for i, owner in enumerate(owners) if owner == r] for r in range(world)]
    # (rank, parameter) -> shape of the piece.
    pieces = [
        [_piece_shape(shape, dim, world, r) for shape, dim in zip(shapes, dims, strict=True)]
        for r in range(world)
    ]
    received = _all_to_all(
        [[updates[i] for i in owned[r]] for r in range(world)],
        [[pieces[r][i] for i in owned[rank]] for r in range(world)],
        group,
        updates[0],
    )
    whole = [
        torch.cat([received[r][k] for r in range(world)], dim=dims[i]).flatten(1)
        for k, i in enumerate(owned[rank])
    ]
    done = [
        matrix.reshape(shapes[i])
        for i, matrix in zip(owned[rank], orthogonalize(whole), strict=True)
    ]
    split = [
        torch.split(matrix, [pieces[r][i][dims[i]] for r in range(world)], dim=dims[i])
        for i, matrix in zip(owned[rank], done, strict=True)
    ]
    returned = _all_to_all(
        [[parts[r] for parts in split] for r in range(world)],
        [[pieces[rank][i] for i in owned[r]] for r in range(world)],
        group,
        updates[0],
    )
    result = list(updates)
    for indices, tensors in zip(owned, returned, strict=True):
        for i, tensor in zip(indices, tensors, strict=True):
            result[i] = tensor
    return result


def _piece_shape(shape: torch.Size, dim: int, world: int, rank: int) -> torch.Size:
    """Return the shape of a rank's piece: torch.chunk's, and empty where there are too few rows."""
    chunk = -(-shape[dim] // world)
    size = min(chunk, max(0, shape[dim] - rank * chunk))
    return torch.Size((*shape[:dim], size, *shape[dim + 1 :]))


def _all_to_all(
    outgoing: list[list[Tensor]],
    incoming: list[list[torch.Size]],
    group: dist.ProcessGroup,
    like: Tensor,
) -> list[list[Tensor]]:
    """Send each rank its tensors in bfloat16; return those of the given shapes from each rank."""
    flat = [t.to(torch.bfloat16).flatten() for tensors in outgoing for t in tensors]
    send = torch.cat(flat) if flat else like.new_empty(0, dtype=torch.bfloat16)
    send_sizes = [sum(t.numel() for t in tensors) for tensors in outgoing]
    receive_sizes = [sum(shape.numel() for shape in shapes) for shapes in incoming]
    receive = like.new_empty(sum(receive_sizes), dtype=torch.bfloat16)
    dist.all_to_all_single(receive, send, receive_sizes, send_sizes, group=group)
    return [
        [
            part.view(shape)
            for part, shape in zip(
                torch.split(block, [shape.numel() for shape in shapes]), shapes, strict=True
            )
        ]
        for block, shapes in zip(torch.split(receive, receive_sizes), incoming, strict=True)
    ]


def _orthogonalize_gathered(param: DTensor, update: Tensor, orthogonalize: Orthogonalize) -> Tensor:
    module: Any = sys.modules["torch.distributed.tensor"]
    mesh, placements = param.device_mesh, param.placements
    sharded = module.DTensor.from_local(
        update, mesh, placements, run_check=False, shape=param.shape, stride=param.stride()
    )
    (matrix,) = orthogonalize([sharded.full_tensor().flatten(1)])
    replicated = module.DTensor.from_local(
        matrix.reshape(param.shape), mesh, [module.Replicate()] * mesh.ndim, run_check=False
    )
    piece: Tensor = replicated.redistribute(placements=placements).to_local()
    return piece
