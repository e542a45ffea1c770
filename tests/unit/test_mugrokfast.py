"""What callers rely on in MuGrokConfig and MuonGrokfast."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from cross_phase.mugrokfast import MuGrokConfig, MuonGrokfast
from cross_phase.mugrokfast.optimizer import apply_qk_clip, create_optimizer_from_phase


@pytest.fixture
def model(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 8)).to(device)


@pytest.fixture
def batch(device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(32, 64, generator=generator)
    return inputs.to(device), inputs[:, :8].mul(2).tanh().to(device)


def train(
    model: nn.Module, optimizer: MuonGrokfast, batch: tuple[Tensor, Tensor], steps: int
) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_phase_presets_hold_the_published_values() -> None:
    presets = {n: MuGrokConfig.from_phase(n) for n in (1, 3, 5, 6, 7)}
    assert {
        n: (
            c.muon_lr,
            c.fallback_lr,
            c.grokfast_lambda,
            c.qk_clip_threshold,
            c.kl_coefficient,
            c.muon_ste_mode,
        )
        for n, c in presets.items()
    } == {
        1: (1e-3, 1e-3, 0.3, 30.0, 0.0, False),
        3: (5e-4, 5e-4, 0.1, 25.0, 0.1, False),
        5: (1e-3, 1e-3, 2.0, 30.0, 0.0, True),
        6: (1e-4, 1e-4, 0.2, 30.0, 0.0, False),
        7: (5e-4, 5e-4, 0.15, 28.0, 0.05, False),
    }


def test_a_phase_without_a_preset_is_an_error_that_names_those_with_one() -> None:
    with pytest.raises(ValueError, match=r"phase 2 .*1, 3, 5, 6, 7"):
        MuGrokConfig.from_phase(2)


def test_custom_config_starts_from_the_defaults_and_checks_its_values() -> None:
    config = MuGrokConfig.custom(momentum=0.9)
    assert (config.muon_lr, config.fallback_lr, config.momentum) == (0.01, 1e-3, 0.9)
    assert (config.grokfast_alpha, config.grokfast_lambda, config.ns_steps) == (0.98, 2.0, 5)
    assert (config.nesterov, config.weight_decay) == (True, 0.0)
    with pytest.raises(ValueError, match="grokfast_alpha must be in"):
        MuGrokConfig.custom(grokfast_alpha=1.0)


def test_keywords_without_a_config_make_one(model: nn.Module) -> None:
    optimizer = MuonGrokfast(model.parameters(), muon_lr=0.02, fallback_lr=3e-4, momentum=0.8)
    assert optimizer.config == MuGrokConfig(muon_lr=0.02, fallback_lr=3e-4, momentum=0.8)
    lrs = {group["algorithm"]: group["lr"] for group in optimizer.param_groups}
    assert lrs == {"muon": 0.02, "adamw": 3e-4}


def test_a_config_wins_over_keywords(model: nn.Module) -> None:
    config = MuGrokConfig(muon_lr=0.005, weight_decay=0.1)
    optimizer = MuonGrokfast(model.parameters(), config=config, muon_lr=0.5, weight_decay=0.0)
    assert optimizer.config is config
    assert optimizer.get_muon_lr() == 0.005
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1]


def test_an_optimizer_for_a_phase_has_its_preset_in_every_group(model: nn.Module) -> None:
    optimizer = create_optimizer_from_phase(model, phase_num=3)
    assert optimizer.config == MuGrokConfig.from_phase(3)
    assert {group["algorithm"] for group in optimizer.param_groups} == {"muon", "adamw"}
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 5e-4]
    assert [group["grokfast_lambda"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert optimizer.qk_clip.threshold == 25.0


def test_training_with_a_config_fits_the_data(
    model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    config = MuGrokConfig(muon_lr=0.01, fallback_lr=0.01, grokfast_lambda=0.3)
    losses = train(model, MuonGrokfast(model.parameters(), config=config), batch, steps=30)
    assert losses[-1] < 0.1 * losses[0]


def test_state_is_empty_before_the_first_step_and_only_for_gradients_after(
    model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    frozen = model[0].weight.requires_grad_(False)
    optimizer = MuonGrokfast(model.parameters())
    assert len(optimizer.state) == 0
    assert optimizer.get_mu_norm() == 0.0
    train(model, optimizer, batch, steps=1)
    assert set(optimizer.state) == {model[0].bias, model[2].weight, model[2].bias}
    assert frozen not in optimizer.state
    assert set(optimizer.state[model[2].weight]) == {"grokfast_ema", "momentum_buffer"}
    assert set(optimizer.state[model[2].bias]) == {"grokfast_ema", "step", "exp_avg", "exp_avg_sq"}
    assert optimizer.get_mu_norm() > 0


def test_a_matrix_moves_by_an_orthogonal_update_whatever_the_gradients_scale(
    device: torch.device,
) -> None:
    generator = torch.Generator().manual_seed(2)
    grad = torch.randn(64, 256, generator=generator).to(device)
    moves = []
    for scale in (1.0, 2.0**10):
        weight = nn.Parameter(torch.zeros(64, 256, device=device))
        weight.grad = grad * scale
        MuonGrokfast([weight], muon_lr=1.0).step()
        assert torch.equal(weight.grad, grad * scale)
        moves.append(-weight.detach() / (0.2 * 256**0.5))
    singular_values = torch.linalg.svdvals(moves[0].double().cpu())
    assert singular_values.min() > 0.67
    assert singular_values.max() < 1.21
    torch.testing.assert_close(moves[0], moves[1], rtol=0, atol=0)


def test_a_restored_optimizer_and_its_scheduler_continue_bit_for_bit(
    model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    optimizer = MuonGrokfast(model.parameters(), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    train(model, optimizer, batch, steps=2)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.0005]
    twin = deepcopy(model)
    restored = MuonGrokfast(twin.parameters())
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    train(model, optimizer, batch, steps=2)
    train(twin, restored, batch, steps=2)
    assert optimizer.get_muon_lr() == restored.get_muon_lr() == 0.005
    for param, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(param, other)
        for name, value in optimizer.state[param].items():
            assert torch.equal(value, restored.state[other][name]), name


def test_clamped_scores_keep_their_mask_and_are_counted(device: torch.device) -> None:
    scores = torch.tensor([[-31.0, 0.5, 30.0], [45.0, -float("inf"), 29.0]], device=device)
    clamped, count = apply_qk_clip(scores, threshold=30.0)
    assert clamped.tolist() == [[-30.0, 0.5, 30.0], [30.0, -float("inf"), 29.0]]
    assert count == 2
    with pytest.raises(ValueError, match="threshold must be a number greater than 0"):
        apply_qk_clip(scores, threshold=0.0)
