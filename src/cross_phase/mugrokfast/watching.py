"""How QK-clip sees the attention layers of whole models."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .qk_clip import (
    Projection,
    WatchedLayer,
    heads,
    is_attended,
    linear_layer,
    max_attention_logits,
    module_projection,
    out_features,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Attention modules of transformers that are being watched, by any hook.
_WATCHED: WeakKeyDictionary[nn.Module, WatchedLayer] = WeakKeyDictionary()
# The attention functions that have been replaced, None for the eager one, which each model has for
# itself.
_REPLACED: dict[str, Any] = {}


def watch_model(model: nn.Module) -> tuple[list[Callable[[], None]], dict[str, WatchedLayer]]:
    """Start observing every attention layer of a model.

    Args:
        model: See :meth:`~.qk_clip.QKClipHook.watch_model`.

    Returns:
        What takes the observers off again, and the layers by module name.

    Raises:
        ValueError: There is no layer that can be watched, or one that cannot be clipped.
    """
    multihead: dict[str, tuple[nn.MultiheadAttention, WatchedLayer]] = {}
    others: dict[str, tuple[nn.Module, WatchedLayer]] = {}
    for path, module in model.named_modules():
        name = path or type(module).__name__
        if isinstance(module, nn.MultiheadAttention):
            multihead[name] = module, _multihead_layer(name, module)
        elif _is_transformers_attention(module):
            others[name] = module, _transformers_layer(name, module)
    if not multihead and not others:
        raise ValueError(
            f"{type(model).__name__} has no attention layer that can be found: neither "
            "torch.nn.MultiheadAttention nor an attention of transformers with q_proj and k_proj, "
            "c_attn or query_key_value; use watch() for each layer"
        )
    for module, layer in multihead.values():
        hook = partial(_see_multihead, layer)
        layer.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    _WATCHED.update(others.values())
    for module, _ in others.values():
        _replace_attention_function(module)
    undo: list[Callable[[], None]] = []
    if others:
        undo.append(partial(_forget, [module for module, _ in others.values()]))
    return undo, {name: layer for name, (_, layer) in (multihead | others).items()}


def _multihead_layer(name: str, module: nn.MultiheadAttention) -> WatchedLayer:
    if module.bias_k is not None:
        raise ValueError(
            f"{name}: add_bias_kv=True adds a key that no projection makes, and QK-clip could not "
            "bound its logits"
        )
    own = heads(module.num_heads, module.head_dim)
    second = own + module.embed_dim
    fused: Tensor | None = module.in_proj_weight
    query = [(module.q_proj_weight if fused is None else fused, 0, own)]
    key = [(module.k_proj_weight, 0, own) if fused is None else (fused, 0, second)]
    # One bias for queries, keys and values, with separate weights, too.
    if module.in_proj_bias is not None:
        query.append((module.in_proj_bias, 0, own))
        key.append((module.in_proj_bias, 0, second))
    return WatchedLayer(Projection(own, query), Projection(own, key))


def _see_multihead(
    layer: WatchedLayer,
    # torch declares in_proj_weight and in_proj_bias as tensors; they can be None.
    module: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    if not module.training:
        return
    given = inspect.signature(nn.MultiheadAttention.forward).bind(module, *args, **kwargs).arguments
    with torch.no_grad():
        inputs = [given["query"], given["key"]]
        if not module.batch_first and inputs[0].ndim == 3:
            inputs = [tensor.transpose(0, 1) for tensor in inputs]
        width = module.embed_dim
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight[:width], module.in_proj_weight[width : 2 * width]
        else:
            weights = module.q_proj_weight, module.k_proj_weight
        bias = module.in_proj_bias
        biases = (None, None) if bias is None else (bias[:width], bias[width : 2 * width])
        query, key = (
            projection.take(F.linear(x, w, b))
            for projection, x, w, b in zip(
                (layer.query, layer.key), inputs, weights, biases, strict=True
            )
        )
        layer.observe(max_attention_logits(query, key, mask=_multihead_mask(given, query, key)))


def _multihead_mask(given: Mapping[str, Any], query: Tensor, key: Tensor) -> Tensor | None:
    """Return what may be attended to, (B | 1, H | 1, T | 1, S), from MultiheadAttention's masks."""
    masks = []
    attn_mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
    if attn_mask is not None:
        allowed = _allowed(attn_mask)
        masks.append(allowed if allowed.ndim == 2 else allowed.view(*query.shape[:3], key.size(2)))
    if padding is not None:
        masks.append(_allowed(padding).view(query.size(0), 1, 1, key.size(2)))
    return None if not masks else masks[0] if len(masks) == 1 else masks[0] & masks[1]


def _allowed(mask: Tensor) -> Tensor:
    # In MultiheadAttention True means masked out.
    return ~mask if mask.dtype == torch.bool else is_attended(mask)


def _is_transformers_attention(module: nn.Module) -> bool:
    defined_in = sys.modules.get(type(module).__module__)
    return hasattr(defined_in, "ALL_ATTENTION_FUNCTIONS") and (
        (hasattr(module, "q_proj") and hasattr(module, "k_proj"))
        or hasattr(module, "c_attn")
        or hasattr(module, "query_key_value")
    )


def _transformers_layer(name: str, module: nn.Module) -> WatchedLayer:
    config: Any = module.config
    count = config.num_attention_heads
    if hasattr(module, "q_norm") or hasattr(module, "k_norm"):
        raise ValueError(
            f"{name}: {type(module).__name__} normalises queries and keys after their projections, "
            "so that scaling these changes no logit; it needs no QK-clip"
        )
    if hasattr(module, "q_proj"):
        kv_heads = getattr(config, "num_key_value_heads", None) or count
        return linear_layer(
            name, _linear(module, "q_proj"), _linear(module, "k_proj"), count, kv_heads
        )
    if hasattr(module, "query_key_value"):
        # GPT-NeoX: each head's query, key and value side by side.
        fused = _linear(module, "query_key_value")
        width = out_features(fused) // (3 * count)
        if type(module).__name__ != "GPTNeoXAttention":
            raise ValueError(
                f"{name}: the order of queries and keys in {type(module).__name__} is not known; "
                "describe the layer with QKClipHook.add()"
            )
        return WatchedLayer(
            module_projection(fused, heads(count, width, 0, 3 * width)),
            module_projection(fused, heads(count, width, width, 3 * width)),
        )
    if getattr(module, "is_cross_attention", False):
        raise ValueError(
            f"{name}: cross-attention with queries and keys of different projections; describe the "
            "layer with QKClipHook.add()"
        )
    fused = _linear(module, "c_attn")
    return linear_layer(name, fused, fused, count, count)


def _linear(module: nn.Module, name: str) -> nn.Module:
    projection: nn.Module = getattr(module, name)
    return projection


def _replace_attention_function(module: nn.Module) -> None:
    """Put an observer in the place of the attention function that a module calls."""
    from transformers.modeling_utils import (  # noqa: PLC0415 - it is there: the module is its own
        ALL_ATTENTION_FUNCTIONS,
    )

    config: Any = module.config
    implementation = config._attn_implementation  # noqa: SLF001 - the only place that has it
    if implementation in _REPLACED:
        return
    original = ALL_ATTENTION_FUNCTIONS.get(implementation)
    _REPLACED[implementation] = original
    ALL_ATTENTION_FUNCTIONS[implementation] = partial(_observe_and_attend, original)


def _observe_and_attend(
    original: Callable[..., Any] | None,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> Any:
    layer = _WATCHED.get(module)
    if layer is not None and module.training:
        mask = attention_mask if isinstance(attention_mask, Tensor) else None
        if mask is not None and mask.ndim == 2:
            mask = mask.bool()[:, None, None, :]
        is_causal = kwargs.get("is_causal")
        if is_causal is None:
            is_causal = getattr(module, "is_causal", True)
        # A mask of four dimensions holds causality.
        whole = mask is not None and mask.size(2) > 1
        logits = max_attention_logits(
            query.detach(),
            key.detach(),
            scale=kwargs.get("scaling"),
            is_causal=bool(is_causal) and not whole and query.size(2) == key.size(2),
            mask=mask,
        )
        layer.observe(logits)
    if original is None:
        original = sys.modules[type(module).__module__].eager_attention_forward
    return original(module, query, key, value, attention_mask, **kwargs)


def _forget(modules: list[nn.Module]) -> None:
    from transformers.modeling_utils import (  # noqa: PLC0415 - see above
        ALL_ATTENTION_FUNCTIONS,
    )

    for module in modules:
        _WATCHED.pop(module, None)
    if _WATCHED:
        return
    for implementation, original in _REPLACED.items():
        ALL_ATTENTION_FUNCTIONS.pop(implementation)
        if original is not None and implementation not in ALL_ATTENTION_FUNCTIONS:
            ALL_ATTENTION_FUNCTIONS[implementation] = original
    _REPLACED.clear()
