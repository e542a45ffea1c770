"""Continues every row of a prefix several times, one token per row and step."""

from typing import Any

from torch import Tensor, cat

from .base_model import BaseModel, run_base_model


class PrefixDecoder:
    """Runs the prefix once and then feeds one token per row and step.

    The rows of one prefix lie next to each other: row ``b * copies + k`` is continuation ``k`` of
    prefix ``b``. Where the model keeps a key-value cache, a step costs one token; elsewhere the
    rows are run again from their start. Autograd is left as it is found.

    Args:
        base_model: any base model (see ``base_model``).
        prefix_ids: ``(B, P)`` integers.
        copies: continuations of each prefix.

    Attributes:
        next_logits: ``(B * copies, V)``, for the token that follows what was fed so far.
        uses_cache: whether steps go through a key-value cache.
    """

    def __init__(self, base_model: BaseModel, prefix_ids: Tensor, copies: int) -> None:
        self._base_model = base_model
        output = run_base_model(base_model, prefix_ids, use_cache=True, last_logits_only=True)
        self.next_logits = output.logits[:, -1].repeat_interleave(copies, dim=0)
        self._cache: Any = output.past_key_values
        self.uses_cache = _can_be_repeated(self._cache)
        if self.uses_cache:
            self._cache.batch_repeat_interleave(copies)
        else:
            self._token_ids = prefix_ids.repeat_interleave(copies, dim=0)

    def feed(self, token_ids: Tensor) -> Tensor:
        """Appends one token to every row.

        Args:
            token_ids: ``(B * copies,)`` integers.

        Returns:
            The hidden states of these tokens, ``(B * copies, H)``.
        """
        column = token_ids.unsqueeze(-1)
        if self.uses_cache:
            output = run_base_model(
                self._base_model,
                column,
                past_key_values=self._cache,
                use_cache=True,
                last_logits_only=True,
            )
            self._cache = output.past_key_values
        else:
            self._token_ids = cat([self._token_ids, column], dim=-1)
            output = run_base_model(self._base_model, self._token_ids, last_logits_only=True)
        self.next_logits = output.logits[:, -1]
        return output.last_hidden_state[:, -1]


def _can_be_repeated(cache: Any) -> bool:
    """Whether the cache is there and every layer of it can serve several rows per prefix.

    Recurrent (linear attention) layers keep states that have no such operation.
    """
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(hasattr(layer, "batch_repeat_interleave") for layer in layers)
