"""Many continuations of one sequence in one forward pass: who sees what.

Branches are continuations of a sequence's prefixes: branch n is attached to the token at one
position and goes on from there. At step s all N branches of a sequence are fed together, as N
tokens. Branch n's token sees the sequence up to where the branch is attached, and the branch's own
earlier tokens, but no other branch: the diagonal mask of Quiet-STaR (arXiv 2403.09629, section
4.2). So the keys and values of the sequence are there once, however many branches it has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .base_model import BaseModel, is_hugging_face_model

# Families that take position_ids and a 4-D mask, and whose attention goes through the interface of
# transformers: each of them is tested.
BRANCHING_FAMILIES = frozenset(
    {
        "gemma",
        "gemma2",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
        "starcoder2",
    }
)
ATTENTION_NAME = "phase3_quietstar_branches"


def supports_branches(base_model: BaseModel) -> bool:
    """Whether the model's family can run branches of one sequence in one pass."""
    if not is_hugging_face_model(base_model):
        return False
    config: Any = base_model.config  # type: ignore[attr-defined]
    kinds = getattr(config, "layer_types", None) or []
    return (
        config.model_type in BRANCHING_FAMILIES
        and not getattr(config, "add_cross_attention", False)
        and not getattr(config, "reorder_and_upcast_attn", False)
        and set(kinds) <= {"full_attention", "sliding_attention"}
    )


@dataclass(frozen=True)
class BranchMask:
    """What the tokens of N branches of each of B sequences see of their sequence.

    Attributes:
        visible: ``(B, N, P)`` booleans, whether branch n may see token p of its sequence.
        prefix_positions: ``(B, P)`` int64, position ids of the sequence.
        first_positions: ``(B, N)`` int64, position id of each branch's first token.
    """

    visible: Tensor
    prefix_positions: Tensor
    first_positions: Tensor

    def position_ids(self, step: int | Tensor) -> Tensor:
        """Position ids ``(B, N)`` of the tokens fed at a step."""
        return self.first_positions + step

    def additive(
        self, base_model: BaseModel, step: int | Tensor, num_steps: int, dtype: torch.dtype
    ) -> Tensor | dict[str, Tensor]:
        """The mask of the tokens fed at ``step``, for ``split_attention``.

        Args:
            base_model: for the windows of its layers.
            step: int, or a scalar tensor that lives on the device.
            num_steps: steps that the keys have room for, at least ``step + 1``.
            dtype: of the mask.

        Returns:
            ``(B, 1, N, P + num_steps)``, 0 or a very low number: first the sequence's
            tokens, then the branch's own of each step. One per kind of layer where the model mixes
            kinds.
        """
        own = torch.arange(num_steps, device=self.visible.device) <= step
        own = own.expand(*self.visible.shape[:2], -1)
        query = self.position_ids(step).unsqueeze(-1)
        keys = torch.cat(
            [
                self.prefix_positions.unsqueeze(1).expand_as(self.visible),
                self.first_positions.unsqueeze(-1)
                + torch.arange(num_steps, device=self.visible.device),
            ],
            dim=-1,
        )
        full = torch.cat([self.visible, own], dim=-1)
        return per_layer_kind(base_model, full, query - keys, dtype)


def per_layer_kind(
    base_model: BaseModel, visible: Tensor, distance: Tensor, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """Additive masks from booleans, narrowed to the window of layers that have one.

    Args:
        base_model: of a branching family.
        visible: ``(B, Q, S)`` booleans.
        distance: as ``visible``, the query's position less the key's.
        dtype: of the masks.

    Returns:
        ``(B, 1, Q, S)``, or one per kind of layer where the model mixes kinds.
    """
    config: Any = base_model.config  # type: ignore[attr-defined]
    window: int | None = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])
    if not kinds:
        kinds = {"full_attention" if window is None else "sliding_attention"}
    masks: dict[str, Tensor] = {}
    for kind in sorted(kinds):
        seen = visible
        if kind == "sliding_attention" and window is not None:
            seen = visible & (distance < window)
        masks[kind] = _additive(seen, dtype)
    return masks if len(masks) > 1 else next(iter(masks.values()))


def split_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    prefix_length: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one token per branch: to its sequence, and to its own earlier tokens.

    A dense mask would have every branch look at all tokens of all others to see a few of them:
    work that grows with the square of the number of branches, where this grows with it.

    Args:
        module: the attention layer.
        query: ``(B, h, N, d)``.
        key: ``(B, g, P + S * N, d)`` with g a divisor of h: the sequence, then N tokens a step.
        value: as ``key``.
        attention_mask: ``(B, 1, N, P + S)``, additive.
        prefix_length: P.
        scaling: of the scores; by default ``d ** -0.5``.
        dropout: on the probabilities.
        softcap: c in ``c * tanh(score / c)``, for families that cap their scores.

    Returns:
        ``(B, N, h, d)``, and None for the probabilities.
    """
    batch_size, heads, branches, head_dim = query.shape
    groups = key.shape[1]
    scaling = head_dim**-0.5 if scaling is None else scaling
    # (B, g, h / g * N, d): the query heads that share keys lie side by side.
    grouped = query.reshape(batch_size, groups, -1, head_dim) * scaling
    prefix_key, own_key = _split(key, prefix_length, branches)
    prefix_value, own_value = _split(value, prefix_length, branches)
    shape = (batch_size, groups, heads // groups, branches, -1)
    to_prefix = (grouped @ prefix_key.mT).view(shape)
    to_own = torch.einsum("bgrnd,bgsnd->bgrns", grouped.view(shape), own_key)
    scores = torch.cat([to_prefix, to_own], dim=-1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + attention_mask.unsqueeze(1)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    probs = scores.softmax(dim=-1, dtype=dtype).to(value.dtype)
    if dropout:
        probs = nn.functional.dropout(probs, p=dropout, training=module.training)
    of_prefix, of_own = probs[..., :prefix_length], probs[..., prefix_length:]
    from_prefix = of_prefix.reshape(batch_size, groups, -1, prefix_length) @ prefix_value
    from_own = torch.einsum("bgrns,bgsnd->bgrnd", of_own, own_value)
    output = from_prefix.view(shape) + from_own
    return output.reshape(query.shape).transpose(1, 2).contiguous(), None


@contextmanager
def branch_attention(base_model: BaseModel) -> Iterator[None]:
    """Has the model's layers attend with ``split_attention`` while the context lasts.

    The choice of attention is part of a Hugging Face model's configuration, so meanwhile the model
    must not be used from another thread. Compiled code was compiled for the other choice, so
    meanwhile a compiled model runs as it was written.
    """
    # Imported already by whoever holds such a model.
    from transformers import AttentionInterface  # noqa: PLC0415

    AttentionInterface.register(ATTENTION_NAME, split_attention)
    config: Any = base_model.config  # type: ignore[attr-defined]
    before = config._attn_implementation  # noqa: SLF001 - the only door to it
    config._attn_implementation = ATTENTION_NAME  # noqa: SLF001
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        config._attn_implementation = before  # noqa: SLF001


def check_mask_support(base_model: BaseModel) -> None:
    """Refuses attention implementations that cannot follow a 4-D mask.

    Raises:
        ValueError: the model's implementation is another than ``sdpa`` or ``eager``.
    """
    config: Any = base_model.config  # type: ignore[attr-defined]
    implementation = config._attn_implementation  # noqa: SLF001 - the only door to it
    if implementation not in {"sdpa", "eager"}:
        raise ValueError(
            f"scoring thoughts needs a 4-D attention mask, which {implementation!r} does not take; "
            'load the base model with attn_implementation="sdpa"'
        )


def _split(states: Tensor, prefix_length: int, branches: int) -> tuple[Tensor, Tensor]:
    """``(B, g, P + S * N, d)`` into ``(B, g, P, d)`` and ``(B, g, S, N, d)``."""
    own = states[:, :, prefix_length:]
    return states[:, :, :prefix_length], own.reshape(*own.shape[:2], -1, branches, own.shape[-1])


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    # Some families compute their softmax in float32: below its range, a row of nothing but padding
    # would be not a number.
    lowest = max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)
    return mask.masked_fill(~visible, lowest).unsqueeze(1)
