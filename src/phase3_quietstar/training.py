"""Quiet-STaR's objective for a batch of text: think at every position, talk, learn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .base_model import BaseModel, check_context_length, check_sequences, run_base_model
from .branch_scoring import ScoredThoughts, score_thoughts
from .decoding import Sequences
from .mixing import MixingHead
from .objective import (
    QuietSTaRLoss,
    QuietSTaRObjective,
    future_targets,
    kl_divergence,
    masked_mean,
    reinforce_loss,
    target_log_likelihood,
)
from .sampling import token_log_probs
from .thought_generator import ThoughtGenerator, sample_thoughts
from .thought_tokens import ThoughtTokens

OutputHead: TypeAlias = Callable[[Tensor], Tensor]


def quietstar_loss(
    thought_generator: ThoughtGenerator,
    thought_tokens: ThoughtTokens,
    mixing_head: MixingHead,
    checked_head: Callable[[Tensor, Tensor], OutputHead],
    input_ids: Tensor,
    objective: QuietSTaRObjective,
    *,
    attention_mask: Tensor | None = None,
    positions: Tensor | None = None,
    frozen_model: BaseModel | None = None,
    generator: torch.Generator | None = None,
) -> QuietSTaRLoss:
    """One batch's loss; ``QuietSTaRModel.training_loss`` says what it is made of.

    Args:
        thought_generator: the base model and how it is sampled from.
        thought_tokens: the learned embeddings.
        mixing_head: mixes each thought's prediction with the one without.
        checked_head: gives the output head, for hidden states and logits that it must agree on.
        input_ids: ``(B, T)`` integers.
        objective: the weights of the terms.
        attention_mask: ``(B, T)``, 0 at padding.
        positions: ``(N,)`` int64, the columns to think at; by default all but the last.
        frozen_model: what the divergence is measured from.
        generator: source of randomness.

    Raises:
        ValueError: as ``QuietSTaRModel.training_loss``.
    """
    base_model = thought_generator.base_model
    check_sequences(input_ids, attention_mask)
    if objective.kl_coefficient > 0 and frozen_model is None:
        raise ValueError("kl_coefficient needs frozen_model=, a frozen copy of the base model")
    columns = _checked_positions(input_ids, positions)
    branch_length = thought_generator.max_length + 1 + objective.future_tokens
    check_context_length(base_model, input_ids.shape[1] + branch_length)
    # Without gradients, and without dropout: it would be another policy at every step.
    with torch.no_grad(), evaluating(base_model):
        sampled = sample_thoughts(
            Sequences(base_model, input_ids, attention_mask),
            columns,
            num_thoughts=thought_generator.num_thoughts,
            length=thought_generator.max_length,
            settings=thought_generator.settings,
            thought_tokens=thought_tokens,
            generator=generator,
        )
    scored = score_thoughts(
        base_model,
        input_ids,
        columns,
        sampled.token_ids,
        thought_tokens,
        future_tokens=objective.future_tokens,
        attention_mask=attention_mask,
    )
    head = checked_head(scored.last_state, scored.last_logits)
    targets, there = future_targets(input_ids, columns, objective.future_tokens, attention_mask)

    context_logits = head(scored.context)
    base_likelihood = target_log_likelihood(context_logits[:, :-1], input_ids[:, 1:].long())
    base = -masked_mean(base_likelihood, _pairs(input_ids, attention_mask))

    without = _without_thoughts(scored, columns)
    likelihood, weight = _with_thoughts(scored.futures, without, mixing_head, head, targets)
    counted = there.unsqueeze(2)
    thought = -masked_mean(likelihood, counted)

    policy = kl = torch.zeros_like(base)
    if objective.policy_weight > 0:
        log_probs = token_log_probs(
            head(scored.thoughts), sampled.token_ids, thought_generator.settings
        )
        policy = reinforce_loss(
            log_probs.sum(dim=-1),
            rewards=likelihood.masked_fill(~counted, 0.0).sum(dim=-1),
            mask=there.any(dim=-1),
            positive_only=objective.positive_only,
        )
    if objective.kl_coefficient > 0 and frozen_model is not None:
        with torch.no_grad(), evaluating(frozen_model):
            frozen = run_base_model(frozen_model, input_ids, attention_mask=attention_mask)
        kl = kl_divergence(context_logits, frozen.logits, _real(input_ids, attention_mask))
    # Position p + f of the sequence is where target f of position p is predicted without thoughts.
    same = base_likelihood.gather(1, _ahead(columns, targets.shape[-1], base_likelihood).flatten(1))
    gain = likelihood.detach() - same.detach().view(targets.shape).unsqueeze(2)
    return QuietSTaRLoss(
        loss=objective.base_weight * base
        + objective.thought_weight * thought
        + objective.policy_weight * policy
        + objective.kl_coefficient * kl,
        base=base.detach(),
        thought=thought.detach(),
        policy=policy.detach(),
        kl=kl.detach(),
        gain=masked_mean(gain, counted),
        mixing_weight=masked_mean(weight.detach(), counted),
    )


@contextmanager
def evaluating(model: BaseModel) -> Iterator[None]:
    """Puts the model's modules into evaluation mode, and afterwards each back into its own."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _with_thoughts(
    futures: Tensor, without: Tensor, mixing_head: MixingHead, head: OutputHead, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-likelihood of the targets and the mixing weight, each ``(B, N, K, F)``.

    Args:
        futures: ``(B, N, K, F, H)``, with thoughts.
        without: ``(B, N, F, H)``, without.
        mixing_head: each thought is mixed alone.
        head: hidden states to logits.
        targets: ``(B, N, F)``.
    """
    dtype = mixing_head.query.weight.dtype
    base = without.unsqueeze(2).expand_as(futures).to(dtype)
    thought = futures.to(dtype)
    weight = mixing_head.mixing_weight(base, thought)
    mixed = base + weight * (thought - base)
    logits = head(mixed.to(futures.dtype))
    expanded = targets.unsqueeze(2).expand(logits.shape[:-1])
    return target_log_likelihood(logits, expanded), weight.squeeze(-1)


def _without_thoughts(scored: ScoredThoughts, columns: Tensor) -> Tensor:
    """Hidden states ``(B, N, F, H)`` that predict the same targets without thoughts."""
    index = _ahead(columns, scored.futures.shape[3], scored.context)
    states = scored.context.gather(
        1, index.flatten(1).unsqueeze(-1).expand(-1, -1, scored.context.shape[-1])
    )
    return states.view(*index.shape, -1)


def _ahead(columns: Tensor, future_tokens: int, states: Tensor) -> Tensor:
    """Columns ``(B, N, F)`` from each position on, within ``states`` ``(B, T, ...)``."""
    ahead = columns.unsqueeze(-1) + torch.arange(future_tokens, device=columns.device)
    return ahead.clamp_max(states.shape[1] - 1)


def _real(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    return attention_mask.bool()


def _pairs(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """``(B, T - 1)``: whether a token and the next are both real."""
    real = _real(input_ids, attention_mask)
    return real[:, 1:] & real[:, :-1]


def _checked_positions(input_ids: Tensor, positions: Tensor | None) -> Tensor:
    """The columns to think at, ``(B, N)``."""
    batch_size, width = input_ids.shape
    if width < 2:
        raise ValueError("a loss needs sequences of at least 2 tokens: labels are shifted by 1")
    if positions is None:
        positions = torch.arange(width - 1, device=input_ids.device)
    if (
        positions.dim() != 1
        or positions.numel() == 0
        or positions.is_floating_point()
        or not ((positions >= 0) & (positions < width - 1)).all()
    ):
        raise ValueError(
            f"positions must be one or more columns (N,) in [0, {width - 1}), which a token follows"
        )
    return positions.to(input_ids.device).long().expand(batch_size, -1)
