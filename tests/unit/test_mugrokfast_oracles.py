"""MuonGrokfast against torch's own optimizers and a float64 reference."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.mugrokfast.muon import lr_ratio
from cross_phase.mugrokfast.newton_schulz import newton_schulz
from cross_phase.mugrokfast.ternary import ternarize

MATRICES = [(1, 1), (1, 32), (32, 1), (3, 5), (16, 384), (64, 32), (64, 256), (200, 100)]


def parameters(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def run(
    optimizer: torch.optim.Optimizer,
    params: list[nn.Parameter],
    steps: int = 4,
    change: Callable[[int, Tensor], Tensor] = lambda _, grad: grad,
) -> None:
    """Step with gradients that depend on the parameters and on nothing else."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for i, param in enumerate(params):
            noise = torch.randn(param.shape, generator=generator).to(param.dtype)
            param.grad = change(i, 0.1 * param.detach() + noise)
        optimizer.step()


def assert_same_bits(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> None:
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        assert torch.equal(ours_, theirs_), tuple(ours_.shape)


@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
@pytest.mark.parametrize(
    ("dtype", "nesterov"),
    # torch 2.13 normalises the momentum buffer in place for bfloat16 without Nesterov momentum:
    # there it is no reference.
    [
        (torch.float32, True),
        (torch.float32, False),
        (torch.float64, True),
        (torch.float64, False),
        (torch.bfloat16, True),
    ],
)
def test_without_the_filter_matrices_follow_torch_muon_bit_for_bit(
    dtype: torch.dtype, nesterov: bool, adjust_lr_fn: str
) -> None:
    ours, theirs = parameters(MATRICES * 3, dtype), parameters(MATRICES * 3, dtype)
    options = {"weight_decay": 0.1, "nesterov": nesterov, "adjust_lr_fn": adjust_lr_fn}
    run(MuonGrokfast(ours, muon_lr=0.02, grokfast_lambda=0.0, **options), ours)
    run(torch.optim.Muon(theirs, lr=0.02, **options), theirs)
    assert_same_bits(ours, theirs)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 80),
    columns=st.integers(1, 200),
    count=st.integers(1, 4),
    nesterov=st.booleans(),
)
def test_any_matrices_follow_torch_muon_bit_for_bit(
    rows: int, columns: int, count: int, nesterov: bool
) -> None:
    shapes: list[tuple[int, ...]] = [(rows, columns)] * count
    ours, theirs = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    optimizer = MuonGrokfast(
        ours, muon_lr=0.1, grokfast_lambda=0.0, nesterov=nesterov, adjust_lr_fn="original"
    )
    run(optimizer, ours, 2)
    run(torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0, nesterov=nesterov), theirs, 2)
    assert_same_bits(ours, theirs)


def test_bfloat16_momentum_is_not_normalised_in_place() -> None:
    param = nn.Parameter(torch.zeros(4, 4, dtype=torch.bfloat16))
    param.grad = torch.ones_like(param)
    optimizer = MuonGrokfast([param], grokfast_lambda=0.0, nesterov=False, momentum=0.5)
    optimizer.step()
    assert torch.equal(optimizer.state[param]["momentum_buffer"], torch.full_like(param, 0.5))


@pytest.mark.parametrize("fused", [True, False])
def test_without_the_filter_vectors_follow_torch_adamw_bit_for_bit(fused: bool) -> None:
    shapes: list[tuple[int, ...]] = [(), (7,), (300,)]
    ours, theirs = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    options = {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}
    optimizer = MuonGrokfast(
        [{"params": ours, "fused": fused}], fallback_lr=0.01, grokfast_lambda=0.0, **options
    )
    run(optimizer, ours, 20)
    run(torch.optim.AdamW(theirs, lr=0.01, fused=fused, **options), theirs, 20)
    assert_same_bits(ours, theirs)


def test_the_fused_kernel_is_the_default_and_rounds_like_the_loop() -> None:
    shapes: list[tuple[int, ...]] = [(), (7,), (300,)]
    ours, theirs = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    optimizer = MuonGrokfast(ours, grokfast_lambda=0.0)
    assert optimizer.param_groups[0]["fused"] is True
    run(optimizer, ours, 20)
    run(torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.0, fused=False), theirs, 20)
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=0, atol=1e-6)


def test_with_the_filter_both_follow_torch_on_filtered_gradients() -> None:
    shapes: list[tuple[int, ...]] = [(64, 32), (7, 50), (9,)]
    ours, theirs = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    emas: dict[int, Tensor] = {}

    def grokfast(i: int, grad: Tensor) -> Tensor:
        emas[i] = torch.lerp(emas[i], grad, 1 - 0.9) if i in emas else grad.clone()
        return grad.add(emas[i], alpha=1.5)

    optimizer = MuonGrokfast(
        ours,
        muon_lr=0.02,
        fallback_lr=0.01,
        grokfast_alpha=0.9,
        grokfast_lambda=1.5,
        adjust_lr_fn="original",
    )
    run(optimizer, ours)
    muon = torch.optim.Muon(theirs[:2], lr=0.02, weight_decay=0.0, adjust_lr_fn="original")
    adamw = torch.optim.AdamW(theirs[2:], lr=0.01, weight_decay=0.0, fused=True)

    muon.register_step_post_hook(lambda *_: adamw.step())
    run(muon, theirs, change=grokfast)
    assert_same_bits(ours, theirs)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    alpha=st.floats(0, 0.99),
    lamb=st.floats(0, 5),
    momentum=st.floats(0, 0.99),
    nesterov=st.booleans(),
    weight_decay=st.floats(0, 1),
)
def test_a_matrix_follows_the_formulas_in_float64(
    rows: int,
    columns: int,
    alpha: float,
    lamb: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    generator = torch.Generator().manual_seed(rows * 31 + columns)
    grads = torch.randn(3, rows, columns, generator=generator, dtype=torch.float64)
    weight = nn.Parameter(torch.ones(rows, columns, dtype=torch.float64))
    optimizer = MuonGrokfast(
        [weight],
        muon_lr=0.1,
        grokfast_alpha=alpha,
        grokfast_lambda=lamb,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
    )
    w, mean, buf = torch.ones_like(grads[0]), grads[0], torch.zeros_like(grads[0])
    for g in grads:
        weight.grad = g.clone()
        optimizer.step()
        mean = alpha * mean + (1 - alpha) * g
        g_hat = g + lamb * mean
        buf = momentum * buf + (1 - momentum) * g_hat
        u = g_hat * (1 - momentum) + momentum * buf if nesterov else buf
        orthogonal = newton_schulz(u, dtype=torch.float64)
        w = w * (1 - 0.1 * weight_decay) - 0.1 * 0.2 * max(rows, columns) ** 0.5 * orthogonal
        # Three steps, each with the error that bfloat16 leaves in the orthogonal factor.
        limit = 3 * 0.1 * 0.1 * 0.2 * max(rows, columns) ** 0.5 * orthogonal.norm()
        assert (weight.detach() - w).norm() <= limit


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_the_matrix_of_its_output_channels(
    memory_format: torch.memory_format,
) -> None:
    (conv,) = parameters([(8, 3, 3, 3)], torch.float32)
    matrix = nn.Parameter(conv.detach().flatten(1).clone())
    conv.data = conv.data.contiguous(memory_format=memory_format)
    grad = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(3))
    conv.grad = grad.contiguous(memory_format=memory_format)
    matrix.grad = grad.flatten(1)
    MuonGrokfast([conv], weight_decay=0.1).step()
    MuonGrokfast([matrix], weight_decay=0.1).step()
    assert torch.equal(conv.flatten(1), matrix)


def test_three_dimensional_weights_are_flattened_too() -> None:
    (conv,) = parameters([(6, 4, 5)], torch.float32)
    before = conv.detach().clone()
    conv.grad = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(3))
    MuonGrokfast([conv], muon_lr=0.1, grokfast_lambda=0.0, momentum=0.0).step()
    move = (before - conv.detach()).flatten(1)
    expected = 0.1 * 0.2 * 20**0.5 * newton_schulz(conv.grad.flatten(1)).float()
    torch.testing.assert_close(move, expected, rtol=0, atol=1e-6)


def test_maximize_is_the_same_with_the_gradient_turned() -> None:
    shapes: list[tuple[int, ...]] = [(8, 4), (5,)]
    ours, theirs = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    run(MuonGrokfast(ours, maximize=True), ours)
    run(MuonGrokfast(theirs), theirs, change=lambda _, grad: -grad)
    assert_same_bits(ours, theirs)


def test_learning_rate_ratios_are_the_published_ones() -> None:
    assert lr_ratio(torch.Size((400, 100)), "original") == 2.0
    assert lr_ratio(torch.Size((100, 400)), "original") == 1.0
    for shape in ((400, 100), (100, 400)):
        assert math.isclose(lr_ratio(torch.Size(shape), "match_rms_adamw"), 4.0)
    with pytest.raises(ValueError, match="adjust_lr_fn must be one of original, match_rms_adamw"):
        lr_ratio(torch.Size((2, 2)), "spectral")


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_zero_tiny_and_huge_gradients_leave_finite_weights(scale: float) -> None:
    shapes: list[tuple[int, ...]] = [(4, 8), (1, 5), (6,), ()]
    params = parameters(shapes, torch.float32)
    run(MuonGrokfast(params, grokfast_lambda=0.5), params, change=lambda _, grad: grad * scale)
    for param in params:
        assert param.isfinite().all()


def test_ternary_weights_are_those_of_the_absmean_formula() -> None:
    weight = torch.tensor([[0.1, -0.9, 0.6], [2.0, -0.2, -0.4]], dtype=torch.float64)
    gamma = 4.2 / 6
    expected = torch.tensor([[0, -1, 1], [1, 0, -1]], dtype=torch.float64) * gamma
    torch.testing.assert_close(ternarize(weight), expected)
    assert torch.equal(ternarize(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_ste_mode_moves_a_latent_weight_by_the_gradient_at_the_ternary_one() -> None:
    """The loss 0.5 * |W x - y|^2 has the gradient (Q(W) x - y) x^T at the ternary weight."""
    x, y = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.0])
    weight = nn.Parameter(torch.tensor([[0.5, -1.5, 0.2], [0.1, 0.9, -0.8]]))
    bias = nn.Parameter(torch.zeros(2))
    optimizer = MuonGrokfast(
        [weight, bias],
        muon_lr=0.1,
        grokfast_lambda=0.0,
        weight_decay=0.5,
        momentum=0.0,
        muon_ste_mode=True,
    )
    latent, used = weight.detach().clone(), weight.detach().clone()
    for _ in range(4):
        optimizer.zero_grad()
        (0.5 * (weight @ x + bias - y).square().sum()).backward()
        with torch.no_grad():
            grad = torch.outer(used @ x + bias - y, x)
        optimizer.step()
        step = 0.1 * 0.2 * 3**0.5 * newton_schulz(grad).float()
        latent = latent * (1 - 0.1 * 0.5) - step
        used = ternarize(latent)
        torch.testing.assert_close(weight.detach(), used)
        assert weight.unique().numel() <= 3
    torch.testing.assert_close(optimizer.state[weight]["latent_weight"], latent)
    assert "latent_weight" not in optimizer.state[bias]
