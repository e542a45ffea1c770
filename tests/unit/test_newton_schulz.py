"""The Newton-Schulz iteration against a singular value decomposition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cross_phase.mugrokfast.newton_schulz import COEFFICIENTS, newton_schulz, orthogonalize
from cross_phase.mugrokfast.symmetric import addmm, gram, matmul, symmetric_addmm

sizes = st.integers(1, 40)
# Both sides of what the CPU batches, and of what its simple kernel multiplies.
SMALL = (
    *((1, 9), (9, 1), (2, 33), (4, 4), (8, 96), (16, 16), (16, 17), (17, 31), (64, 32)),
    *((96, 100), (128, 160), (256, 256)),
)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference(matrix: Tensor, coefficients: str = "muon", steps: int = 5) -> Tensor:
    """The iteration acts on the singular values alone, by odd polynomials."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm() / {"muon": 1.0, "polar_express": 1.02}[coefficients]
    known = COEFFICIENTS[coefficients]
    for k in range(steps):
        a, b, c = known[min(k, len(known) - 1)]
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vh


def one_by_one(matrix: Tensor) -> Tensor:
    """The iteration as torch.optim.Muon writes it: no blocks, no batches."""
    x = matrix.bfloat16()
    x = x.T if matrix.size(0) > matrix.size(1) else x
    x = x / x.norm().clamp(min=1e-7)
    ((a, b, c),) = COEFFICIENTS["muon"]
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.size(0) > matrix.size(1) else x


@pytest.mark.parametrize("shape", [(32, 64), (64, 256), (256, 64), (128, 512), (24, 1000)])
def test_oblong_matrices_become_nearly_orthogonal(shape: tuple[int, int]) -> None:
    values = torch.linalg.svdvals(newton_schulz(gaussian(*shape)).double())
    assert values.min() > 0.67
    assert values.max() < 1.21


def test_square_matrices_stay_bounded_and_mostly_reach_one() -> None:
    values = torch.linalg.svdvals(newton_schulz(gaussian(256, 256)).double())
    assert values.max() < 1.25
    assert 0.67 < values.median() < 1.21


@pytest.mark.parametrize("form", ["standard", "gram"])
@pytest.mark.parametrize("coefficients", ["muon", "polar_express"])
@settings(max_examples=25, deadline=None)
@given(rows=sizes, columns=st.integers(1, 100), steps=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_in_float64_each_variant_is_the_polynomial_of_the_singular_values(
    coefficients: str, form: str, rows: int, columns: int, steps: int, seed: int
) -> None:
    matrix = gaussian(rows, columns, seed=seed).double()
    for oriented in (matrix, matrix.T):
        result = newton_schulz(
            oriented, dtype=torch.float64, coefficients=coefficients, form=form, steps=steps
        )
        expected = reference(oriented, coefficients, steps)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", ["standard", "gram"])
def test_polar_express_ends_nearer_to_one(form: str) -> None:
    for shape in ((64, 256), (128, 512)):
        orthogonal = newton_schulz(gaussian(*shape), coefficients="polar_express", form=form)
        values = torch.linalg.svdvals(orthogonal.double())
        assert values.min() > 0.84
        assert values.max() < 1.16


@pytest.mark.parametrize("shape", [(64, 256), (256, 64), (100, 200), (17, 600)])
def test_the_gram_form_rounds_in_bfloat16_nearly_as_well(shape: tuple[int, int]) -> None:
    matrix = gaussian(*shape)
    exact = reference(matrix)
    errors = [
        (newton_schulz(matrix, form=form).double() - exact).norm() / exact.norm()
        for form in ("standard", "gram")
    ]
    assert errors[0] < 0.03
    assert errors[1] < 0.06
    values = torch.linalg.svdvals(newton_schulz(matrix, form="gram").double())
    assert values.min() > 0.64
    assert values.max() < 1.25


def test_the_gram_form_stays_bounded_where_most_singular_values_vanish() -> None:
    low_rank = gaussian(64, 3) @ gaussian(3, 400, seed=1) + 1e-4 * gaussian(64, 400, seed=2)
    for coefficients in ("muon", "polar_express"):
        result = newton_schulz(low_rank, coefficients=coefficients, form="gram")
        assert torch.linalg.svdvals(result.double()).max() < 1.3


@pytest.mark.parametrize(("name", "value"), [("coefficients", "cubic"), ("form", "fast")])
def test_an_unknown_variant_is_an_error_that_names_the_known_ones(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be one of .*, got '{value}'"):
        newton_schulz(torch.ones(2, 2), **{name: value})


@pytest.mark.parametrize(
    "shape",
    [
        (448, 448),
        (500, 900),
        (512, 512),
        (640, 640),
        (641, 700),
        (1000, 660),
        (768, 768),
        (640, 1500),
    ],
)
def test_large_matrices_in_blocks_have_the_bits_of_whole_products(shape: tuple[int, int]) -> None:
    matrix = gaussian(*shape)
    assert torch.equal(newton_schulz(matrix), one_by_one(matrix))


@pytest.mark.parametrize("shape", [(16, 16), (12, 28), (8, 64)])
def test_tiny_products_keep_their_bits_in_a_batch(shape: tuple[int, int]) -> None:
    """Among 2000 of them some differ where torch multiplies the batch as one."""
    x = gaussian(2000, *shape).bfloat16()
    square = torch.stack([matrix @ matrix.T for matrix in x])
    assert torch.equal(matmul(x, x.mT), square)
    expected = [torch.addmm(s, s, s, beta=-0.5, alpha=0.25) for s in square]
    result = addmm(square, square, square, beta=-0.5, alpha=0.25)
    assert torch.equal(result, torch.stack(expected))


@pytest.mark.parametrize("rows", [640, 700, 1000])
def test_products_in_blocks_are_whole_symmetric_and_exact(rows: int) -> None:
    x = gaussian(rows, 530).bfloat16()
    square = gram(x)
    assert torch.equal(square, square.T)
    assert torch.equal(square, x @ x.T)
    result = symmetric_addmm(square, square, square, beta=-0.5, alpha=0.25)
    assert torch.equal(result, torch.addmm(square, square, square, beta=-0.5, alpha=0.25))


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


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(
        st.sampled_from(SMALL),
        min_size=1,
        max_size=4,
    ),
    count=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_a_batch_gives_the_bits_of_each_matrix_alone(
    shapes: list[tuple[int, int]], count: int, seed: int
) -> None:
    matrices = [gaussian(*shape, seed=seed + i) for i, shape in enumerate(shapes * count)]
    for matrix, result in zip(matrices, orthogonalize(matrices), strict=True):
        assert torch.equal(result, one_by_one(matrix)), tuple(matrix.shape)
