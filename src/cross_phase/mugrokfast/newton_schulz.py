"""Newton-Schulz iteration: approximate orthogonalisation by matrix products alone."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_STEPS = 5
EPS = 1e-7

# One bmm over many small matrices saves launches; on the CPU a matrix of more than 128 x 128
# entries keeps a core busy by itself, and batching it only costs the copy.
_CPU_BATCH_NUMEL = 128 * 128
# On the CPU torch chooses between two bfloat16 kernels, which round differently, by whether the
# whole product has more than 16 ** 3 multiplications. From 17 rows up a single matrix has that many
# too, so that a batch gives the same bits as each matrix alone.
_CPU_BATCH_ROWS = 17
# Bounds the temporary memory of one batch on an accelerator (128 MiB in bfloat16, per temporary).
_MAX_BATCH_NUMEL = 2**26


def newton_schulz(
    matrix: Tensor, *, steps: int = NS_STEPS, eps: float = EPS, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    r"""Approximate :math:`U V^\top` of the singular value decomposition of a matrix.

    The quintic iteration of Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/): with
    :math:`X_0 = G / \lVert G \rVert_F` and :math:`(a, b, c) = (3.4445, -4.7750, 2.0315)`,

    .. math:: X_{k+1} = a X_k + (b A + c A^2) X_k, \qquad A = X_k X_k^\top

    It runs on the orientation with no more rows than columns. The coefficients are chosen for speed
    near zero: singular values end between about 0.68 and 1.13 instead of at 1, and very small ones,
    as square matrices have them, stay small. Zeros give zeros, and so does a matrix whose
    squared norm overflows float32.

    Args:
        matrix: (m, n) or a batch (B, m, n), floating point; it is not modified.
        steps: Number of iterations.
        eps: Lower bound of the norm that is divided by.
        dtype: Precision of the iteration.

    Returns:
        A tensor shaped like ``matrix``, of type ``dtype``.

    Raises:
        ValueError: ``matrix`` has neither 2 nor 3 dimensions.
    """
    if matrix.ndim not in (2, 3):
        raise ValueError(
            f"newton_schulz needs a matrix (m, n) or a batch (B, m, n), got the shape "
            f"{tuple(matrix.shape)}; flatten other tensors first"
        )
    a, b, c = COEFFICIENTS
    addmm: Callable[..., Tensor] = torch.addmm if matrix.ndim == 2 else torch.baddbmm
    tall = matrix.size(-2) > matrix.size(-1)
    x = matrix.to(dtype)
    if tall:
        x = x.transpose(-2, -1)
    # Not in place: for a matrix that has the type already, x shares its memory.
    x = torch.div(x, _frobenius_norm(x).clamp(min=eps))
    for _ in range(steps):
        gram = x @ x.mT
        x = addmm(x, addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    if tall:
        x = x.transpose(-2, -1)
    return x


def _frobenius_norm(x: Tensor) -> Tensor:
    if x.ndim == 2:
        norm: Tensor = torch.linalg.vector_norm(x)
        return norm
    # One reduction per matrix: a reduction over two dimensions of a batch adds up in another
    # order, and the result would depend on how many matrices share a shape.
    return torch.stack([_frobenius_norm(matrix) for matrix in x])[:, None, None]


def orthogonalize(matrices: list[Tensor], *, steps: int = NS_STEPS) -> list[Tensor]:
    """Apply :func:`newton_schulz` to each matrix, to those of one shape together where that wins.

    Args:
        matrices: Floating-point matrices (m, n), not empty, of any shapes, types and devices.
        steps: Number of iterations.

    Returns:
        One bfloat16 matrix for each of ``matrices``, in their order.
    """
    result = list(matrices)
    for batch in _batches(matrices):
        if len(batch) == 1:
            result[batch[0]] = newton_schulz(matrices[batch[0]], steps=steps)
        else:
            stacked = torch.stack([matrices[i].to(torch.bfloat16) for i in batch])
            for i, orthogonal in zip(batch, newton_schulz(stacked, steps=steps), strict=True):
                result[i] = orthogonal
    return result


def _batches(matrices: list[Tensor]) -> Iterator[list[int]]:
    """Yield the indices of matrices that are to be handled by one batched product."""
    alike: defaultdict[tuple[torch.Size, torch.device], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        alike[matrix.shape, matrix.device].append(i)
    for (shape, device), indices in alike.items():
        size = max(_MAX_BATCH_NUMEL // shape.numel(), 1)
        if device.type == "cpu" and (
            shape.numel() > _CPU_BATCH_NUMEL or min(shape) < _CPU_BATCH_ROWS
        ):
            size = 1
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
