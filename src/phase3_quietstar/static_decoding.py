"""Decoding with buffers of fixed size, so that a step can be one CUDA graph.

This module imports transformers; it is imported where a Hugging Face model is at work.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from .base_model import BaseModelOutput, run_base_model
from .branch_attention import branch_attention
from .decoding import Sequences, SharedPrefixDecoder

WARM_UP_STEPS = 2


class StaticBranchLayer(DynamicLayer):
    """A layer's keys and values with room for all steps, written in place.

    Args:
        keys: ``(B, g, P, d)``, of the sequences.
        values: as ``keys``.
        room: tokens to come, for all branches and steps.
        slots: ``(N,)`` int64, where the next step's tokens go; its owner moves it on.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int, slots: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        shape = (*keys.shape[:2], room)
        self.keys: Tensor = torch.cat([keys, keys.new_zeros(*shape, keys.shape[-1])], dim=2)
        self.values: Tensor = torch.cat([values, values.new_zeros(*shape, values.shape[-1])], dim=2)
        self._slots = slots

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Writes one step's keys and values ``(B, g, N, d)`` and gives back the whole buffers."""
        self.keys.index_copy_(2, self._slots, key_states)
        self.values.index_copy_(2, self._slots, value_states)
        return self.keys, self.values


class StaticPrefixDecoder(SharedPrefixDecoder):
    """``SharedPrefixDecoder`` whose steps all have the same shapes and addresses.

    On CUDA the step is captured as a graph the first time that tokens are fed, and replayed from
    then on: one launch instead of one for every kernel of the model. Without gradients only.

    Args:
        sequences: what is continued, with a cache that can be shared.
        positions: ``(B, N)`` int64.
        copies: K.
        steps: the most steps that will be fed.
    """

    def __init__(self, sequences: Sequences, positions: Tensor, copies: int, steps: int) -> None:
        super().__init__(sequences, positions, copies)
        if torch.is_grad_enabled():
            raise ValueError("static buffers are overwritten: decode under torch.no_grad()")
        branches, device = self._shape[1], positions.device
        self._steps = steps
        self._slots = self._prefix_length + torch.arange(branches, device=device)
        self._step_index = torch.zeros((), dtype=torch.long, device=device)
        self._tokens = torch.zeros(self._shape, dtype=torch.long, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured: BaseModelOutput | None = None
        cache = DynamicCache()
        for layer in sequences.cache.layers:
            cache.layers.append(
                StaticBranchLayer(layer.keys, layer.values, steps * branches, self._slots)
            )
        self._cache = cache

    def _run(self, input_ids: Tensor | None, inputs_embeds: Tensor | None = None) -> Tensor:
        if self._step == self._steps:
            raise ValueError(f"there is room for {self._steps} steps")
        if input_ids is None or not input_ids.is_cuda:
            output = self._forward(input_ids, inputs_embeds)
            logits, states = output.logits, output.last_hidden_state
        else:
            self._tokens.copy_(input_ids)
            output = self._replay()
            # The next replay overwrites what the graph gave.
            logits, states = output.logits.clone(), output.last_hidden_state.clone()
        self._step += 1
        self._step_index += 1
        self._slots += self._shape[1]
        self.next_logits = logits.flatten(0, 1)
        return states.flatten(0, 1)

    def _replay(self) -> BaseModelOutput:
        if self._graph is None or self._captured is None:
            # Warming up writes the slots that the replay writes again.
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_STEPS):
                    self._forward(self._tokens, None)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._captured = self._forward(self._tokens, None)
        self._graph.replay()
        return self._captured

    def _forward(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> BaseModelOutput:
        with branch_attention(self._base_model):
            return run_base_model(
                self._base_model,
                input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=self._mask.additive(
                    self._base_model, self._step_index, self._steps, self._dtype
                ),
                position_ids=self._mask.position_ids(self._step_index),
                past_key_values=self._cache,
                use_cache=True,
                prefix_length=self._prefix_length,
            )
