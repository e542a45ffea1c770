"""Newton-Schulz iteration: approximate orthogonalisation by matrix products alone."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, _foreach_copy_, _foreach_norm

from .symmetric import SIMPLE_KERNEL, addmm, gram, matmul, symmetric_addmm

Polynomial = tuple[float, float, float]

COEFFICIENTS: Mapping[str, tuple[Polynomial, ...]] = {
    # Keller Jordan, https://kellerjordan.github.io/posts/muon/
    "muon": ((3.4445, -4.7750, 2.0315),),
    # Amsel et al., arXiv 2505.16932, algorithm 1 and the listing after it, safety factor included.
    "polar_express": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
}
# The polynomials of Polar Express hold for singular values up to 1 after this division.
_HEADROOM: Mapping[str, float] = {"muon": 1.0, "polar_express": 1.02}
FORMS = ("standard", "gram")
NS_STEPS = 5
EPS = 1e-7

# The Gram form wins where a matrix is at least twice as long as wide, and not tiny.
_GRAM_ASPECT = 2
_GRAM_ROWS = 17
# Its matrix collects rounding errors; iterations before which it is made anew.
_GRAM_RESTARTS = range(2, 100, 3)
# One bmm over many small matrices saves launches; on the CPU a matrix of more entries keeps a core
# busy by itself, and batching it only costs the copy.
_CPU_BATCH_NUMEL = 256 * 256
# A batch's temporaries should stay in the caches of a CPU, and in the memory of an accelerator
# (128 MiB in bfloat16 for each).
_CPU_MAX_BATCH_NUMEL = 2**19
_MAX_BATCH_NUMEL = 2**26


def newton_schulz(
    matrix: Tensor,
    *,
    steps: int = NS_STEPS,
    eps: float = EPS,
    dtype: torch.dtype = torch.bfloat16,
    coefficients: str = "muon",
    form: str = "standard",
) -> Tensor:
    r"""Approximate :math:`U V^\top` of the singular value decomposition of a matrix.

    The quintic iteration of Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/): with
    :math:`X_0 = G / \lVert G \rVert_F`,

    .. math:: X_{k+1} = a_k X_k + (b_k A + c_k A^2) X_k, \qquad A = X_k X_k^\top

    It runs on the orientation with no more rows than columns. Zeros give zeros, and so does a
    matrix whose squared norm overflows float32.

    Args:
        matrix: (m, n) or a batch (B, m, n), floating point; it is not modified.
        steps: Number of iterations.
        eps: Lower bound of the norm that is divided by.
        dtype: Precision of the iteration.
        coefficients: ``"muon"``: (3.4445, -4.7750, 2.0315) in every iteration; fast near zero, and
            singular values end between about 0.68 and 1.13 instead of at 1. ``"polar_express"``:
            the best polynomial for each iteration (arXiv 2505.16932), which ends near 1; after the
            fifth iteration the last one repeats. Very small singular values, as square matrices
            have them, stay small with either.
        form: ``"standard"``, as written above, or ``"gram"``: the same polynomial on the smaller
            m × m matrix :math:`A` (Dao et al., Gram Newton-Schulz, 2026), where n is at least 2 m.
            It takes about half the multiplications for n = 4 m and rounds differently.

    Returns:
        A tensor shaped like ``matrix``, of type ``dtype``.

    Raises:
        ValueError: ``matrix`` has neither 2 nor 3 dimensions, or a name is unknown.
    """
    if matrix.ndim not in (2, 3):
        raise ValueError(
            f"newton_schulz needs a matrix (m, n) or a batch (B, m, n), got the shape "
            f"{tuple(matrix.shape)}; flatten other tensors first"
        )
    for name, value, known in (
        ("coefficients", coefficients, tuple(COEFFICIENTS)),
        ("form", form, FORMS),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    tall = matrix.size(-2) > matrix.size(-1)
    x = matrix.to(dtype)
    if tall:
        x = x.mT
    # Not in place: for a matrix that has the type already, x shares its memory.
    x = torch.div(x, (_frobenius_norm(x) * _HEADROOM[coefficients]).clamp(min=eps))
    polynomials = _polynomials(coefficients, steps)
    rows, columns = x.shape[-2:]
    if form == "gram" and rows >= _GRAM_ROWS and columns >= _GRAM_ASPECT * rows:
        x = _gram_form(x, polynomials)
    else:
        for a, b, c in polynomials:
            square = gram(x)
            x = addmm(x, symmetric_addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _polynomials(coefficients: str, steps: int) -> list[Polynomial]:
    known = COEFFICIENTS[coefficients]
    return [known[min(k, len(known) - 1)] for k in range(steps)]


def _gram_form(x: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    r"""Iterate on :math:`R = X X^\top` and the product Q of the polynomials; return Q X.

    All of them are polynomials of one symmetric matrix: they commute, and products are symmetric.
    """
    r: Tensor | None = None
    q: Tensor | None = None
    for k, (a, b, c) in enumerate(polynomials):
        if r is None or k in _GRAM_RESTARTS:
            x = x if q is None else matmul(q, x)
            r, q = gram(x), None
        z = symmetric_addmm(r, r, r, beta=b, alpha=c)
        if q is None:
            q = z.clone()
            q.diagonal(dim1=-2, dim2=-1).add_(a)
        else:
            q = symmetric_addmm(q, z, q, beta=a)
        if k + 1 < len(polynomials) and k + 1 not in _GRAM_RESTARTS:
            half = symmetric_addmm(r, z, r, beta=a)
            r = symmetric_addmm(half, half, z, beta=a)
    return x if q is None else matmul(q, x)


def _frobenius_norm(x: Tensor) -> Tensor:
    if x.ndim == 2:
        norm: Tensor = torch.linalg.vector_norm(x)
        return norm
    # One reduction per matrix: a reduction over two dimensions of a batch adds up in another
    # order, and the result would depend on how many matrices share a shape.
    return torch.stack(list(_foreach_norm(list(x.unbind()))))[:, None, None]


def orthogonalize(
    matrices: list[Tensor],
    *,
    steps: int = NS_STEPS,
    coefficients: str = "muon",
    form: str = "standard",
) -> list[Tensor]:
    """Apply :func:`newton_schulz` to each matrix, to those of one shape together where that wins.

    Args:
        matrices: Floating-point matrices (m, n), not empty, of any shapes, types and devices.
        steps: Number of iterations.
        coefficients: See :func:`newton_schulz`.
        form: See :func:`newton_schulz`.

    Returns:
        One bfloat16 matrix for each of ``matrices``, in their order.
    """
    result = list(matrices)
    for batch in _batches(matrices):
        first = matrices[batch[0]]
        if len(batch) == 1:
            stacked = first
        else:
            stacked = first.new_empty((len(batch), *first.shape), dtype=torch.bfloat16)
            _foreach_copy_(list(stacked.unbind()), [matrices[i] for i in batch])
        orthogonal = newton_schulz(stacked, steps=steps, coefficients=coefficients, form=form)
        for i, matrix in zip(
            batch, orthogonal.unbind() if len(batch) > 1 else [orthogonal], strict=True
        ):
            result[i] = matrix
    return result


def _batches(matrices: list[Tensor]) -> Iterator[list[int]]:
    """Yield the indices of matrices that are to be handled by one batched product."""
    alike: defaultdict[tuple[torch.Size, torch.device], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        alike[matrix.shape, matrix.device].append(i)
    for (shape, device), indices in alike.items():
        # Matrices so small that no product of theirs can be batched with the same bits stay alone.
        tiny = min(shape) * shape.numel() <= SIMPLE_KERNEL
        if device.type == "cpu" and (tiny or shape.numel() > _CPU_BATCH_NUMEL):
            size = 1
        else:
            limit = _CPU_MAX_BATCH_NUMEL if device.type == "cpu" else _MAX_BATCH_NUMEL
            size = max(limit // shape.numel(), 1)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
