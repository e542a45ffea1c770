"""The learned embeddings that open and close a thought."""

from typing import Any

from torch import Tensor, nn

from .base_model import BaseModel
from .branch_attention import supports_branches


class ThoughtTokens(nn.Module):
    """Start-of-thought and end-of-thought as input embeddings (arXiv 2403.09629, section 4.3).

    They are no entries of the vocabulary, so they can never be sampled.

    Args:
        base_model: a Hugging Face model of a family in ``BRANCHING_FAMILIES``.
        token_id: the token whose embedding both start from (the paper takes that of "---"); by
            default the mean of all embeddings.

    Attributes:
        start: ``(E,)``, in the embeddings' dtype and on their device.
        end: as ``start``.

    Raises:
        ValueError: the base model cannot be fed embeddings along branches, or the token is not in
            its vocabulary.
    """

    def __init__(self, base_model: BaseModel, token_id: int | None = None) -> None:
        super().__init__()
        if not supports_branches(base_model):
            raise ValueError(
                f"{type(base_model).__name__} cannot be fed learned thought embeddings: that needs "
                "a Hugging Face model of a family in phase3_quietstar.branch_attention."
                "BRANCHING_FAMILIES; pass learned_thought_tokens=False to think without them"
            )
        weight = input_embeddings(base_model).weight.detach()
        if token_id is not None and not 0 <= token_id < weight.shape[0]:
            raise ValueError(f"token_id must be in [0, {weight.shape[0]}), got {token_id}")
        initial = (
            weight.float().mean(dim=0).to(weight.dtype) if token_id is None else weight[token_id]
        )
        self.start = nn.Parameter(initial.clone())
        self.end = nn.Parameter(initial.clone())


def input_embeddings(base_model: BaseModel) -> nn.Embedding:
    """The map of a Hugging Face model from token ids to its first layer's input."""
    model: Any = base_model
    embeddings: nn.Embedding = model.get_input_embeddings()
    return embeddings


def embed(base_model: BaseModel, token_ids: Tensor) -> Tensor:
    """Input embeddings ``(..., E)`` of tokens ``(...)``."""
    embedded: Tensor = input_embeddings(base_model)(token_ids)
    return embedded
