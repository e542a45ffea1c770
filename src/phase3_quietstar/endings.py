"""Where thoughts end, and what the model makes of each as a whole."""

import math

import torch
from torch import Tensor

from .base_model import BaseModel
from .decoding import Decoder
from .thought_tokens import ThoughtTokens, embed


class ThoughtEndings:
    """Feeds the tokens of R thoughts and keeps, for each, the state that has read all of it.

    Rows that have ended go on being fed, as batches do, and what comes of it is thrown away. A
    learned end-of-thought embedding is fed to each row right after its own last token.

    Args:
        base_model: the decoder's.
        decoder: what the thoughts are fed to.
        length: L, the most tokens of a thought.
        min_length: fewest tokens of a thought that an end token ends.
        end_token_id: the token that ends a thought, itself its last; None: none does.
        thought_tokens: the learned embeddings, or None.
    """

    def __init__(
        self,
        base_model: BaseModel,
        decoder: Decoder,
        length: int,
        min_length: int,
        end_token_id: int | None,
        thought_tokens: ThoughtTokens | None,
    ) -> None:
        self._base_model = base_model
        self._decoder = decoder
        self._length = length
        self._min_length = min_length
        self._end_token_id = end_token_id
        self._closing = None if thought_tokens is None else thought_tokens.end
        logits = decoder.next_logits
        self._lengths = torch.full(logits.shape[:1], length, device=logits.device)
        self._finished = torch.zeros(logits.shape[:1], dtype=torch.bool, device=logits.device)
        self._state: Tensor | None = None
        self._logits = logits

    def allowed(self, step: int) -> Tensor:
        """Logits ``(R, V)`` of the next token, without an end token that would come too early."""
        logits = self._decoder.next_logits
        if self._end_token_id is None or step + 1 >= self._min_length:
            return logits
        token = torch.tensor([self._end_token_id], device=logits.device)
        return logits.index_fill(-1, token, -math.inf)

    def padded(self, token_ids: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and their log-probabilities ``(R,)``; an end token and 0 where a row has ended."""
        if self._end_token_id is None:
            return token_ids, log_probs
        return (
            token_ids.masked_fill(self._finished, self._end_token_id),
            log_probs.masked_fill(self._finished, 0.0),
        )

    def feed(self, token_ids: Tensor, step: int) -> Tensor:
        """Feeds one token per row; its hidden states ``(R, H)``, zeros for rows that have ended."""
        if self._end_token_id is None:
            states = self._decoder.feed(token_ids)
            self._keep(states, None)
            return states
        if self._closing is None:
            states = self._decoder.feed(token_ids)
            self._keep(states, ~self._finished)
        else:
            just_ended = self._finished & (self._lengths == step)
            tokens = embed(self._base_model, token_ids)
            closing = self._closing.to(tokens.dtype)
            states = self._decoder.feed_embeddings(
                torch.where(just_ended.unsqueeze(-1), closing, tokens)
            )
            self._keep(states, just_ended)
        states = states.masked_fill(self._finished.unsqueeze(-1), 0.0)
        ending = ~self._finished & (token_ids == self._end_token_id)
        self._lengths = self._lengths.masked_fill(ending, step + 1)
        self._finished = self._finished | ending
        return states

    def close(self) -> tuple[Tensor, Tensor, Tensor]:
        """Lengths ``(R,)``, last hidden states ``(R, H)`` and the logits from them ``(R, V)``."""
        if self._closing is not None:
            states = self._decoder.feed_embeddings(self._closing)
            self._keep(states, self._lengths == self._length)
        assert self._state is not None, "close() comes after feed()"
        return self._lengths, self._state, self._logits

    def _keep(self, states: Tensor, rows: Tensor | None) -> None:
        """Takes over the states and the logits of the given rows, or of all."""
        logits = self._decoder.next_logits
        if rows is None or self._state is None:
            self._state, self._logits = states, logits
        else:
            chosen = rows.unsqueeze(-1)
            self._state = torch.where(chosen, states, self._state)
            self._logits = torch.where(chosen, logits, self._logits)
