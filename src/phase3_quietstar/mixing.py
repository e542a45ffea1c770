"""Mixes thoughts into the hidden state of the position that they were thought at."""

import math

import torch
from torch import Tensor, nn


class MixingHead(nn.Module):
    """Attends from a hidden state to its thoughts and moves towards what it finds.

    Attention over K thoughts with probabilities proportional to ``coherence * exp(q·k / sqrt(d))``
    gives one thought vector t per sequence; the result is ``base + w * (t - base)``. The weight w
    comes from a shallow MLP on (base, t) as in Quiet-STaR (arXiv 2403.09629, section 4.3), whose
    last layer starts at zero: untrained, the head returns ``base`` unchanged.

    The paper mixes one thought. For several, the attention starts as their mean weighted by
    coherence (no query, values and output the identity), so that t is a hidden state that the
    output head can read, and for one thought exactly that thought's.

    Args:
        hidden_size: H.
        num_heads: attention heads, a divisor of H.
        dropout: on the attention probabilities, while training.

    Raises:
        ValueError: H is not a multiple of ``num_heads``, or ``dropout`` is not in [0, 1).
    """

    def __init__(self, hidden_size: int, num_heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        if num_heads < 1 or hidden_size < 1 or hidden_size % num_heads:
            raise ValueError(
                f"hidden_size ({hidden_size}) must be a positive multiple of num_heads "
                f"({num_heads}); choose num_heads among its divisors"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.dropout = nn.Dropout(dropout)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        for layer in (self.value, self.output):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        last = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.weight = nn.Sequential(
            nn.Linear(2 * hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            last,
        )

    def forward(self, base: Tensor, thoughts: Tensor, coherence: Tensor) -> Tensor:
        """Mixes K thoughts into each of B hidden states.

        Args:
            base: ``(B, H)``.
            thoughts: ``(B, K, H)``, one vector per thought.
            coherence: ``(B, K)``, not negative; a thought of coherence 0 counts for nothing beside
                one that has some.

        Returns:
            ``(B, H)``.

        Raises:
            ValueError: the shapes do not fit together.
        """
        if (
            thoughts.dim() != 3
            or base.shape != (thoughts.shape[0], self.hidden_size)
            or thoughts.shape[-1] != self.hidden_size
            or coherence.shape != thoughts.shape[:2]
        ):
            raise ValueError(
                f"base, thoughts and coherence must be (B, {self.hidden_size}), "
                f"(B, K, {self.hidden_size}) and (B, K), got {tuple(base.shape)}, "
                f"{tuple(thoughts.shape)} and {tuple(coherence.shape)}"
            )
        query = self._split_heads(self.query(base.unsqueeze(1)))
        key = self._split_heads(self.key(thoughts))
        value = self._split_heads(self.value(thoughts))
        # Clamped, because a row without any coherence would otherwise attend to nothing at all.
        prior = coherence.clamp_min(torch.finfo(coherence.dtype).tiny).log()
        scores = query @ key.mT / math.sqrt(self.head_dim) + prior[:, None, None, :]
        attention = self.dropout(scores.softmax(dim=-1))
        thought: Tensor = self.output(self._merge_heads(attention @ value)).squeeze(1)
        return self.interpolate(base, thought)

    def interpolate(self, base: Tensor, thought: Tensor) -> Tensor:
        """``base + w * (thought - base)`` for one thought each: the paper's mixing.

        Mixing what a linear output head reads is mixing its logits.

        Args:
            base: ``(..., H)``.
            thought: ``(..., H)``.
        """
        return base + self.mixing_weight(base, thought) * (thought - base)

    def mixing_weight(self, base: Tensor, thought: Tensor) -> Tensor:
        """The weight w of thoughts ``(..., H)`` beside ``base (..., H)``: ``(..., 1)``."""
        weight: Tensor = self.weight(torch.cat([base, thought], dim=-1))
        return weight

    def _split_heads(self, states: Tensor) -> Tensor:
        """``(B, S, H)`` to ``(B, num_heads, S, head_dim)``."""
        return states.reshape(*states.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _merge_heads(self, states: Tensor) -> Tensor:
        """``(B, num_heads, S, head_dim)`` to ``(B, S, H)``."""
        return states.transpose(1, 2).flatten(-2)
