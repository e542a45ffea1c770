"""QK-clip on whole models: the attention of torch and of transformers, watched in one call."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cross_phase.mugrokfast import MuonGrokfast

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 32,
    "max_position_embeddings": 16,
}


def gpt2() -> nn.Module:
    config = GPT2Config(
        n_layer=2,
        n_head=4,
        n_embd=16,
        n_positions=16,
        vocab_size=32,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    return GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = LlamaConfig(
        **SIZES, intermediate_size=24, num_key_value_heads=2, pad_token_id=0, attention_bias=True
    )
    return LlamaForCausalLM(config)


def neox() -> nn.Module:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, intermediate_size=24, rotary_pct=0.5))


def batch(padded: bool = True) -> tuple[Tensor, Tensor | None]:
    """Two texts, the second one padded at its end; without padding there is no mask at all."""
    ids = torch.randint(1, 32, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return ids, mask if padded else None


def logits_of(model: nn.Module, padded: bool) -> list[Tensor]:
    """Each head's largest logit (H,), from what each layer passes to the attention function."""
    largest: list[Tensor] = []
    ids, mask = batch(padded)
    name = model.config._attn_implementation
    original = ALL_ATTENTION_FUNCTIONS[name]

    def look(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        given: Tensor,
        **kwargs: object,
    ) -> object:
        key_ = key.repeat_interleave(query.size(1) // key.size(1), dim=1)
        scores = query @ key_.mT * kwargs["scaling"]
        allowed = torch.ones(query.size(2), query.size(2)).tril().bool()
        if mask is not None:
            allowed = allowed & mask.bool()[:, None, None, :]
        largest.append(scores.masked_fill(~allowed, -math.inf).amax(dim=(0, 2, 3)).detach())
        return original(module, query, key, value, given, **kwargs)

    ALL_ATTENTION_FUNCTIONS[name] = look
    try:
        model(input_ids=ids, attention_mask=mask)
    finally:
        ALL_ATTENTION_FUNCTIONS[name] = original
    return largest


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("build", [gpt2, llama, neox])
def test_after_one_step_the_logits_of_a_transformers_model_are_bounded(
    build: Callable[[], nn.Module], implementation: str, padded: bool
) -> None:
    torch.manual_seed(0)
    model = build().train()
    with torch.no_grad():
        for param in model.parameters():
            if param.ndim == 2:
                param.mul_(10)
    expected = logits_of(model, padded)
    model.set_attn_implementation(implementation)
    # Between two heads, so that rounding decides about none.
    threshold = 1.01 * torch.cat(expected).median().item()
    optimizer = MuonGrokfast(model, muon_lr=0.0, fallback_lr=0.0, qk_clip_threshold=threshold)
    optimizer.qk_clip.watch_model(model)
    ids, mask = batch(padded)
    model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
    optimizer.step()
    names = list(optimizer.qk_clip.clip_counts)
    assert len(names) == 2
    for name, before in zip(names, expected, strict=True):
        torch.testing.assert_close(
            torch.tensor(optimizer.qk_clip.max_logits[name]), before, rtol=1e-5, atol=1e-5
        )
        assert optimizer.qk_clip.clip_counts[name] == (before > threshold).long().tolist()
    optimizer.qk_clip.remove()
    model.set_attn_implementation("sdpa")
    # The first layer's inputs are what they were, so its logits are scaled and nothing else.
    after = logits_of(model, padded)[0]
    torch.testing.assert_close(after, expected[0].clamp(max=threshold), rtol=1e-4, atol=1e-5)


def test_removing_puts_the_attention_functions_back() -> None:
    before = {name: ALL_ATTENTION_FUNCTIONS.get(name) for name in ("sdpa", "eager")}
    models = [llama(), gpt2()]
    optimizers = [MuonGrokfast(model) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        optimizer.qk_clip.watch_model(model)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before["sdpa"]
    optimizers[0].qk_clip.remove()
    ids, mask = batch()
    models[1].train()(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
    optimizers[1].step()
    assert len(optimizers[1].qk_clip.max_logits) == 2
    optimizers[1].qk_clip.remove()
    assert {name: ALL_ATTENTION_FUNCTIONS.get(name) for name in ("sdpa", "eager")} == before


def test_other_models_are_not_seen_and_evaluation_does_not_count() -> None:
    watched, other = llama(), llama()
    optimizer = MuonGrokfast(watched)
    optimizer.qk_clip.watch_model(watched)
    ids, _ = batch()
    other.train()(input_ids=ids)
    watched.eval()(input_ids=ids)
    optimizer.step()
    assert optimizer.qk_clip.max_logits == {}
    optimizer.qk_clip.remove()


def test_layers_that_cannot_be_clipped_are_named_with_the_reason() -> None:
    qwen = Qwen3ForCausalLM(
        Qwen3Config(**SIZES, intermediate_size=24, num_key_value_heads=2, head_dim=4)
    )
    hook = MuonGrokfast(qwen).qk_clip
    with pytest.raises(ValueError, match=r"self_attn: Qwen3Attention normalises queries and keys"):
        hook.watch_model(qwen)
    with pytest.raises(ValueError, match="Linear has no attention layer that can be found"):
        hook.watch_model(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="add_bias_kv=True adds a key"):
        hook.watch_model(nn.MultiheadAttention(8, 2, add_bias_kv=True))


def attention_logits(attention: nn.MultiheadAttention, query: Tensor, key: Tensor) -> Tensor:
    """Logits (B, H, T, S), from the weights alone."""
    width = attention.embed_dim
    if attention.in_proj_weight is None:
        weights = [attention.q_proj_weight, attention.k_proj_weight]
    else:
        weights = list(attention.in_proj_weight.split(width)[:2])
    biases = [None, None]
    if attention.in_proj_bias is not None:
        biases = list(attention.in_proj_bias.split(width)[:2])
    heads = [
        F.linear(x, w, b).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for x, w, b in zip((query, key), weights, biases, strict=True)
    ]
    return heads[0] @ heads[1].mT / math.sqrt(attention.head_dim)


@pytest.mark.parametrize("mask", ["none", "causal", "float", "padding", "per head"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kdim", [8, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_after_one_step_the_logits_of_multihead_attention_are_bounded(
    bias: bool, kdim: int, batch_first: bool, mask: str
) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(
        8, 2, bias=bias, kdim=kdim, vdim=kdim, batch_first=batch_first, dtype=torch.float64
    )
    if bias:
        nn.init.normal_(attention.in_proj_bias)
    query = torch.randn(3, 5, 8, dtype=torch.float64)
    key = torch.randn(3, 5, kdim, dtype=torch.float64)
    causal = torch.ones(5, 5).triu(1).bool()
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    per_head = torch.zeros(3, 2, 5, 5, dtype=torch.bool)
    per_head[:, 1] = causal
    arguments: dict[str, Tensor] = {
        "none": {},
        "causal": {"attn_mask": causal},
        "float": {"attn_mask": torch.zeros(5, 5, dtype=torch.float64).masked_fill(causal, -1e9)},
        "padding": {"key_padding_mask": padding, "attn_mask": causal},
        "per head": {"attn_mask": per_head.view(6, 5, 5)},
    }[mask]
    masked = {
        "none": torch.zeros(1, 1, 5, 5).bool(),
        "causal": causal[None, None],
        "float": causal[None, None],
        "padding": causal | padding[:, None, None, :],
        "per head": per_head,
    }[mask]
    before = attention_logits(attention, query, key)
    largest = before.masked_fill(masked, -math.inf).amax(dim=(0, 2, 3))
    threshold = 0.4 * largest.min().item()
    optimizer = MuonGrokfast(attention, muon_lr=0.0, fallback_lr=0.0, qk_clip_threshold=threshold)
    optimizer.qk_clip.watch_model(attention)
    inputs = [x if batch_first else x.transpose(0, 1) for x in (query, key, key)]
    attention(*inputs, **arguments)[0].sum().backward()
    optimizer.step()
    assert optimizer.qk_clip.max_logits["MultiheadAttention"] == pytest.approx(largest.tolist())
    after = attention_logits(attention, query, key)
    torch.testing.assert_close(after, before * (threshold / largest)[:, None, None])
    assert optimizer.qk_clip.clip_counts == {"MultiheadAttention": [1, 1]}


def test_values_of_a_fused_projection_stay_as_they_are() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    optimizer = MuonGrokfast(layer, muon_lr=0.0, fallback_lr=0.0, qk_clip_threshold=1e-3)
    optimizer.qk_clip.watch_model(layer)
    values = layer.self_attn.in_proj_weight[16:].detach().clone()
    queries = layer.self_attn.in_proj_weight[:8].detach().clone()
    layer(torch.randn(2, 5, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(layer.self_attn.in_proj_weight[16:], values)
    assert not torch.equal(layer.self_attn.in_proj_weight[:8], queries)
    assert optimizer.get_qk_clip_count() == 2


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_one_module_can_hold_queries_keys_and_values(kv_heads: int) -> None:
    torch.manual_seed(0)
    fused = nn.Linear(12, (4 + 2 * kv_heads) * 3)
    optimizer = MuonGrokfast(fused, muon_lr=0.0, fallback_lr=0.0, qk_clip_threshold=0.05)
    optimizer.qk_clip.watch("a", fused, fused, num_heads=4, num_key_value_heads=kv_heads)
    x = torch.randn(2, 5, 12)

    def logits() -> Tensor:
        query, key, _ = F.linear(x, fused.weight, fused.bias).split(
            [12, 3 * kv_heads, 3 * kv_heads], dim=-1
        )
        query = query.view(2, 5, 4, 3).transpose(1, 2)
        key = key.view(2, 5, kv_heads, 3).transpose(1, 2).repeat_interleave(4 // kv_heads, dim=1)
        return (query @ key.mT / 3**0.5).amax(dim=(0, 2, 3))

    before = logits()
    fused(x).sum().backward()
    optimizer.step()
    torch.testing.assert_close(logits(), before.clamp(max=0.05))
    with pytest.raises(ValueError, match="features cannot be split into 5 heads of queries"):
        optimizer.qk_clip.watch("b", fused, fused, num_heads=5)


def test_a_projection_of_another_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="Linear or transformers' Conv1D, got Identity"):
        MuonGrokfast(nn.Linear(2, 2)).qk_clip.watch(
            "a", nn.Identity(), nn.Linear(2, 2), num_heads=1
        )
