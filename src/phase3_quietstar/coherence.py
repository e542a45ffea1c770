"""How well a thought fits: to its context, in itself, and to what comes next."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .entropy import predictive_entropy

DEFAULT_WEIGHTS: Mapping[str, float] = {"semantic": 0.4, "syntactic": 0.3, "predictive": 0.3}


@dataclass(frozen=True)
class CoherenceScores:
    """Scores of K thoughts for each of B sequences: every field is ``(B, K)`` in [0, 1].

    Attributes:
        semantic: nearness to the context.
        syntactic: the learned score of the thought by itself.
        predictive: certainty about the next token.
        composite: the weighted mean of the three.
    """

    semantic: Tensor
    syntactic: Tensor
    predictive: Tensor
    composite: Tensor


class CoherenceScorer(nn.Module):
    """Scores thoughts by three signals and their weighted mean.

    Args:
        hidden_size: H.
        weights: of ``semantic``, ``syntactic`` and ``predictive``; all three, not negative, sum 1.

    Raises:
        ValueError: ``weights`` lack a signal, name an unknown one, or are no weighted mean.
    """

    def __init__(self, hidden_size: int, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        if hidden_size < 1:
            raise ValueError(f"hidden_size must be at least 1, got {hidden_size}")
        self.hidden_size = hidden_size
        self.weights = _checked_weights(DEFAULT_WEIGHTS if weights is None else weights)
        self.syntactic_head = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 1)
        )

    def forward(
        self,
        base: Tensor,
        thoughts: Tensor,
        next_token_logits: Tensor | None = None,
        *,
        thought_mask: Tensor | None = None,
    ) -> CoherenceScores:
        """Scores each thought by the mean of its hidden states.

        Args:
            base: ``(B, H)``, hidden state of the position that was thought about.
            thoughts: ``(B, K, L, H)``, hidden states of the thoughts.
            next_token_logits: ``(B, K, V)``, the prediction after each thought, or ``(B, V)``, one
                for all; without them the predictive score is 1.
            thought_mask: ``(B, K, L)`` booleans, False after a thought's end; each thought has at
                least one token.

        Raises:
            ValueError: the shapes do not fit together.
        """
        if (
            thoughts.dim() != 4
            or base.shape != (thoughts.shape[0], self.hidden_size)
            or thoughts.shape[-1] != self.hidden_size
        ):
            raise ValueError(
                f"base must be (B, {self.hidden_size}) and thoughts (B, K, L, {self.hidden_size}), "
                f"got {tuple(base.shape)} and {tuple(thoughts.shape)}"
            )
        if thought_mask is None:
            pooled = thoughts.mean(dim=2)
        else:
            if thought_mask.shape != thoughts.shape[:-1]:
                raise ValueError(
                    f"thought_mask must be {tuple(thoughts.shape[:-1])} as thoughts, "
                    f"got {tuple(thought_mask.shape)}"
                )
            counted = thought_mask.unsqueeze(-1).to(thoughts.dtype)
            pooled = (thoughts * counted).sum(dim=2) / counted.sum(dim=2)
        semantic = self._semantic_coherence(base, pooled)
        syntactic = self._syntactic_coherence(pooled)
        predictive = self._predictive_coherence(pooled, next_token_logits)
        composite = (
            self.weights["semantic"] * semantic
            + self.weights["syntactic"] * syntactic
            + self.weights["predictive"] * predictive
        )
        return CoherenceScores(semantic, syntactic, predictive, composite)

    def _semantic_coherence(self, base: Tensor, thoughts: Tensor) -> Tensor:
        """``(1 + cos) / 2`` of base ``(B, H)`` and thoughts ``(B, K, H)``: ``(B, K)``."""
        cosine = F.cosine_similarity(base.unsqueeze(1), thoughts, dim=-1)
        return ((1 + cosine) / 2).clamp(0, 1)

    def _syntactic_coherence(self, thoughts: Tensor) -> Tensor:
        """The learned score of thoughts ``(B, K, H)``, in [0, 1]: ``(B, K)``."""
        score: Tensor = self.syntactic_head(thoughts)
        return score.squeeze(-1).sigmoid()

    def _predictive_coherence(self, thoughts: Tensor, next_token_logits: Tensor | None) -> Tensor:
        """One minus the normalised entropy of the next token's distribution: ``(B, K)``."""
        shape = thoughts.shape[:2]
        if next_token_logits is None:
            return thoughts.new_ones(shape)
        if next_token_logits.dim() == 2:
            next_token_logits = next_token_logits.unsqueeze(1).expand(-1, shape[1], -1)
        if next_token_logits.shape[:-1] != shape:
            raise ValueError(
                f"next_token_logits must be {(*shape, 'V')} or {(shape[0], 'V')}, "
                f"got {tuple(next_token_logits.shape)}"
            )
        return 1 - predictive_entropy(next_token_logits).to(thoughts.dtype)


def _checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    missing = DEFAULT_WEIGHTS.keys() - weights.keys()
    if missing:
        raise ValueError(
            f"weights lack {', '.join(sorted(missing))}; give all of {', '.join(DEFAULT_WEIGHTS)}"
        )
    unknown = weights.keys() - DEFAULT_WEIGHTS.keys()
    if unknown:
        raise ValueError(
            f"weights name unknown signals {', '.join(sorted(unknown))}; "
            f"known are {', '.join(DEFAULT_WEIGHTS)}"
        )
    values = list(weights.values())
    if not (all(value >= 0 for value in values) and math.isclose(sum(values), 1, abs_tol=1e-6)):
        raise ValueError(f"weights must not be negative and must sum to 1, got {dict(weights)}")
    return dict(weights)
