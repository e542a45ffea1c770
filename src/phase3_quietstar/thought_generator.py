"""Samples several thoughts after one or many positions of every sequence of a batch."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .base_model import BaseModel, check_base_model, check_context_length, check_sequences
from .decoding import Decoder, Sequences, open_decoder
from .draws import distinct_keys, draw_seed, prefix_keys, uniform_draws
from .endings import ThoughtEndings
from .sampling import SamplingSettings, sample_tokens, sampling_log_probs
from .thought_tokens import ThoughtTokens

ThoughtIds: TypeAlias = list[list[int]]
DEFAULT_SETTINGS = SamplingSettings()


@dataclass(frozen=True)
class ThoughtOutput:
    """The thoughts of a batch: B sequences, K thoughts each, L tokens, hidden size H.

    Attributes:
        thoughts: ``(B, K, L, H)``, the base model's hidden state of each thought token; zeros after
            a thought's end.
        thought_ids: K thoughts, each a list of L steps, each step one token id per sequence; the
            end token after a thought's end.
        log_probs: ``(B, K)`` float, the summed log-probability of each thought's tokens under the
            distribution that they were drawn from.
        attention_weights: None; the base models are not asked for theirs.
        lengths: ``(B, K)`` int64, tokens of each thought, its end token included; None: all L.
    """

    thoughts: Tensor
    thought_ids: list[ThoughtIds]
    log_probs: Tensor
    attention_weights: Tensor | None = None
    lengths: Tensor | None = None


@dataclass(frozen=True)
class SampledThoughts:
    """What sampling leaves on the device: K thoughts at each of N positions.

    Attributes:
        hidden_states: ``(B, N, K, L, H)``, of the sampled tokens; zeros after a thought's end.
        token_ids: ``(B, N, K, L)`` int64; the end token after a thought's end.
        token_log_probs: ``(B, N, K, L)`` float, with the autograd graph of the forward passes; 0
            after a thought's end.
        lengths: ``(B, N, K)`` int64.
        last_hidden_state: ``(B, N, K, H)``, the state that has read the whole thought: of its last
            token, or of the learned end-of-thought embedding where there is one.
        next_logits: ``(B, N, K, V)``, predicted from ``last_hidden_state``.
    """

    hidden_states: Tensor
    token_ids: Tensor
    token_log_probs: Tensor
    lengths: Tensor
    last_hidden_state: Tensor
    next_logits: Tensor

    def mask(self) -> Tensor:
        """``(B, N, K, L)`` booleans, False after a thought's end."""
        steps = torch.arange(self.token_ids.shape[-1], device=self.token_ids.device)
        return steps < self.lengths.unsqueeze(-1)


def sample_thoughts(
    sequences: Sequences,
    positions: Tensor,
    *,
    num_thoughts: int,
    length: int,
    settings: SamplingSettings = DEFAULT_SETTINGS,
    min_length: int = 1,
    end_token_id: int | None = None,
    thought_tokens: ThoughtTokens | None = None,
    generator: torch.Generator | None = None,
    cuda_graph: bool = False,
) -> SampledThoughts:
    """Thinks K thoughts after each of N positions of every sequence, all of them together.

    The random numbers belong to the tokens up to a position, the thought's index and the step
    (``draws``). So a sequence's thoughts are the same in whatever order the batch is, however it
    is padded, whether one position is thought about or all, and the first of them are the same
    however many are asked for. Sequences that are equal up to a position get different thoughts,
    the first in the batch the first.

    Args:
        sequences: what is thought about.
        positions: ``(B, N)`` int64, columns of the last token that a thought may see.
        num_thoughts: K.
        length: L, the most tokens of a thought.
        settings: the distribution; by default the model's own.
        min_length: fewest tokens of a thought that an end token ends.
        end_token_id: a token that ends a thought; None lets all have ``length`` tokens.
        thought_tokens: learned embeddings that are fed before and after a thought.
        generator: source of the one seed; without one torch's default on the CPU.
        cuda_graph: capture a step as a CUDA graph, in every call anew; needs a CUDA device, a base
            model of a branching family and ``torch.no_grad()``.

    Raises:
        ValueError: sequence and thought exceed the base model's positions, ``thought_tokens`` are
            given for a base model that cannot be fed embeddings, or a CUDA graph is asked for where
            there can be none.
    """
    extra = 0 if thought_tokens is None else 2
    check_context_length(sequences.base_model, sequences.input_ids.shape[1] + length + extra)
    uniforms: Tensor | None = None
    if settings.do_sample:
        keys = prefix_keys(sequences.input_ids, sequences.attention_mask).gather(1, positions)
        seed = draw_seed(generator, keys.device)
        uniforms = uniform_draws(seed, distinct_keys(keys), num_thoughts, length).flatten(0, 2)
    if cuda_graph:
        decoder = _open_graphed_decoder(sequences, positions, num_thoughts, length + extra)
    else:
        decoder = open_decoder(sequences, positions, num_thoughts)
    if thought_tokens is not None:
        decoder.feed_embeddings(thought_tokens.start)
    endings = ThoughtEndings(
        sequences.base_model, decoder, length, min_length, end_token_id, thought_tokens
    )
    sampled = _sample_rows(endings, uniforms, length, settings)
    shape = (*positions.shape, num_thoughts)
    return SampledThoughts(*(rows.view(*shape, *rows.shape[1:]) for rows in sampled))


def _open_graphed_decoder(
    sequences: Sequences, positions: Tensor, num_thoughts: int, steps: int
) -> Decoder:
    if not (sequences.shares_cache and positions.is_cuda):
        raise ValueError(
            "cuda_graph=True needs input_ids on a CUDA device, a base model of a family in "
            "phase3_quietstar.branch_attention.BRANCHING_FAMILIES, and no gradient checkpointing"
        )
    # It imports transformers, which whoever holds such a model has imported.
    from .static_decoding import StaticPrefixDecoder  # noqa: PLC0415

    return StaticPrefixDecoder(sequences, positions, num_thoughts, steps)


def _sample_rows(
    endings: ThoughtEndings, uniforms: Tensor | None, length: int, settings: SamplingSettings
) -> tuple[Tensor, ...]:
    """The fields of ``SampledThoughts``, with R rows in place of ``(B, N, K)``."""
    token_ids: list[Tensor] = []
    token_log_probs: list[Tensor] = []
    hidden_states: list[Tensor] = []
    for step in range(length):
        uniform = None if uniforms is None else uniforms[:, step]
        sampled, log_probs = sample_tokens(endings.allowed(step), uniform, settings)
        sampled, log_probs = endings.padded(sampled, log_probs)
        token_ids.append(sampled)
        token_log_probs.append(log_probs)
        hidden_states.append(endings.feed(sampled, step))
    return (
        torch.stack(hidden_states, dim=1),
        torch.stack(token_ids, dim=1),
        torch.stack(token_log_probs, dim=1),
        *endings.close(),
    )


class ThoughtGenerator(nn.Module):
    """Samples thoughts from a base model (the "think" step of arXiv 2403.09629).

    Without an end token, one call draws one length in ``[min_length, max_length]`` for all its
    thoughts; with one, each thought ends by itself. The base model is referred to, not owned: it is
    not among ``parameters()``, and its device, dtype and mode are the caller's.

    Args:
        base_model: a Hugging Face causal model, or any callable ``input_ids (B, T) -> output`` with
            ``output.logits (B, T, V)`` and ``output.last_hidden_state (B, T, H)``.
        num_thoughts: thoughts per sequence, K.
        max_length: longest thought, in tokens.
        min_length: shortest thought, in tokens.
        temperature: divides the logits before sampling.
        top_p: nucleus mass, in (0, 1].
        do_sample: False takes the most likely token at each step.
        top_k: the most tokens to choose from; None is all.
        end_token_id: a token that ends a thought and belongs to it; None lets none do so.
        cuda_graph: see ``sample_thoughts``.

    Raises:
        TypeError: ``base_model`` cannot be called.
        ValueError: a number is out of range, ``min_length > max_length``, or the base model is an
            encoder-decoder.
    """

    base_model: BaseModel

    def __init__(
        self,
        base_model: BaseModel,
        num_thoughts: int = 4,
        max_length: int = 20,
        min_length: int = 10,
        temperature: float = 1.0,
        top_p: float = 0.9,
        *,
        do_sample: bool = True,
        top_k: int | None = None,
        end_token_id: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        check_base_model(base_model)
        if num_thoughts < 1:
            raise ValueError(f"num_thoughts must be at least 1, got {num_thoughts}")
        if min_length < 1:
            raise ValueError(f"min_length must be at least 1, got {min_length}")
        if min_length > max_length:
            raise ValueError(
                f"min_length ({min_length}) is greater than max_length ({max_length}); "
                "lower min_length or raise max_length"
            )
        if end_token_id is not None and end_token_id < 0:
            raise ValueError(f"end_token_id must not be negative, got {end_token_id}")
        # Registered as a submodule, it would be in the owner's state_dict a second time.
        object.__setattr__(self, "base_model", base_model)
        self.num_thoughts = num_thoughts
        self.max_length = max_length
        self.min_length = min_length
        self.settings = SamplingSettings(temperature, top_p, top_k, do_sample)
        self.end_token_id = end_token_id
        self.cuda_graph = cuda_graph

    def forward(
        self,
        input_ids: Tensor,
        position: int,
        hidden_states: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ThoughtOutput:
        """Thinks after the token at ``position``; later tokens are not looked at.

        Args:
            input_ids: ``(B, T)`` integers.
            position: index of the last token that the thoughts may see, in [0, T). No row may have
                padding there: pad at the start to think after rows of different length.
            hidden_states: ``(B, T, H)``, the base model's for ``input_ids``, where the caller has
                them. They are checked against the thoughts' and not otherwise needed.
            attention_mask: ``(B, T)``, 0 at padding, which is at one end of a row.
            generator: source of randomness for the length and the tokens; without one torch's
                default on the CPU. A CPU generator gives the same draws for every device; one on a
                CUDA device makes the host wait once, for the length.

        Raises:
            TypeError: ``input_ids`` are not integers, or the base model's output lacks a part.
            ValueError: a shape, the mask or the position does not fit, or the logits are not
                finite.
        """
        _check_input(input_ids, position, hidden_states, attention_mask)
        # The longest, so that whether a position is possible does not depend on the draw.
        check_context_length(self.base_model, position + 1 + self.max_length)
        sampled = self._sample(
            input_ids,
            position,
            hidden_states,
            attention_mask,
            num_thoughts=self.num_thoughts,
            length=self.draw_length(generator),
            generator=generator,
        )
        return ThoughtOutput(
            thoughts=sampled.hidden_states[:, 0],
            thought_ids=_to_lists(sampled.token_ids[:, 0]),
            log_probs=sampled.token_log_probs[:, 0].sum(dim=-1),
            lengths=sampled.lengths[:, 0],
        )

    def think_at(
        self,
        sequences: Sequences,
        positions: Tensor,
        *,
        thought_tokens: ThoughtTokens | None = None,
        generator: torch.Generator | None = None,
    ) -> SampledThoughts:
        """Thinks after many positions of every sequence at once.

        Each position's thoughts see the tokens up to it and no other thought, and equal those of
        ``forward`` at that position with the same seed.

        Args:
            sequences: what is thought about; all its logits.
            positions: ``(B, N)`` int64, columns of the last token that a thought may see; none at
                padding.
            thought_tokens: learned embeddings that are fed before and after a thought.
            generator: as in ``forward``.

        Raises:
            ValueError: as ``sample_thoughts``, or the logits are not finite.
        """
        sampled = sample_thoughts(
            sequences,
            positions,
            num_thoughts=self.num_thoughts,
            length=self.draw_length(generator),
            settings=self.settings,
            min_length=self.min_length,
            end_token_id=self.end_token_id,
            thought_tokens=thought_tokens,
            generator=generator,
            cuda_graph=self.cuda_graph,
        )
        _check_finite(sampled)
        return sampled

    def _generate_single(
        self,
        input_ids: Tensor,
        position: int,
        hidden_states: Tensor | None = None,
        thought_length: int | None = None,
        *,
        attention_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, ThoughtIds]:
        """One thought per sequence: hidden states ``(B, L, H)``, log-probability ``(B,)``, ids.

        Args:
            input_ids: ``(B, T)`` integers.
            position: as in ``forward``.
            hidden_states: as in ``forward``.
            thought_length: L; drawn where it is None.
            attention_mask: as in ``forward``.
            generator: as in ``forward``.

        Raises:
            ValueError: as ``forward``, or ``thought_length`` is less than 1.
        """
        _check_input(input_ids, position, hidden_states, attention_mask)
        if thought_length is None:
            thought_length = self.draw_length(generator)
        elif thought_length < 1:
            raise ValueError(f"thought_length must be at least 1, got {thought_length}")
        sampled = self._sample(
            input_ids,
            position,
            hidden_states,
            attention_mask,
            num_thoughts=1,
            length=thought_length,
            generator=generator,
        )
        return (
            sampled.hidden_states[:, 0, 0],
            sampled.token_log_probs[:, 0, 0].sum(dim=-1),
            _to_lists(sampled.token_ids[:, 0])[0],
        )

    def _nucleus_sampling(self, logits: Tensor) -> Tensor:
        """The distribution that tokens are drawn from: ``(..., V)`` probabilities."""
        return sampling_log_probs(logits, self.settings).exp()

    def draw_length(self, generator: torch.Generator | None = None) -> int:
        """A length in ``[min_length, max_length]``; the longest where an end token decides."""
        if self.end_token_id is not None:
            return self.max_length
        device = "cpu" if generator is None else generator.device
        bounds = (self.min_length, self.max_length + 1)
        return int(torch.randint(*bounds, (), generator=generator, device=device))

    def _sample(
        self,
        input_ids: Tensor,
        position: int,
        hidden_states: Tensor | None,
        attention_mask: Tensor | None,
        *,
        num_thoughts: int,
        length: int,
        generator: torch.Generator | None,
    ) -> SampledThoughts:
        sequences = Sequences(
            self.base_model,
            input_ids[:, : position + 1],
            None if attention_mask is None else attention_mask[:, : position + 1],
            last_only=True,
        )
        sampled = sample_thoughts(
            sequences,
            torch.full((input_ids.shape[0], 1), position, device=input_ids.device),
            num_thoughts=num_thoughts,
            length=length,
            settings=self.settings,
            min_length=min(self.min_length, length),
            end_token_id=self.end_token_id,
            generator=generator,
            cuda_graph=self.cuda_graph,
        )
        hidden_size = sampled.hidden_states.shape[-1]
        if hidden_states is not None and hidden_states.shape[-1] != hidden_size:
            raise ValueError(
                f"hidden_states have size {hidden_states.shape[-1]}, the base model's {hidden_size}"
            )
        _check_finite(sampled)
        return sampled


def _check_finite(sampled: SampledThoughts) -> None:
    if not torch.isfinite(sampled.token_log_probs).all():
        raise ValueError(
            "the base model returned logits from which no token can be drawn (NaN, +inf, or "
            "-inf throughout); check its weights and its dtype"
        )


def _to_lists(token_ids: Tensor) -> list[ThoughtIds]:
    """``(B, K, L)`` to K lists of L steps of B ids."""
    ids: list[ThoughtIds] = token_ids.permute(1, 2, 0).tolist()
    return ids


def _check_input(
    input_ids: Tensor,
    position: int,
    hidden_states: Tensor | None,
    attention_mask: Tensor | None,
) -> None:
    check_sequences(input_ids, attention_mask)
    if not 0 <= position < input_ids.shape[1]:
        raise ValueError(
            f"position must be in [0, {input_ids.shape[1]}), the tokens of input_ids, "
            f"got {position}"
        )
    if attention_mask is not None and not attention_mask[:, position].all():
        raise ValueError(
            f"position {position} is padding in some rows; pad at the start of the rows, or think "
            "about rows of one length at a time"
        )
    if hidden_states is not None and (
        hidden_states.dim() != 3 or hidden_states.shape[:2] != input_ids.shape
    ):
        raise ValueError(
            f"hidden_states must be (B, T, H) for input_ids {tuple(input_ids.shape)}, "
            f"got {tuple(hidden_states.shape)}"
        )
