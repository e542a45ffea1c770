"""The terms of Quiet-STaR's training objective (arXiv 2403.09629, section 4.4), on tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class QuietSTaRObjective:
    """Weights of the objective's terms.

    ``base_weight * base + thought_weight * thought + policy_weight * policy + kl_coefficient * kl``

    Attributes:
        future_tokens: F, tokens after a position that its thoughts are judged by (the paper's
            n_true; 1 is the myopic loss).
        base_weight: of the cross-entropy of the prediction without thoughts.
        thought_weight: of the cross-entropy of the predictions with thoughts.
        policy_weight: of REINFORCE.
        kl_coefficient: of the divergence from a frozen model.
        positive_only: thoughts worse than the others teach nothing (the paper's choice, which it
            calls more stable, at the price of a bias).

    Raises:
        ValueError: a weight is negative, or ``future_tokens`` is less than 1.
    """

    future_tokens: int = 4
    base_weight: float = 0.5
    thought_weight: float = 0.5
    policy_weight: float = 1.0
    kl_coefficient: float = 0.0
    positive_only: bool = False

    def __post_init__(self) -> None:
        if self.future_tokens < 1:
            raise ValueError(f"future_tokens must be at least 1, got {self.future_tokens}")
        for name in ("base_weight", "thought_weight", "policy_weight", "kl_coefficient"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {value}")


@dataclass(frozen=True)
class QuietSTaRLoss:
    """The objective and its terms, scalars; all but ``loss`` are detached.

    Attributes:
        loss: what to call ``backward()`` on.
        base: cross-entropy without thoughts, nats per token.
        thought: cross-entropy with thoughts over the future tokens, nats per token.
        policy: the REINFORCE term; its value means nothing, its gradient does.
        kl: divergence from the frozen model, nats per token; 0 without one.
        gain: by how much a thought raises the log-likelihood of its future tokens over the
            prediction without it, nats per token.
        mixing_weight: mean weight of the thoughts.
    """

    loss: Tensor
    base: Tensor
    thought: Tensor
    policy: Tensor
    kl: Tensor
    gain: Tensor
    mixing_weight: Tensor


def future_targets(
    input_ids: Tensor, positions: Tensor, future_tokens: int, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The tokens that follow each position, and which of them there are.

    Args:
        input_ids: ``(B, T)``.
        positions: ``(B, N)``.
        future_tokens: F.
        attention_mask: ``(B, T)``, 0 at padding.

    Returns:
        Tokens ``(B, N, F)`` int64, and booleans ``(B, N, F)``: False past the end of the sequence,
        where position or token is padding.
    """
    width = input_ids.shape[1]
    ahead = positions.unsqueeze(-1) + torch.arange(1, future_tokens + 1, device=positions.device)
    inside = ahead < width
    index = ahead.clamp_max(width - 1).flatten(1)
    targets = input_ids.long().gather(1, index).view(ahead.shape)
    if attention_mask is not None:
        real = attention_mask.bool()
        inside = inside & real.gather(1, index).view(ahead.shape)
        inside = inside & real.gather(1, positions).unsqueeze(-1)
    return targets, inside


def target_log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target.

    Args:
        logits: ``(..., V)``; half precision is computed in float32.
        targets: ``(...)`` int64.

    Returns:
        ``(...)``.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype).log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask holds, 0 where it never does.

    Args:
        values: any shape.
        mask: booleans that broadcast to it.
    """
    mask = mask.expand_as(values)
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp_min(1)


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """Each thought's reward less the mean of the other thoughts' of its position.

    The others are drawn independently of it, so that as a baseline they leave the gradient of
    REINFORCE unbiased (arXiv 1901.03559). The paper subtracts the mean of all K, which is this
    times ``(K - 1) / K``.

    Args:
        rewards: ``(..., K)``.

    Raises:
        ValueError: there is no other thought.
    """
    count = rewards.shape[-1]
    if count < 2:
        raise ValueError(
            "REINFORCE compares a thought with the others of its position: num_thoughts must be "
            "at least 2, or policy_weight 0"
        )
    others = (rewards.sum(dim=-1, keepdim=True) - rewards) / (count - 1)
    return rewards - others


def reinforce_loss(
    thought_log_probs: Tensor, rewards: Tensor, mask: Tensor, *, positive_only: bool = False
) -> Tensor:
    """``-mean(advantage * log p(thought))``, whose gradient raises the reward that is expected.

    Args:
        thought_log_probs: ``(B, N, K)``, summed over each thought's tokens, with gradients.
        rewards: ``(B, N, K)``; gradients do not pass through them here.
        mask: ``(B, N)`` booleans, the positions that count.
        positive_only: drop thoughts of negative advantage.

    Raises:
        ValueError: K is 1.
    """
    advantages = leave_one_out_advantages(rewards.detach())
    if positive_only:
        advantages = advantages.clamp_min(0)
    return -masked_mean(advantages * thought_log_probs, mask.unsqueeze(-1))


def kl_divergence(logits: Tensor, frozen_logits: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``KL(p || p_frozen)`` of next-token distributions, in nats.

    Args:
        logits: ``(B, T, V)``.
        frozen_logits: ``(B, T, V)``, without gradients.
        mask: ``(B, T)`` booleans.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_probs = logits.to(dtype).log_softmax(dim=-1)
    frozen = frozen_logits.to(dtype).log_softmax(dim=-1)
    divergence = F.kl_div(frozen, log_probs, reduction="none", log_target=True).sum(dim=-1)
    return masked_mean(divergence, mask)
