"""Which parameters Muon updates and which AdamW."""

from collections.abc import Iterator

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


def route_tensor(param: Tensor) -> str:
    """Route a parameter of which nothing but its shape is known: a matrix or more to Muon."""
    return MUON if param.ndim >= 2 and param.numel() > 0 else ADAMW


def route_named(name: str, param: Tensor) -> str:
    """Route a parameter by its dotted name and its shape.

    Biases, and what the name says is an embedding, a norm or an output head, go to AdamW; of the
    rest, what has 2 dimensions or more goes to Muon. :func:`route_model` sees the modules
    themselves and does not depend on what they are called.

    Args:
        name: As ``named_parameters()`` gives it, for example ``"layers.0.mlp.up_proj.weight"``.
        param: The parameter.
    """
    *path, leaf = name.lower().split(".")
    fallback = (
        leaf.startswith("bias")
        or any("embed" in part or "norm" in part for part in (*path, leaf))
        or not (_EMBEDDING_NAMES | _HEAD_NAMES).isdisjoint((*path[-1:], leaf))
    )
    return ADAMW if fallback else route_tensor(param)


def route_model(model: nn.Module) -> dict[str, list[tuple[str, Tensor]]]:
    """Route the parameters of a model by the modules that own them.

    AdamW takes biases and other parameters of fewer than 2 dimensions; everything in embeddings and
    normalisation layers; the output head, which is what ``get_output_embeddings()`` returns, a
    weight that an embedding shares, or the model's last linear layer where it leads back from an
    embedding's width to its number of rows (the vocabulary); and what :func:`route_named`
    recognises by name. Muon takes the other matrices, and convolutions.

    Args:
        model: Any module; a shared parameter is taken once, under its first name.

    Returns:
        The parameters with their names, in the model's order, for each algorithm that has any;
        Muon first.
    """
    for_adamw = {id(param) for module in _adamw_modules(model) for param in module.parameters()}
    routes: dict[str, list[tuple[str, Tensor]]] = {algorithm: [] for algorithm in ALGORITHMS}
    for name, param in model.named_parameters():
        algorithm = ADAMW if id(param) in for_adamw else route_named(name, param)
        routes[algorithm].append((name, param))
    return {algorithm: named for algorithm, named in routes.items() if named}


def _adamw_modules(model: nn.Module) -> Iterator[nn.Module]:
    last_linear = None
    vocabularies = set()
    for module in model.modules():
        if isinstance(module, (*_EMBEDDINGS, *_NORMS)):
            yield module
        if isinstance(module, _EMBEDDINGS):
            vocabularies.add((module.embedding_dim, module.num_embeddings))
        if isinstance(module, nn.Linear):
            last_linear = module
        get_output_embeddings = getattr(module, "get_output_embeddings", None)
        head = get_output_embeddings() if callable(get_output_embeddings) else None
        if isinstance(head, nn.Module):
            yield head
    # Only the last one: a hidden layer can have these sizes by chance.
    if (
        last_linear is not None
        and (last_linear.in_features, last_linear.out_features) in vocabularies
    ):
        yield last_linear
