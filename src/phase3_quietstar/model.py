"""A base model that thinks before hard tokens."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base_model import (
    BaseModel,
    BaseModelOutput,
    check_context_length,
    is_hugging_face_model,
    output_head,
    run_base_model,
)
from .coherence import CoherenceScorer
from .injection import ThoughtInjector
from .mixing import MixingHead
from .thought_generator import ThoughtGenerator

DEFAULT_MIN_THOUGHT_LENGTH = 10


class QuietSTaRModel(nn.Module):
    """Thinks where the next token is uncertain and mixes the thoughts into its prediction.

    At each position that the injector picks, K thoughts are sampled, scored and mixed into the
    position's hidden state, from which the output head predicts anew. The mixing head starts as the
    identity: untrained, the logits are the base model's. New modules are float32 on the CPU; move
    the whole with ``.to(device)``.

    Args:
        base_model: a Hugging Face causal model, or any callable ``input_ids (B, T) -> output`` with
            ``output.logits (B, T, V)`` and ``output.last_hidden_state (B, T, H)``.
        hidden_size: H.
        num_thoughts: thoughts per position, K.
        max_thought_length: longest thought, in tokens.
        injection_threshold: difficulty in [0, 1] above which a position is thought about.
        min_thought_length: shortest thought; by default 10, or ``max_thought_length`` if less.
        min_interval: positions from one injection to the next.
        temperature: divides the logits before sampling.
        top_p: nucleus mass, in (0, 1].
        num_heads: attention heads of the mixing head, a divisor of H.
        dropout: of the mixing head.
        coherence_weights: see ``CoherenceScorer``.
        lm_head: hidden states ``(..., H)`` to logits ``(..., V)``; by default the base model's
            (``get_output_embeddings()`` or ``.lm_head``).

    Raises:
        TypeError: ``base_model`` cannot be called.
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        base_model: BaseModel,
        hidden_size: int,
        num_thoughts: int = 4,
        max_thought_length: int = 20,
        injection_threshold: float = 0.6,
        *,
        min_thought_length: int | None = None,
        min_interval: int = 3,
        temperature: float = 1.0,
        top_p: float = 0.9,
        num_heads: int = 8,
        dropout: float = 0.1,
        coherence_weights: Mapping[str, float] | None = None,
        lm_head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if min_thought_length is None:
            min_thought_length = min(DEFAULT_MIN_THOUGHT_LENGTH, max_thought_length)
        self.base_model = base_model
        self.hidden_size = hidden_size
        self.lm_head = lm_head
        self.thought_generator = ThoughtGenerator(
            base_model,
            num_thoughts=num_thoughts,
            max_length=max_thought_length,
            min_length=min_thought_length,
            temperature=temperature,
            top_p=top_p,
        )
        self.coherence_scorer = CoherenceScorer(hidden_size, weights=coherence_weights)
        self.mixing_head = MixingHead(hidden_size, num_heads=num_heads, dropout=dropout)
        self.thought_injector = ThoughtInjector(injection_threshold, min_interval)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        use_thoughts: bool = True,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Any]:
        """Predicts the next token of every position.

        Where to think depends on the logits alone, never on ``labels``.

        Args:
            input_ids: ``(B, T)`` integers, without padding.
            labels: ``(B, T)`` integers, -100 where there is none; shifted here, as in Hugging Face
                models.
            use_thoughts: False gives the base model's prediction.
            generator: source of randomness of the thoughts.

        Returns:
            ``logits`` ``(B, T, V)``; ``loss``, a scalar tensor, None without labels;
            ``thought_positions``, a list of int; ``avg_coherence``, a float, the mean composite
            score, 0.0 without thoughts; ``num_thoughts_used``, an int, per sequence.

        Raises:
            TypeError: the base model has no output head and none was given.
            ValueError: a shape does not fit, or the output head does not give the base model's
                logits.
        """
        thought_length = self.thought_generator.max_length if use_thoughts else 0
        check_context_length(self.base_model, input_ids.shape[-1] + thought_length)
        base = run_base_model(self.base_model, input_ids)
        logits = base.logits
        positions: list[int] = []
        avg_coherence = 0.0
        if use_thoughts:
            head = self._checked_head(base)
            positions = self.thought_injector.select_positions(logits.detach())
            if positions:
                thought_out = [self._think(input_ids, p, base, head, generator) for p in positions]
                revised = torch.stack([revised for revised, _ in thought_out], dim=1)
                index = torch.tensor(positions, device=logits.device)
                logits = logits.index_copy(1, index, revised.to(logits.dtype))
                avg_coherence = torch.stack([scores for _, scores in thought_out]).mean().item()
        return {
            "logits": logits,
            "loss": None if labels is None else self._compute_loss(logits, labels),
            "thought_positions": positions,
            "avg_coherence": avg_coherence,
            "num_thoughts_used": len(positions) * self.thought_generator.num_thoughts,
        }

    def _think(
        self,
        input_ids: Tensor,
        position: int,
        base: BaseModelOutput,
        head: Callable[[Tensor], Tensor],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Logits ``(B, V)`` after thinking at ``position``, and the thoughts' scores ``(B, K)``."""
        states = base.last_hidden_state
        thoughts = self.thought_generator(input_ids, position, states, generator=generator).thoughts
        # The last token's state has read the whole thought.
        last = thoughts[:, :, -1]
        # The heads of a half-precision base model stay in their own dtype.
        dtype = self.mixing_head.query.weight.dtype
        state = states[:, position].to(dtype)
        scores = self.coherence_scorer(state, thoughts.to(dtype), head(last))
        mixed = self.mixing_head(state, last.to(dtype), scores.composite)
        return head(mixed.to(states.dtype)), scores.composite.detach()

    def _checked_head(self, base: BaseModelOutput) -> Callable[[Tensor], Tensor]:
        hidden_size = base.last_hidden_state.shape[-1]
        if hidden_size != self.hidden_size:
            raise ValueError(
                f"the base model's hidden states have size {hidden_size}, hidden_size is "
                f"{self.hidden_size}"
            )
        head = output_head(self.base_model) if self.lm_head is None else self.lm_head
        if head is None:
            raise TypeError(
                f"{type(self.base_model).__name__} has no .lm_head to predict from mixed hidden "
                "states; pass lm_head="
            )
        # Some families scale or cap what their head returns; mixing would silently undo that.
        if is_hugging_face_model(self.base_model):
            expected = base.logits[:, -1].detach().float()
            got = head(base.last_hidden_state[:, -1]).detach().float()
            scale = expected.abs().max().item()
            if not torch.allclose(got, expected, rtol=0.0, atol=0.02 * scale):
                raise ValueError(
                    f"{type(self.base_model).__name__} changes the logits after its output head "
                    "(a scale or a soft cap); pass lm_head= that does the same"
                )
        return head

    def _compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``(B, T, V)`` at t with labels ``(B, T)`` at t + 1.

        Raises:
            ValueError: the shapes differ, or there is no next token.
        """
        if logits.shape[:-1] != labels.shape:
            raise ValueError(
                f"labels must be {tuple(logits.shape[:-1])} as the logits, got "
                f"{tuple(labels.shape)}"
            )
        if labels.shape[-1] < 2:
            raise ValueError("a loss needs sequences of at least 2 tokens: labels are shifted by 1")
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
