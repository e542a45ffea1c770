"""Matrix products whose result is known to be symmetric.

On the CPU a large one is computed by block rows from the diagonal on, and mirrored: 5/8 of the
multiplications with four block rows, and, with the kernels of torch 2.13, the same bits. Products
of a batch keep the bits that each matrix alone would get.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# From here up the multiplications that are saved outweigh the mirroring (measured in bfloat16).
_MIN_ROWS = 448
_BLOCK_ROWS = 4
# Up to this many multiplications, those of a whole batch counted together, torch's CPU kernel for
# bfloat16 is a simple one, which rounds differently, and differently again in a batch.
SIMPLE_KERNEL = 16**3


def gram(x: Tensor) -> Tensor:
    r"""Return :math:`X X^\top`.

    Args:
        x: (m, n) or (B, m, n), any floating-point type.

    Returns:
        (m, m) or (B, m, m), of the type of ``x``.
    """
    if not _worth_blocks(x):
        return matmul(x, x.mT)
    result = x.new_empty(x.size(0), x.size(0))
    for rows, rest in _block_rows(x.size(0)):
        torch.mm(x[rows], x[rows.start :].T, out=result[rows, rows.start :])
        result[rest, rows] = result[rows, rest].T
    return result


def symmetric_addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float = 1.0) -> Tensor:
    r"""Return :math:`\beta C + \alpha A B` where that is symmetric, for example C, A B = p(A).

    Args:
        c: (m, m) or (B, m, m), symmetric.
        a: Like ``c``.
        b: Like ``c``; it commutes with ``a``.
        beta: Factor of ``c``.
        alpha: Factor of the product.

    Returns:
        A tensor like ``c``.
    """
    if not _worth_blocks(c):
        return addmm(c, a, b, beta=beta, alpha=alpha)
    result = torch.empty_like(c)
    for rows, rest in _block_rows(c.size(0)):
        columns = slice(rows.start, None)
        torch.addmm(
            c[rows, columns],
            a[rows],
            b[:, columns],
            beta=beta,
            alpha=alpha,
            out=result[rows, columns],
        )
        result[rest, rows] = result[rows, rest].T
    return result


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of two matrices, or of two batches with each matrix's own bits."""
    if _batch_rounds_differently(a, b):
        return torch.stack([x @ y for x, y in zip(a, b, strict=True)])
    return a @ b


def addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float = 1.0) -> Tensor:
    r"""Return :math:`\beta C + \alpha A B` of matrices, or of batches as :func:`matmul` does."""
    if c.ndim == 2:
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    if _batch_rounds_differently(a, b):
        parts = zip(c, a, b, strict=True)
        return torch.stack([torch.addmm(x, y, z, beta=beta, alpha=alpha) for x, y, z in parts])
    return torch.baddbmm(c, a, b, beta=beta, alpha=alpha)


def _batch_rounds_differently(a: Tensor, b: Tensor) -> bool:
    return (
        a.ndim == 3
        and a.device.type == "cpu"
        and a.dtype == torch.bfloat16
        and a.size(1) * a.size(2) * b.size(2) <= SIMPLE_KERNEL
    )


def _worth_blocks(x: Tensor) -> bool:
    return (
        x.ndim == 2
        and x.size(0) >= _MIN_ROWS
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
    )


def _block_rows(rows: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of each block, and the rows under it."""
    # Whole vectors of the kernels: 64 rows.
    size = -(-rows // (_BLOCK_ROWS * 64)) * 64
    for start in range(0, rows, size):
        end = min(start + size, rows)
        yield slice(start, end), slice(end, rows)
