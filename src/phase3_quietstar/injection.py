"""Decides after which positions it is worth thinking."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from .entropy import normalized_entropy, predictive_entropy

SIGNAL_WEIGHTS: Mapping[str, float] = {"entropy": 0.4, "dispersion": 0.3, "loss": 0.3}
LOSS_CEILING = 10.0


class ThoughtInjector(nn.Module):
    """Injects a thought where the next token is hard and the last thought is far enough back.

    ``difficulty = 0.4 * entropy + 0.3 * dispersion + 0.3 * min(loss, 10) / 10``, each in [0, 1]. A
    signal that is not there (no attention weights, no loss) does not count: the weights of the
    others are scaled up to sum to 1, so that difficulty always covers [0, 1]. A thought is injected
    when ``difficulty > threshold`` and at least ``min_interval`` positions have passed since the
    last one.

    Args:
        threshold: in [0, 1].
        min_interval: positions from one injection to the next, at least 1.

    Attributes:
        last_injection: position of the last injection; ``-min_interval`` before the first.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, threshold: float = 0.6, min_interval: int = 3) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        if min_interval < 1:
            raise ValueError(f"min_interval must be at least 1, got {min_interval}")
        self.threshold = threshold
        self.min_interval = min_interval
        self.reset()

    def reset(self) -> None:
        """Starts a new sequence."""
        self.last_injection = -self.min_interval

    def forward(
        self,
        logits: Tensor,
        attention_weights: Tensor | None = None,
        loss: Tensor | float | None = None,
        position: int = 0,
    ) -> bool:
        """Whether to think after ``position``; if so, the position is remembered.

        Positions grow within a sequence: one that is not after the last injection starts a new
        sequence.

        Args:
            logits: ``(..., V)``, for the next token; rows count equally.
            attention_weights: ``(..., S)``, not negative, over the positions attended to.
            loss: the model's current loss in nats, a scalar.
            position: at least 0.

        Raises:
            ValueError: ``position`` is negative, or a signal is not finite.
        """
        signals = {"entropy": self._compute_entropy(logits)}
        if attention_weights is not None:
            signals["dispersion"] = self._compute_dispersion(attention_weights)
        if loss is not None:
            signals["loss"] = min(max(float(loss), 0.0), LOSS_CEILING) / LOSS_CEILING
        if position <= self.last_injection:
            self.reset()
        return self._decide(combine_signals(signals), position)

    def select_positions(self, logits: Tensor, attention_mask: Tensor | None = None) -> list[int]:
        """The positions of a new sequence that get a thought, judged by entropy alone.

        The decision is one for the batch: the mean over its sequences.

        Args:
            logits: ``(B, T, V)``.
            attention_mask: ``(B, T)``, 0 at padding, which does not count; a position that is
                padding throughout gets no thought.

        Raises:
            ValueError: the logits are not finite.
        """
        self.reset()
        entropy_of = predictive_entropy(logits)
        if attention_mask is None:
            means = entropy_of.mean(dim=0)
        else:
            real = attention_mask.bool()
            # At padding the logits are of no use, and may be no numbers.
            total = entropy_of.masked_fill(~real, 0.0).sum(dim=0)
            means = total / real.sum(dim=0).clamp_min(1)
        entropies: list[float] = means.tolist()
        return [
            position
            for position, entropy in enumerate(entropies)
            if self._decide(combine_signals({"entropy": entropy}), position)
        ]

    def _decide(self, difficulty: float, position: int) -> bool:
        if position < 0:
            raise ValueError(f"position must not be negative, got {position}")
        if not math.isfinite(difficulty):
            raise ValueError("difficulty is not finite: logits, attention or loss are not")
        inject = difficulty > self.threshold and position - self.last_injection >= self.min_interval
        if inject:
            self.last_injection = position
        return inject

    def _compute_entropy(self, logits: Tensor) -> float:
        """Normalised entropy of the next token, mean over rows ``(..., V)``, in [0, 1]."""
        return predictive_entropy(logits.detach()).mean().item()

    def _compute_dispersion(self, attention_weights: Tensor | None) -> float:
        """Normalised entropy of the attention, mean over rows ``(..., S)``, in [0, 1].

        Without attention weights nothing is known: 0.5, the middle.
        """
        if attention_weights is None:
            return 0.5
        weights = attention_weights.detach().float()
        return normalized_entropy((weights / weights.sum(dim=-1, keepdim=True)).log()).mean().item()


def combine_signals(signals: Mapping[str, float]) -> float:
    """Mean of the signals that are there, weighted by ``SIGNAL_WEIGHTS`` scaled to sum to 1.

    Args:
        signals: at least one of ``entropy``, ``dispersion``, ``loss``, each in [0, 1].
    """
    total = sum(SIGNAL_WEIGHTS[name] for name in signals)
    return sum(SIGNAL_WEIGHTS[name] * value for name, value in signals.items()) / total
