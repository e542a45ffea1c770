"""The Newton-Schulz iteration against a singular value decomposition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cross_phase.mugrokfast.newton_schulz import COEFFICIENTS, newton_schulz, orthogonalize

sizes = st.integers(1, 40)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference(matrix: Tensor, steps: int = 5) -> Tensor:
    """The iteration acts on the singular values alone, by an odd polynomial."""
    a, b, c = COEFFICIENTS
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vh


@pytest.mark.parametrize("shape", [(32, 64), (64, 256), (256, 64), (128, 512), (24, 1000)])
def test_oblong_matrices_become_nearly_orthogonal(shape: tuple[int, int]) -> None:
    values = torch.linalg.svdvals(newton_schulz(gaussian(*shape)).double())
    assert values.min() > 0.67
    assert values.max() < 1.21


def test_square_matrices_stay_bounded_and_mostly_reach_one() -> None:
    values = torch.linalg.svdvals(newton_schulz(gaussian(256, 256)).double())
    assert values.max() < 1.25
    assert 0.67 < values.median() < 1.21


@settings(max_examples=40, deadline=None)
@given(rows=sizes, columns=sizes, seed=st.integers(0, 2**31))
def test_in_float64_it_is_the_polynomial_of_the_singular_values(
    rows: int, columns: int, seed: int
) -> None:
    matrix = gaussian(rows, columns, seed=seed).double()
    result = newton_schulz(matrix, dtype=torch.float64)
    torch.testing.assert_close(result, reference(matrix), rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows=sizes, columns=sizes, seed=st.integers(0, 2**31))
def test_bfloat16_stays_near_the_float64_polynomial(rows: int, columns: int, seed: int) -> None:
    matrix = gaussian(rows, columns, seed=seed)
    error = newton_schulz(matrix).double() - reference(matrix)
    # bfloat16 has 8 bits; the slope at zero, 3.4445 ** 5, multiplies what they lose.
    assert error.norm() <= 0.1 * reference(matrix).norm()


@settings(max_examples=30, deadline=None)
@given(rows=sizes, columns=sizes, seed=st.integers(0, 2**31))
def test_transposing_commutes_with_the_iteration(rows: int, columns: int, seed: int) -> None:
    matrix = gaussian(rows, columns, seed=seed).double()
    torch.testing.assert_close(
        newton_schulz(matrix.T, dtype=torch.float64),
        newton_schulz(matrix, dtype=torch.float64).T,
        rtol=0,
        atol=1e-9,
    )


@settings(max_examples=30, deadline=None)
@given(exponent=st.integers(-20, 55), seed=st.integers(0, 2**31))
def test_the_scale_of_the_gradient_does_not_matter(exponent: int, seed: int) -> None:
    matrix = gaussian(8, 24, seed=seed)
    assert torch.equal(newton_schulz(matrix * 2.0**exponent), newton_schulz(matrix))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_vanishing_and_overflowing_norms_give_zeros(scale: float) -> None:
    result = newton_schulz(scale * torch.ones(8, 16))
    assert result.abs().max() < 1e-6


def test_a_nan_is_not_hidden() -> None:
    matrix = gaussian(4, 6)
    matrix[1, 2] = float("nan")
    assert newton_schulz(matrix).isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_input_is_not_modified(dtype: torch.dtype) -> None:
    matrix = gaussian(16, 8).to(dtype)
    kept = matrix.clone()
    newton_schulz(matrix)
    assert torch.equal(matrix, kept)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5)])
def test_other_dimensions_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="flatten other tensors first"):
        newton_schulz(torch.zeros(shape))


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(
        st.sampled_from([(1, 9), (9, 1), (4, 4), (17, 31), (64, 32), (96, 100), (128, 160)]),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 2**31),
)
def test_a_batch_gives_the_bits_of_each_matrix_alone(
    shapes: list[tuple[int, int]], seed: int
) -> None:
    matrices = [gaussian(*shape, seed=seed + i) for i, shape in enumerate(shapes * 2)]
    for matrix, result in zip(matrices, orthogonalize(matrices), strict=True):
        assert torch.equal(result, newton_schulz(matrix))
