"""QK-clip against attention logits that are computed again, explicitly."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.mugrokfast.qk_clip import (
    QKClipHook,
    apply_qk_clip,
    max_attention_logits,
    qk_clip_factors,
    scale_heads_,
)


class Attention(nn.Module):
    def __init__(self, heads: int, kv_heads: int, width: int = 4) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads, width
        self.q_proj = nn.Linear(12, heads * width)
        self.k_proj = nn.Linear(12, kv_heads * width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, H, T, T), head by head."""
        query, key = self.q_proj(inputs), self.k_proj(inputs)
        group = self.heads // self.kv_heads
        return torch.stack(
            [
                query[..., h * self.width : (h + 1) * self.width]
                @ key[..., h // group * self.width : (h // group + 1) * self.width].mT
                / math.sqrt(self.width)
                for h in range(self.heads)
            ],
            dim=1,
        )


def attention_and_inputs(heads: int, kv_heads: int, seed: int = 0) -> tuple[Attention, Tensor]:
    torch.manual_seed(seed)
    attention = Attention(heads, kv_heads).double()
    with torch.no_grad():
        # Heads of very different sizes, some of them over the threshold.
        scale_heads_(attention.q_proj.weight, torch.logspace(-0.5, 1.5, heads))
    return attention, torch.randn(2, 7, 12, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (3, 1)]),
    threshold=st.floats(0.5, 20),
    seed=st.integers(0, 2**31),
)
def test_after_a_step_each_heads_largest_logit_is_at_most_the_threshold(
    sizes: tuple[int, int], threshold: float, seed: int
) -> None:
    attention, inputs = attention_and_inputs(*sizes, seed=seed)
    optimizer = MuonGrokfast(attention, muon_lr=0.0, fallback_lr=0.0, qk_clip_threshold=threshold)
    optimizer.qk_clip.watch(
        "attention",
        attention.q_proj,
        attention.k_proj,
        num_heads=sizes[0],
        num_key_value_heads=sizes[1],
    )
    before = attention(inputs)
    before.sum().backward()
    optimizer.step()
    expected = before.amax(dim=(0, 2, 3))
    # Whole logits are scaled, those of heads under the threshold by 1.
    factor = (threshold / expected).where(expected > threshold, 1.0)
    attention.eval()
    torch.testing.assert_close(attention(inputs), before * factor[:, None, None])
    over = (expected > threshold).sum().item()
    assert optimizer.get_qk_clip_count() == over
    optimizer.reset_qk_clip_count()
    assert optimizer.get_qk_clip_count() == 0


def test_multi_head_factors_are_the_published_square_roots() -> None:
    query, key = qk_clip_factors(torch.tensor([120.0, 30.0, 7.0]), 30.0, 3)
    assert query.tolist() == key.tolist() == [0.5, 1.0, 1.0]


def test_a_shared_key_head_takes_the_root_of_its_groups_smallest_factor() -> None:
    query, key = qk_clip_factors(torch.tensor([120.0, 30.0, 7.0, 7.0]), 30.0, 2)
    assert key.tolist() == [0.5, 1.0]
    assert query.tolist() == [0.5, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [3, 1030])
def test_the_largest_logits_are_those_of_the_whole_product(length: int, is_causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, length, 8, generator=generator)
    key = torch.randn(2, 2, length, 8, generator=generator)
    logits = query @ key.repeat_interleave(2, dim=1).mT / 8**0.5
    if is_causal:
        logits = logits.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    found = max_attention_logits(query, key, is_causal=is_causal)
    torch.testing.assert_close(found, logits.amax(dim=(0, 2, 3)))


@pytest.mark.parametrize(
    ("query", "key", "causal", "message"),
    [
        ((2, 3, 4, 5), (2, 2, 4, 5), False, "H a multiple of H_kv"),
        ((3, 4, 5), (3, 4, 5), False, "H a multiple of H_kv"),
        ((2, 2, 4, 5), (2, 2, 6, 5), True, "as many queries as keys, got 4 and 6"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(
    query: tuple[int, ...], key: tuple[int, ...], causal: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        max_attention_logits(torch.zeros(query), torch.zeros(key), is_causal=causal)


def test_the_maxima_of_accumulated_forward_passes_count_together() -> None:
    attention, inputs = attention_and_inputs(2, 2)
    hook = QKClipHook(threshold=1.0)
    hook.watch("a", attention.q_proj, attention.k_proj, num_heads=2)
    optimizer = torch.optim.SGD(attention.parameters(), lr=0.0)
    optimizer.register_step_post_hook(hook)
    large = attention(inputs).amax(dim=(0, 2, 3))
    attention(0.1 * inputs).sum().backward()
    optimizer.step()
    after = attention(inputs).amax(dim=(0, 2, 3))
    torch.testing.assert_close(after, large.clamp(max=1.0))


def test_evaluation_does_not_count() -> None:
    attention, inputs = attention_and_inputs(2, 2)
    hook = QKClipHook(threshold=1e-3)
    hook.watch("a", attention.q_proj, attention.k_proj, num_heads=2)
    attention.eval()
    before = attention(inputs)
    hook(torch.optim.SGD(attention.parameters()), (), {})
    assert torch.equal(attention(inputs), before)


def test_a_skipped_step_can_be_forgotten() -> None:
    attention, inputs = attention_and_inputs(2, 2)
    hook = QKClipHook(threshold=1e-3)
    hook.watch("a", attention.q_proj, attention.k_proj, num_heads=2)
    before = attention(inputs)
    hook.clear()
    hook(torch.optim.SGD(attention.parameters()), (), {})
    assert torch.equal(attention(inputs), before)
    hook.remove()
    attention(inputs)
    assert hook.clip_counts == {}


def test_reported_logits_of_a_fused_projection_scale_its_rows() -> None:
    torch.manual_seed(0)
    fused, inputs = nn.Linear(12, 24), torch.randn(1, 5, 12)

    def logits() -> Tensor:
        query, key, _ = fused(inputs).view(1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        return max_attention_logits(query, key)

    before = logits()
    factors = qk_clip_factors(before, 0.05, 2)
    for part, factor in zip((slice(0, 8), slice(8, 16)), factors, strict=True):
        scale_heads_(fused.weight[part], factor)
        scale_heads_(fused.bias[part], factor)
    torch.testing.assert_close(logits(), before.clamp(max=0.05))


def test_logits_can_be_reported_where_queries_are_rotated() -> None:
    attention, inputs = attention_and_inputs(2, 2)
    hook = QKClipHook(threshold=2.0)
    hook.watch("a", attention.q_proj, attention.k_proj, num_heads=2, observe_forward=False)
    before = attention(inputs)
    hook.observe("a", torch.tensor([8.0, 1.0]))
    hook(torch.optim.SGD(attention.parameters()), (), {})
    torch.testing.assert_close(attention(inputs)[:, 0], before[:, 0] / 4)
    torch.testing.assert_close(attention(inputs)[:, 1], before[:, 1])
    assert hook.clip_counts == {"a": [1, 0]}


def test_the_latent_weight_of_a_ternary_one_is_scaled_too() -> None:
    attention, inputs = attention_and_inputs(2, 2)
    optimizer = MuonGrokfast(attention, muon_lr=0.0, muon_ste_mode=True, qk_clip_threshold=1.0)
    optimizer.qk_clip.watch("a", attention.q_proj, attention.k_proj, num_heads=2)
    latent = attention.q_proj.weight.detach().clone()
    attention(inputs).sum().backward()
    optimizer.qk_clip.clear()
    optimizer.qk_clip.observe("a", torch.tensor([4.0, 0.5]))
    optimizer.step()
    latent[:4] /= 2
    torch.testing.assert_close(optimizer.state[attention.q_proj.weight]["latent_weight"], latent)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error_that_names_the_layer(value: float) -> None:
    attention, _ = attention_and_inputs(2, 2)
    hook = QKClipHook()
    hook.watch("layers.3", attention.q_proj, attention.k_proj, num_heads=2)
    weight = attention.q_proj.weight.detach().clone()
    hook.observe("layers.3", torch.tensor([100.0, value]))
    with pytest.raises(ValueError, match=r"layers\.3: attention logits are not finite"):
        hook(torch.optim.SGD(attention.parameters()), (), {})
    assert torch.equal(attention.q_proj.weight, weight)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "message"),
    [
        (3, 2, "num_heads .3. must be a multiple of num_key_value_heads .2."),
        (5, 5, "cannot be split into 5 and 5 heads"),
        (2, 1, "heads of one width"),
    ],
)
def test_heads_that_do_not_fit_are_an_error(heads: int, kv_heads: int, message: str) -> None:
    attention = Attention(2, 2)
    with pytest.raises(ValueError, match=message):
        QKClipHook().watch(
            "a",
            attention.q_proj,
            attention.k_proj,
            num_heads=heads,
            num_key_value_heads=kv_heads,
        )


def test_layers_have_one_name_each_and_are_known() -> None:
    attention = Attention(2, 2)
    hook = QKClipHook()
    hook.watch("a", attention.q_proj, attention.k_proj, num_heads=2)
    with pytest.raises(ValueError, match="'a' is watched already"):
        hook.watch("a", attention.q_proj, attention.k_proj, num_heads=2)
    with pytest.raises(KeyError, match="no layer 'b' is watched"):
        hook.observe("b", torch.zeros(2))
    with pytest.raises(ValueError, match=r"each of 2 heads, got the shape \(3,\)"):
        hook.observe("a", torch.zeros(3))


def test_masked_scores_stay_masked_in_every_type() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        masked = torch.tensor([-math.inf, torch.finfo(dtype).min], dtype=dtype)
        clamped, count = apply_qk_clip(masked, 30.0)
        assert torch.equal(clamped, masked)
        assert count == 0
    scores = torch.tensor([40.0, 1.0], requires_grad=True)
    apply_qk_clip(scores, 30.0)[0].sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0, 1.0]
