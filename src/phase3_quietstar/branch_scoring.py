"""One forward pass over sequences and all their thoughts, with gradients.

Sampling runs step by step and needs no gradients; what is trained on is computed here again from
the sampled tokens, all steps at once. Nothing is cached, so gradient checkpointing works.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .base_model import BaseModel, run_base_model
from .branch_attention import check_mask_support, per_layer_kind
from .thought_tokens import ThoughtTokens, embed


@dataclass(frozen=True)
class ScoredThoughts:
    """Hidden states of sequences, of their thoughts, and of what really followed.

    Attributes:
        context: ``(B, T, H)``, of the sequences.
        thoughts: ``(B, N, K, L, H)``; entry l predicts thought token l.
        futures: ``(B, N, K, F, H)``; entry f has read the thought and the f tokens that really
            follow the position, and predicts the next.
        last_logits: ``(B, V)``, the base model's own prediction from ``last_state``.
        last_state: ``(B, H)``, of the last token that was run.
    """

    context: Tensor
    thoughts: Tensor
    futures: Tensor
    last_logits: Tensor
    last_state: Tensor


def score_thoughts(
    base_model: BaseModel,
    input_ids: Tensor,
    positions: Tensor,
    token_ids: Tensor,
    thought_tokens: ThoughtTokens,
    *,
    future_tokens: int,
    attention_mask: Tensor | None = None,
) -> ScoredThoughts:
    """Runs the sequences and, behind them, every thought with its start, its end and its future.

    A branch is start-of-thought, L thought tokens, end-of-thought, and the next F - 1 real tokens
    (teacher forcing, arXiv 2403.09629 section 4.4); past the sequence's end the last token stands
    in, for a target that is not there either.

    Args:
        base_model: a Hugging Face model of a branching family.
        input_ids: ``(B, T)`` integers.
        positions: ``(B, N)`` int64.
        token_ids: ``(B, N, K, L)`` int64, the thoughts.
        thought_tokens: the learned embeddings.
        future_tokens: F, at least 1.
        attention_mask: ``(B, T)``, 0 at padding.

    Raises:
        ValueError: the model's attention takes no 4-D mask.
    """
    check_mask_support(base_model)
    batch_size, width = input_ids.shape
    num_thoughts, length = token_ids.shape[2:]
    steps = length + 1 + future_tokens
    columns = positions.repeat_interleave(num_thoughts, dim=1)
    branches = columns.shape[1]
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    position_ids = (real.long().cumsum(dim=-1) - 1).clamp_min(0)

    ahead = columns.unsqueeze(1) + torch.arange(1, future_tokens, device=columns.device)[:, None]
    following = input_ids.gather(1, ahead.clamp_max(width - 1).flatten(1))
    context = embed(base_model, input_ids)
    thought = embed(base_model, token_ids.flatten(1, 2).transpose(1, 2).flatten(1))
    opening, closing = (
        parameter.to(context.dtype).expand(batch_size, branches, -1)
        for parameter in (thought_tokens.start, thought_tokens.end)
    )
    # Behind the sequence the branches, step by step: token s of all N * K, then token s + 1.
    inputs_embeds = torch.cat([context, opening, thought, closing, embed(base_model, following)], 1)

    first = position_ids.gather(1, columns) + 1
    step = torch.arange(steps, device=columns.device)
    branch_positions = (first.unsqueeze(1) + step[:, None]).flatten(1)
    all_positions = torch.cat([position_ids, branch_positions], dim=1)
    visible = _visible(real.bool(), columns, steps)
    distance = all_positions.unsqueeze(-1) - all_positions.unsqueeze(1)
    output = run_base_model(
        base_model,
        inputs_embeds=inputs_embeds,
        attention_mask=per_layer_kind(base_model, visible, distance, inputs_embeds.dtype),
        position_ids=all_positions,
        last_logits_only=True,
    )
    states = output.last_hidden_state
    shape = (batch_size, steps, positions.shape[1], num_thoughts, states.shape[-1])
    branch_states = states[:, width:].reshape(shape).permute(0, 2, 3, 1, 4)
    return ScoredThoughts(
        context=states[:, :width],
        thoughts=branch_states[..., :length, :],
        futures=branch_states[..., length + 1 :, :],
        last_logits=output.logits[:, -1],
        last_state=states[:, -1],
    )


def _visible(real: Tensor, columns: Tensor, steps: int) -> Tensor:
    """``(B, Q, Q)`` booleans for Q = T + steps * branches tokens."""
    batch_size, width = real.shape
    branches = columns.shape[1]
    size = width + steps * branches
    place = torch.arange(size, device=real.device)
    is_context = place < width
    step, branch = (place - width) // branches, (place - width) % branches
    # Within the sequences: causal. A padding token sees itself, so that no row sees nothing.
    causal = place[:width, None] >= place[None, :width]
    own = (branch[:, None] == branch) & (step[:, None] >= step) & ~is_context[:, None] & ~is_context
    visible = own.expand(batch_size, -1, -1).clone()
    visible[:, :width, :width] = causal & real.unsqueeze(1)
    visible[:, width:, :width] = (
        (place[:width] <= columns.unsqueeze(-1)) & real.unsqueeze(1)
    ).repeat(1, steps, 1)
    return visible | torch.eye(size, dtype=torch.bool, device=real.device)
