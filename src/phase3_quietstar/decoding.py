"""Continues prefixes of every sequence several times, one token per continuation and step."""

from collections.abc import Callable
from copy import copy
from typing import Any, Protocol

import torch
from torch import Tensor

from .base_model import BaseModel, is_hugging_face_model, run_base_model
from .branch_attention import BranchMask, branch_attention, supports_branches
from .thought_tokens import embed


class Decoder(Protocol):
    """Feeds all continuations together; R rows, one per continuation.

    Row ``(b * N + n) * K + k`` is continuation k of the prefix of sequence b that ends at its n-th
    position. Autograd is left as it is found.

    Attributes:
        next_logits: ``(R, V)``, for the token that follows what was fed so far.
    """

    next_logits: Tensor

    def feed(self, token_ids: Tensor) -> Tensor:
        """Appends a token ``(R,)`` to every row; its hidden states ``(R, H)``."""
        ...

    def feed_embeddings(self, embeddings: Tensor) -> Tensor:
        """Appends an input embedding to every row, ``(R, E)`` or ``(E,)``: as ``feed``.

        Raises:
            ValueError: the base model is not of a branching family.
        """
        ...


class Sequences:
    """A batch of token sequences, and what a base model made of it.

    Args:
        base_model: any base model (see ``base_model``).
        input_ids: ``(B, T)`` integers.
        attention_mask: ``(B, T)``, 0 at padding, which is at one end of a row; None without.
        last_only: only the last column will be continued: no logits but its are needed.

    Attributes:
        logits: ``(B, T, V)``, or ``(B, 1, V)`` with ``last_only``.
        last_hidden_state: ``(B, T, H)``.
        position_ids: ``(B, T)`` int64, counted from each row's first real token.
        shares_cache: whether continuations can read one cache of the sequences.
    """

    def __init__(
        self,
        base_model: BaseModel,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        last_only: bool = False,
    ) -> None:
        self.base_model = base_model
        self.input_ids = input_ids
        self.attention_mask = None if attention_mask is None else attention_mask.bool()
        ones = torch.ones_like(input_ids, dtype=torch.long)
        counted = ones if attention_mask is None else attention_mask.long()
        self.position_ids = (counted.cumsum(dim=-1) - 1).clamp_min(0)
        if is_hugging_face_model(base_model):
            self._run_hugging_face_model(last_only)
        else:
            self._run_callable(last_only)

    def _run_hugging_face_model(self, last_only: bool) -> None:
        branching = supports_branches(self.base_model)
        output = run_base_model(
            self.base_model,
            self.input_ids,
            attention_mask=None if self.attention_mask is None else self.attention_mask.long(),
            position_ids=None if self.attention_mask is None else self.position_ids,
            past_key_values=_growing_cache() if branching else None,
            use_cache=True,
            last_logits_only=last_only,
        )
        self.logits, self.last_hidden_state = output.logits, output.last_hidden_state
        self.cache = output.past_key_values
        layers = getattr(self.cache, "layers", None) or []
        # Checkpointed training returns a cache that was never filled, or none.
        self.shares_cache = (
            branching and bool(layers) and all(layer.get_seq_length() for layer in layers)
        )

    def _run_callable(self, last_only: bool) -> None:
        output = run_base_model(self.base_model, self.left_aligned())
        self.cache, self.shares_cache = None, False
        logits, states = output.logits, output.last_hidden_state
        if self.attention_mask is not None:
            shift = self.position_ids
            logits, states = _at(logits, shift), _at(states, shift)
        self.logits = logits[:, -1:] if last_only else logits
        self.last_hidden_state = states

    def extended(self, token_ids: Tensor) -> "Sequences":
        """The sequences with one more token each, ``(B,)``; only the last logits.

        Where there is a cache that can be shared, only the new tokens are run, and the cache is
        taken over: this object must not be used any more.
        """
        input_ids = torch.cat([self.input_ids, token_ids.unsqueeze(-1)], dim=-1)
        mask = self.attention_mask
        if mask is not None:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=-1)
        if not self.shares_cache:
            return Sequences(self.base_model, input_ids, mask, last_only=True)
        longer = copy(self)
        longer.input_ids, longer.attention_mask = input_ids, mask
        following = self.position_ids[:, -1:] + 1
        longer.position_ids = torch.cat([self.position_ids, following], dim=-1)
        output = run_base_model(
            self.base_model,
            token_ids.unsqueeze(-1),
            attention_mask=None if mask is None else mask.long(),
            position_ids=None if mask is None else following,
            past_key_values=self.cache,
            use_cache=True,
            last_logits_only=True,
        )
        longer.logits = output.logits
        longer.last_hidden_state = torch.cat(
            [self.last_hidden_state, output.last_hidden_state], dim=1
        )
        return longer

    def left_aligned(self) -> Tensor:
        """The tokens ``(B, T)`` moved to the start of their rows.

        What follows a row's end is a repetition of its last token: a causal model does not see it.
        """
        if self.attention_mask is None:
            return self.input_ids
        first = self.attention_mask.long().argmax(dim=-1, keepdim=True)
        last = self.attention_mask.sum(dim=-1, keepdim=True) - 1
        place = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return self.input_ids.gather(1, first + torch.minimum(place, last.clamp_min(0)))


def open_decoder(sequences: Sequences, positions: Tensor, copies: int) -> Decoder:
    """The best decoder that the base model allows.

    Args:
        sequences: what is continued.
        positions: ``(B, N)`` int64, columns of the last token that a continuation may see.
        copies: K, continuations of each prefix.

    Raises:
        ValueError: there are several positions, but the sequences have only their last logits.
    """
    if sequences.logits.shape[1] < sequences.input_ids.shape[1] and positions.shape[1] > 1:
        raise ValueError("sequences of last_only=True can be continued at their last column alone")
    if sequences.shares_cache:
        return SharedPrefixDecoder(sequences, positions, copies)
    if CachedRowsDecoder.fits(sequences, positions):
        return CachedRowsDecoder(sequences, copies)
    return UncachedRowsDecoder(sequences, positions, copies)


class SharedPrefixDecoder:
    """Continuations are branches of their sequence and read one cache of it, K of them or all.

    The sequences' own cache is left as it is.
    """

    def __init__(self, sequences: Sequences, positions: Tensor, copies: int) -> None:
        self._base_model = sequences.base_model
        columns = positions.repeat_interleave(copies, dim=1)
        self._shape = columns.shape
        width = sequences.input_ids.shape[1]
        visible = torch.arange(width, device=columns.device) <= columns.unsqueeze(-1)
        if sequences.attention_mask is not None:
            visible = visible & sequences.attention_mask.unsqueeze(1)
        self._mask = BranchMask(
            visible,
            prefix_positions=sequences.position_ids,
            first_positions=sequences.position_ids.gather(1, columns) + 1,
        )
        self._cache = _fork(sequences.cache)
        self._prefix_length = width
        self._step = 0
        self._dtype = sequences.last_hidden_state.dtype
        logits = sequences.logits
        if logits.shape[1] == width:
            logits = _at(logits, positions)
        self.next_logits = logits.repeat_interleave(copies, dim=1).flatten(0, 1)

    def feed(self, token_ids: Tensor) -> Tensor:
        """See ``Decoder.feed``."""
        return self._run(token_ids.view(self._shape))

    def feed_embeddings(self, embeddings: Tensor) -> Tensor:
        """See ``Decoder.feed_embeddings``."""
        rows = embeddings.expand(self._shape.numel(), -1)
        return self._run(None, rows.view(*self._shape, -1))

    def _run(self, input_ids: Tensor | None, inputs_embeds: Tensor | None = None) -> Tensor:
        with branch_attention(self._base_model):
            output = run_base_model(
                self._base_model,
                input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=self._mask.additive(
                    self._base_model, self._step, self._step + 1, self._dtype
                ),
                position_ids=self._mask.position_ids(self._step),
                past_key_values=self._cache,
                use_cache=True,
                prefix_length=self._prefix_length,
            )
        self._step += 1
        self.next_logits = output.logits.flatten(0, 1)
        return output.last_hidden_state.flatten(0, 1)


class CachedRowsDecoder:
    """Continuations are rows of their own, each with a copy of its prefix' cache."""

    def __init__(self, sequences: Sequences, copies: int) -> None:
        self._base_model = sequences.base_model
        self.next_logits = sequences.logits[:, -1].repeat_interleave(copies, dim=0)
        self._cache = sequences.cache
        self._cache.batch_repeat_interleave(copies)
        self._attention_mask = (
            None
            if sequences.attention_mask is None
            else sequences.attention_mask.long().repeat_interleave(copies, dim=0)
        )
        self._position_ids = sequences.position_ids[:, -1:].repeat_interleave(copies, dim=0)

    @staticmethod
    def fits(sequences: Sequences, positions: Tensor) -> bool:
        """Whether there is a cache that can be repeated, ending where every continuation starts.

        Recurrent (linear attention) layers keep states that have no such operation.
        """
        layers = getattr(sequences.cache, "layers", None) or []
        return (
            bool(layers)
            and all(hasattr(layer, "batch_repeat_interleave") for layer in layers)
            and positions.shape[1] == 1
            and bool((positions == sequences.input_ids.shape[1] - 1).all())
        )

    def feed(self, token_ids: Tensor) -> Tensor:
        """See ``Decoder.feed``."""
        column = token_ids.unsqueeze(-1)
        position_ids = None
        if self._attention_mask is not None:
            self._attention_mask = torch.cat(
                [self._attention_mask, torch.ones_like(column)], dim=-1
            )
            self._position_ids = position_ids = self._position_ids + 1
        output = run_base_model(
            self._base_model,
            column,
            attention_mask=self._attention_mask,
            position_ids=position_ids,
            past_key_values=self._cache,
            use_cache=True,
            last_logits_only=True,
        )
        self._cache = output.past_key_values
        self.next_logits = output.logits[:, -1]
        return output.last_hidden_state[:, -1]

    def feed_embeddings(self, embeddings: Tensor) -> Tensor:
        """See ``Decoder.feed_embeddings``."""
        raise _no_embeddings(self._base_model, embeddings)


class UncachedRowsDecoder:
    """Continuations are rows of their own that are run again from their start at every step."""

    def __init__(self, sequences: Sequences, positions: Tensor, copies: int) -> None:
        self._base_model = sequences.base_model
        logits = sequences.logits
        if logits.shape[1] == sequences.input_ids.shape[1]:
            logits = _at(logits, positions)
        self.next_logits = logits.repeat_interleave(copies, dim=1).flatten(0, 1)
        rows = sequences.left_aligned()
        repeats = positions.shape[1] * copies
        self._embeds = supports_branches(self._base_model)
        # (R, T) token ids, or (R, T, E) embeddings where they can be fed.
        self._inputs = rows.repeat_interleave(repeats, dim=0)
        if self._embeds:
            self._inputs = embed(self._base_model, self._inputs)
        lengths = sequences.position_ids.gather(1, positions) + 1
        # (R, 1): the next token's place in its row.
        self._lengths = lengths.flatten().repeat_interleave(copies).unsqueeze(-1)

    def feed(self, token_ids: Tensor) -> Tensor:
        """See ``Decoder.feed``."""
        return self._append(embed(self._base_model, token_ids) if self._embeds else token_ids)

    def feed_embeddings(self, embeddings: Tensor) -> Tensor:
        """See ``Decoder.feed_embeddings``."""
        if not self._embeds:
            raise _no_embeddings(self._base_model, embeddings)
        return self._append(embeddings.expand(self._inputs.shape[0], -1))

    def _append(self, inputs: Tensor) -> Tensor:
        column = inputs.unsqueeze(1)
        index = self._lengths.view(-1, *[1] * (column.dim() - 1)).expand_as(column)
        grown = torch.cat([self._inputs, column.to(self._inputs.dtype)], dim=1)
        self._inputs = grown.scatter(1, index, column.to(grown.dtype))
        place = torch.arange(self._inputs.shape[1], device=inputs.device)
        output = run_base_model(
            self._base_model,
            None if self._embeds else self._inputs,
            inputs_embeds=self._inputs if self._embeds else None,
            attention_mask=(place <= self._lengths).long(),
        )
        self.next_logits = _at(output.logits, self._lengths).squeeze(1)
        states = _at(output.last_hidden_state, self._lengths).squeeze(1)
        self._lengths = self._lengths + 1
        return states


def _at(states: Tensor, positions: Tensor) -> Tensor:
    """``(B, N, D)``: entries of ``(B, T, D)`` at columns ``(B, N)``."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def _no_embeddings(base_model: BaseModel, embeddings: Tensor) -> ValueError:
    return ValueError(
        f"{type(base_model).__name__} cannot be fed embeddings of shape {tuple(embeddings.shape)}: "
        "it is not of a branching family (phase3_quietstar.branch_attention)"
    )


def _growing_cache() -> Any:
    """A cache that keeps every token in every layer, whatever the layers' windows."""
    from transformers import DynamicCache  # noqa: PLC0415 - there, if the model is

    return DynamicCache()


def _fork(cache: Any) -> Any:
    """A cache that starts with the same tensors, not with copies, and grows apart."""
    from transformers.cache_utils import DynamicLayer  # noqa: PLC0415 - there, if the model is

    fork = _growing_cache()
    new_layer: Callable[[], Any] = DynamicLayer
    for layer in cache.layers:
        forked = new_layer()
        forked.lazy_initialization(layer.keys, layer.values)
        forked.keys, forked.values = layer.keys, layer.values
        fork.layers.append(forked)
    return fork
