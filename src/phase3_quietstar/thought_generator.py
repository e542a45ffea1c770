"""Samples several thoughts after one position of every sequence of a batch."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .base_model import BaseModel, check_base_model, check_context_length
from .decoding import PrefixDecoder
from .sampling import check_sampling, sample_tokens, sampling_log_probs

ThoughtIds: TypeAlias = list[list[int]]


@dataclass(frozen=True)
class ThoughtOutput:
    """The thoughts of a batch: B sequences, K thoughts each, L tokens, hidden size H.

    Attributes:
        thoughts: ``(B, K, L, H)``, the base model's hidden state of each thought token.
        thought_ids: K thoughts, each a list of L steps, each step one token id per sequence.
        log_probs: ``(B, K)`` float, the summed log-probability of each thought's tokens under the
            distribution that they were drawn from.
        attention_weights: None; the base models are not asked for theirs.
    """

    thoughts: Tensor
    thought_ids: list[ThoughtIds]
    log_probs: Tensor
    attention_weights: Tensor | None = None


@dataclass(frozen=True)
class SampledThoughts:
    """What sampling leaves on the device.

    Attributes:
        hidden_states: ``(B, K, L, H)``, of the sampled tokens.
        token_ids: ``(B, K, L)`` int64.
        token_log_probs: ``(B, K, L)`` float, with the autograd graph of the forward passes.
    """

    hidden_states: Tensor
    token_ids: Tensor
    token_log_probs: Tensor


def sample_thoughts(
    base_model: BaseModel,
    prefix_ids: Tensor,
    *,
    num_thoughts: int,
    length: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    do_sample: bool = True,
    generator: torch.Generator | None = None,
) -> SampledThoughts:
    """Continues every prefix with ``num_thoughts`` thoughts of ``length`` tokens.

    All thoughts advance together, as rows of one batch, without waiting for the device.

    Args:
        base_model: a Hugging Face causal model, or a callable with ``.logits`` and
            ``.last_hidden_state``.
        prefix_ids: ``(B, P)`` integers.
        num_thoughts: K.
        length: L.
        temperature: divides the logits.
        top_p: nucleus mass.
        do_sample: False takes the most likely token at each step.
        generator: source of randomness; without one the device's default.

    Raises:
        ValueError: prefix and thought exceed the base model's positions.
    """
    batch_size, prefix_length = prefix_ids.shape
    check_context_length(base_model, prefix_length + length)
    decoder = PrefixDecoder(base_model, prefix_ids, copies=num_thoughts)
    token_ids: list[Tensor] = []
    token_log_probs: list[Tensor] = []
    hidden_states: list[Tensor] = []
    for _ in range(length):
        log_probs = sampling_log_probs(decoder.next_logits, temperature, top_p)
        sampled = sample_tokens(log_probs, generator=generator, do_sample=do_sample)
        token_ids.append(sampled)
        token_log_probs.append(log_probs.gather(-1, sampled.unsqueeze(-1)).squeeze(-1))
        hidden_states.append(decoder.feed(sampled))
    shape = (batch_size, num_thoughts, length)
    return SampledThoughts(
        hidden_states=torch.stack(hidden_states, dim=1).reshape(*shape, -1),
        token_ids=torch.stack(token_ids, dim=1).reshape(shape),
        token_log_probs=torch.stack(token_log_probs, dim=1).reshape(shape),
    )


class ThoughtGenerator(nn.Module):
    """Samples thoughts from a base model (the "think" step of arXiv 2403.09629).

    One call draws one length in ``[min_length, max_length]`` for all its thoughts. The base model
    is referred to, not owned: it is not among ``parameters()``, and its device, dtype and mode are
    the caller's.

    Args:
        base_model: a Hugging Face causal model, or any callable ``input_ids (B, T) -> output`` with
            ``output.logits (B, T, V)`` and ``output.last_hidden_state (B, T, H)``.
        num_thoughts: thoughts per sequence, K.
        max_length: longest thought, in tokens.
        min_length: shortest thought, in tokens.
        temperature: divides the logits before sampling.
        top_p: nucleus mass, in (0, 1].
        do_sample: False takes the most likely token at each step.

    Raises:
        TypeError: ``base_model`` cannot be called.
        ValueError: a number is out of range, ``min_length > max_length``, or the base model is an
            encoder-decoder.
    """

    base_model: BaseModel

    def __init__(  # noqa: PLR0917 - the public order of arguments
        self,
        base_model: BaseModel,
        num_thoughts: int = 4,
        max_length: int = 20,
        min_length: int = 10,
        temperature: float = 1.0,
        top_p: float = 0.9,
        *,
        do_sample: bool = True,
    ) -> None:
        super().__init__()
        check_base_model(base_model)
        check_sampling(temperature, top_p)
        if num_thoughts < 1:
            raise ValueError(f"num_thoughts must be at least 1, got {num_thoughts}")
        if min_length < 1:
            raise ValueError(f"min_length must be at least 1, got {min_length}")
        if min_length > max_length:
            raise ValueError(
                f"min_length ({min_length}) is greater than max_length ({max_length}); "
                "lower min_length or raise max_length"
            )
        # Registered as a submodule, it would be in the owner's state_dict a second time.
        object.__setattr__(self, "base_model", base_model)
        self.num_thoughts = num_thoughts
        self.max_length = max_length
        self.min_length = min_length
        self.temperature = temperature
        self.top_p = top_p
        self.do_sample = do_sample

    def forward(
        self,
        input_ids: Tensor,
        position: int,
        hidden_states: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> ThoughtOutput:
        """Thinks after the token at ``position``; later tokens are not looked at.

        Args:
            input_ids: ``(B, T)`` integers, without padding up to ``position``.
            position: index of the last token that the thoughts may see, in [0, T).
            hidden_states: ``(B, T, H)``, the base model's for ``input_ids``, where the caller has
                them. They are checked against the thoughts' and not otherwise needed.
            generator: source of randomness for the length and the tokens; without one torch's
                defaults. A CPU generator gives the same draws for every device; one on a CUDA
                device makes the host wait once, for the length.

        Raises:
            TypeError: ``input_ids`` are not integers, or the base model's output lacks a part.
            ValueError: a shape or the position does not fit, or the logits are not finite.
        """
        _check_input(input_ids, position, hidden_states)
        # The longest, so that whether a position is possible does not depend on the draw.
        check_context_length(self.base_model, position + 1 + self.max_length)
        sampled = self._sample(
            input_ids,
            position,
            hidden_states,
            num_thoughts=self.num_thoughts,
            length=self._draw_length(generator),
            generator=generator,
        )
        return ThoughtOutput(
            thoughts=sampled.hidden_states,
            thought_ids=_to_lists(sampled.token_ids),
            log_probs=sampled.token_log_probs.sum(dim=-1),
        )

    def _generate_single(
        self,
        input_ids: Tensor,
        position: int,
        hidden_states: Tensor | None = None,
        thought_length: int | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, ThoughtIds]:
        """One thought per sequence: hidden states ``(B, L, H)``, log-probability ``(B,)``, ids.

        Args:
            input_ids: ``(B, T)`` integers.
            position: as in ``forward``.
            hidden_states: as in ``forward``.
            thought_length: L; drawn where it is None.
            generator: as in ``forward``.

        Raises:
            ValueError: as ``forward``, or ``thought_length`` is less than 1.
        """
        _check_input(input_ids, position, hidden_states)
        if thought_length is None:
            thought_length = self._draw_length(generator)
        elif thought_length < 1:
            raise ValueError(f"thought_length must be at least 1, got {thought_length}")
        sampled = self._sample(
            input_ids,
            position,
            hidden_states,
            num_thoughts=1,
            length=thought_length,
            generator=generator,
        )
        return (
            sampled.hidden_states[:, 0],
            sampled.token_log_probs[:, 0].sum(dim=-1),
            _to_lists(sampled.token_ids)[0],
        )

    def _nucleus_sampling(self, logits: Tensor) -> Tensor:
        """The distribution that tokens are drawn from: ``(..., V)`` probabilities."""
        return sampling_log_probs(logits, self.temperature, self.top_p).exp()

    def _draw_length(self, generator: torch.Generator | None) -> int:
        device = "cpu" if generator is None else generator.device
        bounds = (self.min_length, self.max_length + 1)
        return int(torch.randint(*bounds, (), generator=generator, device=device))

    def _sample(
        self,
        input_ids: Tensor,
        position: int,
        hidden_states: Tensor | None,
        *,
        num_thoughts: int,
        length: int,
        generator: torch.Generator | None,
    ) -> SampledThoughts:
        sampled = sample_thoughts(
            self.base_model,
            input_ids[:, : position + 1],
            num_thoughts=num_thoughts,
            length=length,
            temperature=self.temperature,
            top_p=self.top_p,
            do_sample=self.do_sample,
            generator=generator,
        )
        hidden_size = sampled.hidden_states.shape[-1]
        if hidden_states is not None and hidden_states.shape[-1] != hidden_size:
            raise ValueError(
                f"hidden_states have size {hidden_states.shape[-1]}, the base model's {hidden_size}"
            )
        if not torch.isfinite(sampled.token_log_probs).all():
            raise ValueError(
                "the base model returned logits from which no token can be drawn (NaN, +inf, or "
                "-inf throughout); check its weights and its dtype"
            )
        return sampled


def _to_lists(token_ids: Tensor) -> list[ThoughtIds]:
    """``(B, K, L)`` to K lists of L steps of B ids."""
    ids: list[ThoughtIds] = token_ids.permute(1, 2, 0).tolist()
    return ids


def _check_input(input_ids: Tensor, position: int, hidden_states: Tensor | None) -> None:
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise TypeError(f"input_ids must be integers, got {input_ids.dtype}")
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ValueError(f"input_ids must be (B, T), not empty, got {tuple(input_ids.shape)}")
    if not 0 <= position < input_ids.shape[1]:
        raise ValueError(
            f"position must be in [0, {input_ids.shape[1]}), the tokens of input_ids, "
            f"got {position}"
        )
    if hidden_states is not None and (
        hidden_states.dim() != 3 or hidden_states.shape[:2] != input_ids.shape
    ):
        raise ValueError(
            f"hidden_states must be (B, T, H) for input_ids {tuple(input_ids.shape)}, "
            f"got {tuple(hidden_states.shape)}"
        )
