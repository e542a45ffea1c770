"""A base model that thinks before hard tokens."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base_model import (
    BaseModel,
    check_context_length,
    check_sequences,
    is_hugging_face_model,
    output_head,
)
from .branch_attention import supports_branches
from .coherence import CoherenceScorer
from .decoding import Sequences
from .generation import generate_tokens
from .injection import ThoughtInjector
from .mixing import MixingHead
from .objective import QuietSTaRLoss, QuietSTaRObjective
from .sampling import SamplingSettings
from .thought_generator import ThoughtGenerator
from .thought_tokens import ThoughtTokens
from .training import quietstar_loss

DEFAULT_MIN_THOUGHT_LENGTH = 10
DEFAULT_OBJECTIVE = QuietSTaRObjective()
IGNORED_LABEL = -100


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
        top_k: the most tokens to choose from; None is all.
        end_token_id: a token of the vocabulary that ends a thought; None lets none do so.
        num_heads: attention heads of the mixing head, a divisor of H.
        dropout: of the mixing head.
        coherence_weights: see ``CoherenceScorer``.
        lm_head: hidden states ``(..., H)`` to logits ``(..., V)``; by default the base model's
            (``get_output_embeddings()`` or ``.lm_head``).
        learned_thought_tokens: whether thoughts stand between a learned start and end embedding, as
            in the paper; by default where the base model's family allows it
            (``branch_attention.BRANCHING_FAMILIES``).
        thought_token_id: the token whose embedding the two start from; by default the mean of all.

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
        top_k: int | None = None,
        end_token_id: int | None = None,
        num_heads: int = 8,
        dropout: float = 0.1,
        coherence_weights: Mapping[str, float] | None = None,
        lm_head: Callable[[Tensor], Tensor] | None = None,
        learned_thought_tokens: bool | None = None,
        thought_token_id: int | None = None,
    ) -> None:
        super().__init__()
        if min_thought_length is None:
            min_thought_length = min(DEFAULT_MIN_THOUGHT_LENGTH, max_thought_length)
        if learned_thought_tokens is None:
            learned_thought_tokens = supports_branches(base_model)
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
            top_k=top_k,
            end_token_id=end_token_id,
        )
        self.thought_tokens = (
            ThoughtTokens(base_model, thought_token_id) if learned_thought_tokens else None
        )
        self.coherence_scorer = CoherenceScorer(hidden_size, weights=coherence_weights)
        self.mixing_head = MixingHead(hidden_size, num_heads=num_heads, dropout=dropout)
        self.thought_injector = ThoughtInjector(injection_threshold, min_interval)
        self._settings: dict[str, Any] = {
            "hidden_size": hidden_size,
            "num_thoughts": num_thoughts,
            "max_thought_length": max_thought_length,
            "injection_threshold": injection_threshold,
            "min_thought_length": min_thought_length,
            "min_interval": min_interval,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "end_token_id": end_token_id,
            "num_heads": num_heads,
            "dropout": dropout,
            "coherence_weights": self.coherence_scorer.weights,
            "learned_thought_tokens": learned_thought_tokens,
        }

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        use_thoughts: bool = True,
        *,
        attention_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Any]:
        """Predicts the next token of every position.

        Where to think depends on the logits alone, never on ``labels``, and is one decision for the
        batch. All positions are thought about at once; no thought sees another.

        Args:
            input_ids: ``(B, T)`` integers.
            labels: ``(B, T)`` integers, -100 where there is none; shifted here, as in Hugging Face
                models.
            use_thoughts: False gives the base model's prediction.
            attention_mask: ``(B, T)``, 0 at padding, which is at one end of a row and whose logits
                mean nothing; it does not count in the loss.
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
        check_sequences(input_ids, attention_mask)
        self._check_context_length(input_ids.shape[-1], use_thoughts)
        sequences = Sequences(self.base_model, input_ids, attention_mask)
        logits = sequences.logits
        positions: list[int] = []
        avg_coherence = 0.0
        if use_thoughts:
            self._checked_head(sequences.last_hidden_state, logits)
            positions = self.thought_injector.select_positions(logits.detach(), attention_mask)
            if positions:
                columns = torch.tensor(positions, device=logits.device)
                revised, scores = self.think(
                    sequences, columns.expand(len(input_ids), -1), generator=generator
                )
                if attention_mask is None:
                    avg_coherence = scores.mean().item()
                else:
                    real = attention_mask.bool()[:, columns].unsqueeze(-1)
                    revised = torch.where(real, revised, logits[:, columns])
                    avg_coherence = scores[real.squeeze(-1)].mean().item()
                logits = logits.index_copy(1, columns, revised)
        if labels is not None and attention_mask is not None:
            # Neither is padding a target, nor does anything follow from it.
            previous = attention_mask.roll(1, dims=-1)
            labels = labels.masked_fill((attention_mask == 0) | (previous == 0), IGNORED_LABEL)
        return {
            "logits": logits,
            "loss": None if labels is None else self._compute_loss(logits, labels),
            "thought_positions": positions,
            "avg_coherence": avg_coherence,
            "num_thoughts_used": len(positions) * self.thought_generator.num_thoughts,
        }

    def think(
        self,
        sequences: Sequences,
        positions: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Thinks at N positions of every sequence and predicts the next tokens anew.

        Args:
            sequences: what is thought about; its last or all logits.
            positions: ``(B, N)`` int64, columns.
            generator: source of randomness.

        Returns:
            Logits ``(B, N, V)``, and the thoughts' composite scores ``(B, N, K)``, detached.
        """
        head = self._checked_head(sequences.last_hidden_state, sequences.logits)
        thoughts = self.thought_generator.think_at(
            sequences, positions, thought_tokens=self.thought_tokens, generator=generator
        )
        states = sequences.last_hidden_state
        states = states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        # The heads of a half-precision base model stay in their own dtype.
        dtype = self.mixing_head.query.weight.dtype
        state = states.flatten(0, 1).to(dtype)
        scores = self.coherence_scorer(
            state,
            thoughts.hidden_states.flatten(0, 1).to(dtype),
            thoughts.next_logits.flatten(0, 1),
            thought_mask=thoughts.mask().flatten(0, 1),
        ).composite
        last = thoughts.last_hidden_state.flatten(0, 1).to(dtype)
        mixed = self.mixing_head(state, last, scores)
        logits = head(mixed.to(states.dtype)).to(sequences.logits.dtype)
        return logits.view(*positions.shape, -1), scores.detach().view(*positions.shape, -1)

    def training_loss(
        self,
        input_ids: Tensor,
        objective: QuietSTaRObjective = DEFAULT_OBJECTIVE,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        frozen_model: BaseModel | None = None,
        generator: torch.Generator | None = None,
    ) -> QuietSTaRLoss:
        """The objective of Quiet-STaR (arXiv 2403.09629, section 4.4) for a batch of text.

        After every position K thoughts of ``max_thought_length`` tokens are sampled between the
        learned embeddings. Each thought's prediction of the next F real tokens is mixed, by the
        mixing head's MLP, with the prediction without it. The terms: the cross-entropy without
        thoughts; that with them; REINFORCE with the log-likelihood of the F tokens as the reward
        and the mean of the other thoughts' as its baseline; and, to keep the language model near
        where it was, ``KL(model || frozen model)`` of the predictions without thoughts.

        The injector, the coherence scores and the end token play no part in it. Sampling happens
        in evaluation mode; the pass with gradients in the modules' own mode.

        Args:
            input_ids: ``(B, T)`` integers, T at least 2.
            objective: the weights of the terms.
            attention_mask: ``(B, T)``, 0 at padding, which is at one end of a row.
            positions: ``(N,)`` int64, the columns to think at, each followed by a token; by default
                all. Fewer bound the work, which grows with N, and the memory.
            frozen_model: for the divergence, a frozen copy of the base model.
            generator: source of randomness.

        Raises:
            TypeError: the base model has no output head and none was given.
            ValueError: a shape does not fit, the model has no learned thought tokens,
                REINFORCE has one thought only, or ``kl_coefficient`` has no frozen model.
        """
        if self.thought_tokens is None:
            raise ValueError(
                "the objective needs learned thought tokens: a base model of a family in "
                "phase3_quietstar.branch_attention.BRANCHING_FAMILIES, and not "
                "learned_thought_tokens=False"
            )
        return quietstar_loss(
            self.thought_generator,
            self.thought_tokens,
            self.mixing_head,
            self._checked_head,
            input_ids,
            objective,
            attention_mask=attention_mask,
            positions=positions,
            frozen_model=frozen_model,
            generator=generator,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        *,
        attention_mask: Tensor | None = None,
        use_thoughts: bool = True,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        eos_token_id: int | None = None,
        pad_token_id: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continues the sequences, thinking before tokens where the injector says so.

        Thoughts are not part of the result, and later tokens do not see them.

        Args:
            input_ids: ``(B, T)`` integers; padding at the start of the rows.
            max_new_tokens: the most tokens to add, at least 1.
            attention_mask: ``(B, T)``, 0 at padding.
            use_thoughts: False generates with the base model alone.
            do_sample: False takes the most likely token. How thoughts are sampled does not depend
                on it.
            temperature: divides the logits of the new tokens.
            top_p: nucleus mass for the new tokens.
            top_k: the most new tokens to choose from; None is all.
            eos_token_id: ends a sequence; None lets all have ``max_new_tokens``.
            pad_token_id: what follows a sequence's end; by default ``eos_token_id``.
            generator: source of randomness of thoughts and tokens.

        Returns:
            ``(B, T + new)`` as ``input_ids``.

        Raises:
            TypeError: the base model has no output head and none was given.
            ValueError: an argument is out of range, or rows are padded at their end.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        check_sequences(input_ids, attention_mask)
        if attention_mask is not None and not attention_mask[:, -1].all():
            raise ValueError("rows are padded at their end; pad them at the start to generate")
        self._check_context_length(input_ids.shape[1] + max_new_tokens - 1, use_thoughts)
        return generate_tokens(
            self.base_model,
            self.think if use_thoughts else None,
            self.thought_injector,
            input_ids,
            max_new_tokens,
            attention_mask=attention_mask,
            settings=SamplingSettings(temperature, top_p, top_k, do_sample),
            eos_token_id=eos_token_id,
            pad_token_id=eos_token_id if pad_token_id is None else pad_token_id,
            generator=generator,
        )

    def save(
        self,
        path: str | PathLike[str],
        *,
        metadata: Mapping[str, Any] | None = None,
        optimizer_state: Mapping[str, Any] | None = None,
    ) -> Path:
        """Saves weights and settings as one checkpoint of ``cross_phase.utils``.

        Args:
            path: the checkpoint.
            metadata: more to keep beside it.
            optimizer_state: ``optimizer.state_dict()``.

        Raises:
            cross_phase.utils.CheckpointError: something cannot be stored.
        """
        from cross_phase.utils import save_checkpoint  # noqa: PLC0415 - thinking needs none of it

        return save_checkpoint(
            self,
            path,
            config={"settings": self._settings, "dtype": self.mixing_head.query.weight.dtype},
            metadata=metadata,
            optimizer_state=optimizer_state,
        )

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        base_model: BaseModel,
        *,
        lm_head: Callable[[Tensor], Tensor] | None = None,
    ) -> "QuietSTaRModel":
        """Rebuilds a model that ``save`` wrote; the base model gets the saved weights too.

        Args:
            path: the checkpoint.
            base_model: of the architecture that was saved, with any weights.
            lm_head: as at construction; functions are not saved.

        Raises:
            cross_phase.utils.CheckpointError: the checkpoint is damaged or of another model.
            FileNotFoundError: there is none.
        """
        from cross_phase.utils import load_checkpoint  # noqa: PLC0415 - thinking needs none of it

        # What the settings say decides which modules there are to load into.
        config = load_checkpoint(nn.Module(), path, strict=False)["config"]
        model = cls(base_model, **config["settings"], lm_head=lm_head)
        model.mixing_head.to(config["dtype"])
        model.coherence_scorer.to(config["dtype"])
        load_checkpoint(model, path)
        return model

    def _check_context_length(self, length: int, use_thoughts: bool) -> None:
        thought_length = self.thought_generator.max_length if use_thoughts else 0
        extra = 2 if use_thoughts and self.thought_tokens is not None else 0
        check_context_length(self.base_model, length + thought_length + extra)

    def _checked_head(self, states: Tensor, logits: Tensor) -> Callable[[Tensor], Tensor]:
        """The output head, if it makes ``logits`` ``(..., V)`` of ``states`` ``(..., H)``."""
        hidden_size = states.shape[-1]
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
            expected = logits.reshape(-1, logits.shape[-1])[-1].detach().float()
            got = head(states.reshape(-1, hidden_size)[-1:])[0].detach().float()
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
