"""Which parameters Muon updates and which AdamW."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

MUON = "muon"
ADAMW = "adamw"
ALGORITHMS = (MUON, ADAMW)

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# Where only a name is known: parts of dotted names that mean an embedding, an output head or a norm
# in the models of torch, torchvision, timm and transformers.
_EMBEDDING_NAMES = frozenset({"wte", "wpe", "shared", "cls_token"})
_HEAD_NAMES = frozenset(
    {"lm_head", "head", "heads", "embed_out", "unembed", "classifier", "score", "qa_outputs"}
)


class Route(NamedTuple):
    """The algorithm that updates a parameter, and why."""

    algorithm: str
    reason: str


def route_tensor(param: Tensor) -> Route:
    """Route a parameter of which nothing but its shape is known: a matrix or more to Muon."""
    if param.numel() == 0:
        return Route(ADAMW, "empty")
    if param.ndim < 2:
        return Route(ADAMW, f"{param.ndim} dimension{'s' * (param.ndim != 1)}")
    return Route(MUON, "matrix" if param.ndim == 2 else f"{param.ndim} dimensions, flattened to 2")


def route_named(name: str, param: Tensor) -> Route:
    """Route a parameter by its dotted name and its shape.

    Biases, and what the name says is an embedding, a norm or an output head, go to AdamW; of the
    rest, what has 2 dimensions or more goes to Muon. :func:`route_model` sees the modules
    themselves and does not depend on what they are called.

    Args:
        name: As ``named_parameters()`` gives it, for example ``"layers.0.mlp.up_proj.weight"``.
        param: The parameter.
    """
    *path, leaf = name.lower().split(".")
    if leaf.startswith("bias"):
        return Route(ADAMW, "bias by its name")
    parts = (*path, leaf)
    last = {*path[-1:], leaf}
    if any("embed" in part for part in parts) or last & _EMBEDDING_NAMES:
        return Route(ADAMW, "embedding by its name")
    if any("norm" in part for part in parts):
        return Route(ADAMW, "norm by its name")
    if last & _HEAD_NAMES:
        return Route(ADAMW, "output head by its name")
    return route_tensor(param)


def route_model(model: nn.Module) -> list[tuple[str, Tensor, Route]]:
    """Route the parameters of a model by the modules that own them.

    AdamW takes biases and other parameters of fewer than 2 dimensions; everything in embeddings and
    normalisation layers; the output head, which is what ``get_output_embeddings()`` returns, a
    weight that an embedding shares, or the model's last linear layer where it leads back from an
    embedding's width to its number of rows (the vocabulary); and what :func:`route_named`
    recognises by name. Muon takes the other matrices, and convolutions.

    Args:
        model: Any module; a shared parameter is taken once, under its first name.

    Returns:
        Each parameter with its name and route, in the model's order.
    """
    reasons = {
        id(param): reason
        for module, reason in _adamw_modules(model)
        for param in module.parameters()
    }
    return [
        (
            name,
            param,
            Route(ADAMW, reasons[id(param)]) if id(param) in reasons else route_named(name, param),
        )
        for name, param in model.named_parameters()
    ]


def _adamw_modules(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield modules whose parameters are AdamW's, the more telling reason for a shared one last."""
    last_linear = None
    vocabularies = set()
    heads = []
    for module in model.modules():
        if isinstance(module, _NORMS):
            yield module, f"in {type(module).__name__}"
        if isinstance(module, nn.Linear):
            last_linear = module
        if isinstance(module, _EMBEDDINGS):
            vocabularies.add((module.embedding_dim, module.num_embeddings))
        get_output_embeddings = getattr(module, "get_output_embeddings", None)
        head = get_output_embeddings() if callable(get_output_embeddings) else None
        if isinstance(head, nn.Module):
            heads.append(head)
    # Only the last one: a hidden layer can have these sizes by chance.
    if (
        last_linear is not None
        and (last_linear.in_features, last_linear.out_features) in vocabularies
    ):
        heads.append(last_linear)
    head_weights = {id(param) for head in heads for param in head.parameters()}
    for head in heads:
        yield head, "output head"
    for module in model.modules():
        if isinstance(module, _EMBEDDINGS):
            tied = any(id(param) in head_weights for param in module.parameters())
            yield module, f"in {type(module).__name__}" + ", tied to the output head" * tied
