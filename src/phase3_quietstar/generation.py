"""Continues sequences with thoughts before the tokens that are hard."""

from typing import Protocol

import torch
from torch import Tensor

from .base_model import BaseModel
from .decoding import Sequences
from .draws import distinct_keys, draw_seed, prefix_keys, uniform_draws
from .injection import ThoughtInjector
from .sampling import SamplingSettings, sample_tokens


class Think(Protocol):
    """Thinks at positions ``(B, N)``: logits ``(B, N, V)`` and scores ``(B, N, K)``."""

    def __call__(
        self, sequences: Sequences, positions: Tensor, *, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Predicts anew with thoughts."""
        ...


def generate_tokens(
    base_model: BaseModel,
    think: Think | None,
    injector: ThoughtInjector,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    attention_mask: Tensor | None,
    settings: SamplingSettings,
    eos_token_id: int | None,
    pad_token_id: int | None,
    generator: torch.Generator | None,
) -> Tensor:
    """``QuietSTaRModel.generate`` on its parts; the arguments are checked there.

    Args:
        base_model: what predicts.
        think: what predicts with thoughts; None: never.
        injector: says where; one decision for all sequences that have not ended.
        input_ids: ``(B, T)``, padded at the start.
        max_new_tokens: the most tokens to add.
        attention_mask: ``(B, T)``.
        settings: how the new tokens are chosen.
        eos_token_id: ends a sequence.
        pad_token_id: follows its end.
        generator: source of randomness.

    Returns:
        ``(B, T + new)``.
    """
    sequences = Sequences(base_model, input_ids, attention_mask, last_only=True)
    seed = draw_seed(generator, input_ids.device) if settings.do_sample else None
    unfinished = torch.ones(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    injector.reset()
    length = input_ids.shape[1] + max_new_tokens
    while True:
        logits = sequences.logits[:, -1]
        column = sequences.input_ids.shape[1] - 1
        if think is not None and injector(logits[unfinished], position=column):
            positions = torch.full((len(logits), 1), column, device=logits.device)
            logits = think(sequences, positions, generator=generator)[0][:, 0]
        uniforms: Tensor | None = None
        if seed is not None:
            keys = prefix_keys(sequences.input_ids, sequences.attention_mask)[:, -1]
            uniforms = uniform_draws(seed, distinct_keys(keys), 1, 1).flatten()
        tokens, _ = sample_tokens(logits, uniforms, settings)
        if eos_token_id is not None and pad_token_id is not None:
            tokens = tokens.masked_fill(~unfinished, pad_token_id)
            unfinished = unfinished & (tokens != eos_token_id)
        tokens = tokens.to(input_ids.dtype)
        if column + 2 == length or not unfinished.any():
            return torch.cat([sequences.input_ids, tokens.unsqueeze(-1)], dim=-1)
        sequences = sequences.extended(tokens)
