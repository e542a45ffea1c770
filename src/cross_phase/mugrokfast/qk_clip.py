"""QK-clip: keep attention logits bounded (MuonClip, Kimi K2, arXiv 2507.20534)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .distributed import all_reduce_max, is_dtensor, local, mesh_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.distributed import ProcessGroup
    from torch.utils.hooks import RemovableHandle

# Query rows per block of logits, which bounds the memory of looking for the largest one.
_BLOCK = 1024


def apply_qk_clip(scores: Tensor, threshold: float) -> tuple[Tensor, int]:
    """Clamp attention scores to [-threshold, threshold] inside a forward pass.

    This is the in-forward form: the clamped scores pass no gradient. :class:`QKClipHook` is the
    other form, which changes no forward pass. Masked entries, those at minus infinity or at the
    lower end of the type's range, stay as they are.

    Args:
        scores: Attention scores before the softmax, floating point, any shape.
        threshold: Bound, greater than 0.

    Returns:
        The clamped scores, and how many were clamped.

    Raises:
        ValueError: ``threshold`` is not a number greater than 0.
    """
    _check_threshold(threshold)
    masked = scores <= torch.finfo(scores.dtype).min / 2
    outside = (scores.abs() > threshold) & ~masked
    clamped = torch.where(masked, scores, scores.clamp(-threshold, threshold))
    return clamped, int(outside.sum())


def max_attention_logits(
    query: Tensor,
    key: Tensor,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Return each query head's largest attention logit :math:`\max s\, q_i \cdot k_j`.

    Args:
        query: (B, H, T, d), as the attention sees it (after rotary embeddings and norms).
        key: (B, H_kv, S, d), where H is a multiple of H_kv (grouped-query attention).
        scale: :math:`s`; by default :math:`1 / \sqrt d`.
        is_causal: Look only at keys that are not after the query. Needs T == S.
        mask: What may be attended to, broadcastable to (B, H, T, S), see :func:`is_attended`.
            Numbers that are added to logits, as biases are, do not count as parts of them.

    Returns:
        (H,) in float64 for float64 input, otherwise in float32.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    if query.ndim != 4 or key.ndim != 4 or query.size(1) % key.size(1):
        raise ValueError(
            "query must be (B, H, T, d) and key (B, H_kv, S, d) with H a multiple of H_kv, got "
            f"{tuple(query.shape)} and {tuple(key.shape)}"
        )
    if is_causal and query.size(2) != key.size(2):
        raise ValueError(
            f"is_causal needs as many queries as keys, got {query.size(2)} and {key.size(2)}; "
            "pass is_causal=False"
        )
    dtype = torch.promote_types(query.dtype, torch.float32)
    batch, heads, length, width = query.shape
    kv_heads = key.size(1)
    # (B, H_kv, G, T, d) against (B, H_kv, 1, d, S): the heads of one group share their key.
    grouped = query.detach().to(dtype).view(batch, kv_heads, heads // kv_heads, length, width)
    keys = key.detach().to(dtype).unsqueeze(2).mT
    largest = grouped.new_full((kv_heads, heads // kv_heads), -math.inf)
    for start in range(0, length, _BLOCK):
        logits = grouped[:, :, :, start : start + _BLOCK] @ keys
        if mask is not None:
            logits = logits.masked_fill(~_attended(mask, start, logits), -math.inf)
        if is_causal:
            row = torch.arange(start, start + logits.size(-2), device=logits.device)
            column = torch.arange(logits.size(-1), device=logits.device)
            logits = logits.masked_fill(column > row[:, None], -math.inf)
        largest = torch.maximum(largest, logits.amax(dim=(0, 3, 4)))
    return largest.flatten() * (1 / math.sqrt(width) if scale is None else scale)


def is_attended(mask: Tensor) -> Tensor:
    """Return where a mask lets attention through: True, or a number above -10,000.

    Adding less leaves no probability in any floating-point type.
    """
    return mask if mask.dtype == torch.bool else mask > -1e4


def _attended(mask: Tensor, start: int, logits: Tensor) -> Tensor:
    """Return the block of a mask (B | 1, H | 1, T | 1, S | 1) for logits (B, H_kv, G, t, S)."""
    mask = is_attended(mask)
    mask = mask.expand(*(1,) * (4 - mask.ndim), *mask.shape)
    if mask.size(2) > 1:
        mask = mask[:, :, start : start + logits.size(-2)]
    if mask.size(1) == 1:
        return mask.unsqueeze(1)
    return mask.view(mask.size(0), *logits.shape[1:3], *mask.shape[2:])


def qk_clip_factors(
    max_logits: Tensor, threshold: float, num_key_value_heads: int
) -> tuple[Tensor, Tensor]:
    r"""Return the factors of each head's query and key projection.

    With :math:`\gamma_h = \min(1, \tau / S_h)`, query and key of a head are each scaled by
    :math:`\sqrt{\gamma_h}` (arXiv 2507.20534, section 2.1), and the head's logits by
    :math:`\gamma_h`. A key head that several query heads share takes the smallest of theirs,
    :math:`\sqrt{\gamma_{min}}`, and a query head the rest,
    :math:`\gamma_h / \sqrt{\gamma_{min}}`, so that heads under the threshold keep their logits.

    Args:
        max_logits: :math:`S_h`, (H,).
        threshold: :math:`\tau`.
        num_key_value_heads: H_kv, a divisor of H.

    Returns:
        The factors of the query heads (H,) and of the key heads (H_kv,).
    """
    gamma = torch.where(max_logits > threshold, threshold / max_logits, 1.0)
    grouped = gamma.view(num_key_value_heads, -1)
    key = grouped.amin(dim=1).sqrt()
    return (grouped / key[:, None]).flatten(), key


@torch.no_grad()
def scale_heads_(projection: Tensor, factors: Tensor) -> None:
    """Scale the rows of a projection in place, head by head.

    Args:
        projection: The weight (H * d, in_features) or the bias (H * d,) of a projection, or the
            rows of a fused projection that belong to it.
        factors: (H,).
    """
    width = projection.size(0) // factors.size(0)
    _scale_features_(projection, factors.repeat_interleave(width), dim=0)


def _scale_features_(param: Tensor, factors: Tensor, dim: int) -> None:
    """Scale a parameter, or this process's shard of it, along one dimension."""
    shape = [1] * param.ndim
    shape[dim] = -1
    if is_dtensor(param):
        # Every process has all factors; each takes those of its piece.
        whole = factors.view(shape).expand(param.shape)
        factors = local(_replicated(whole, param).redistribute(placements=param.placements))
        local(param).mul_(factors.to(param.dtype))
    else:
        param.mul_(factors.to(param).view(shape))


def _replicated(tensor: Tensor, like: Any) -> Any:
    from torch.distributed.tensor import DTensor, Replicate  # noqa: PLC0415 - 0.7 s for nothing

    mesh = like.device_mesh
    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)


@dataclass(frozen=True)
class Projection:
    """Where the queries or the keys of an attention layer come from.

    Args:
        features: (H, d), for each head the features of the module's output that are its own.
        parameters: Weights and biases, each with the dimension that its features lie along, and
            with those of each head (H, d).
    """

    features: Tensor
    parameters: Sequence[tuple[Tensor, int, Tensor]]

    def take(self, projected: Tensor) -> Tensor:
        """Return the heads (B, H, T, d) of the module's output (B, T, F) or (T, F)."""
        if projected.ndim == 2:
            projected = projected.unsqueeze(0)
        heads, width = self.features.shape
        flat = self.features.flatten().to(projected.device)
        taken = projected.index_select(-1, flat)
        return taken.view(*projected.shape[:2], heads, width).transpose(1, 2)

    def scale_(self, factors: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Multiply each head's features by its factor, in latent weights, too."""
        for param, dim, features in self.parameters:
            rows = factors.new_ones(param.size(dim))
            index = features.flatten().to(factors.device)
            rows[index] = factors.repeat_interleave(features.size(1))
            _scale_features_(param, rows, dim)
            # A ternary weight is made anew from its latent weight at each step.
            latent = optimizer.state.get(param, {}).get("latent_weight")
            if latent is not None:
                _scale_features_(latent, rows, dim)


@dataclass(eq=False)
class WatchedLayer:
    """An attention layer, and what its last forward passes showed."""

    query: Projection
    key: Projection
    scale: float | None = None
    is_causal: bool = False
    max_logits: Tensor | None = None
    last_max_logits: Tensor | None = None
    counts: Tensor | None = None
    handles: list[RemovableHandle] = field(default_factory=list)

    @property
    def num_heads(self) -> int:
        """H."""
        return self.query.features.size(0)

    @property
    def num_key_value_heads(self) -> int:
        """H_kv."""
        return self.key.features.size(0)

    def observe(self, max_logits: Tensor) -> None:
        """Take the heads' largest logits of one forward pass (H,) into account."""
        if self.max_logits is not None:
            max_logits = torch.maximum(self.max_logits, max_logits)
        self.max_logits = max_logits


class QKClipHook:
    r"""Rescale the query and key projections of heads whose logits grew too large.

    The post-step form of QK-clip (MuonClip; Kimi K2, arXiv 2507.20534, section 2.1). Forward passes
    in training mode record each head's largest logit :math:`S_h`; after the optimizer's step a
    head with :math:`S_h > \tau` has its rows of :math:`W_q` and :math:`W_k`, and of their biases,
    multiplied by :func:`qk_clip_factors`. The forward and backward pass themselves stay as they
    are. The maxima of several forward passes before one step are taken together.

    It is a step post-hook of any :class:`torch.optim.Optimizer`; MuonGrokfast comes with one, as
    ``optimizer.qk_clip``::

        optimizer = MuonGrokfast(model, qk_clip_threshold=30.0)
        optimizer.qk_clip.watch_model(model)

    On the CPU a logit that is not finite is an error of the step. On an accelerator the step does
    not wait to see it: such a head keeps its weights, and the error comes when
    :attr:`clip_counts` or :attr:`max_logits` are read.

    Hooks belong to modules and optimizers that live: copying or pickling an optimizer leaves the
    watched layers behind.

    Args:
        threshold: Largest logit :math:`\tau` that is left alone, greater than 0.
        process_group: Processes that train the same weights on other data: they take the largest of
            their logits. For sharded weights the processes of their mesh are taken by themselves.

    Raises:
        ValueError: ``threshold`` is not a number greater than 0.
    """

    def __init__(self, threshold: float = 30.0, process_group: ProcessGroup | None = None) -> None:
        _check_threshold(threshold)
        self.threshold = threshold
        self.process_group = process_group
        self._layers: dict[str, WatchedLayer] = {}
        self._undo: list[Callable[[], None]] = []

    def watch_model(self, model: nn.Module) -> None:
        """Watch every attention layer of a model.

        These are :class:`torch.nn.MultiheadAttention` and, in models of transformers, attention
        modules with ``q_proj`` and ``k_proj`` (Llama, Mistral, Qwen2 and others), with GPT-2's
        ``c_attn``, or GPT-NeoX's ``query_key_value``. Those are seen where they call the attention
        function, so that rotary embeddings, scales and masks are as the model applies them; for
        other attention modules use :meth:`watch` or :meth:`observe`.

        Args:
            model: The model, before it is wrapped or compiled. Its attention layers get their
                module names.

        Raises:
            ValueError: There is no such layer, or one that cannot be clipped; the message says why.
        """
        from .watching import watch_model  # noqa: PLC0415 - watching needs this module

        handles, layers = watch_model(model)
        self._undo += handles
        for name, layer in layers.items():
            self.add(name, layer)

    def watch(
        self,
        name: str,
        query_proj: nn.Module,
        key_proj: nn.Module,
        *,
        num_heads: int,
        num_key_value_heads: int | None = None,
        scale: float | None = None,
        is_causal: bool = False,
        observe_forward: bool = True,
    ) -> None:
        r"""Watch an attention layer whose projections are linear modules.

        The logits are those of the projections' outputs. Where the model turns or normalises
        queries and keys before it multiplies them, as with rotary embeddings, pass
        ``observe_forward=False`` and report the logits with :meth:`observe`.

        Args:
            name: The layer's name in counts and errors.
            query_proj: Gives queries (B, T, H * d) or (T, H * d).
            key_proj: Gives keys (B, S, H_kv * d) or (S, H_kv * d). The same module as
                ``query_proj`` for a fused projection, whose output holds queries, keys and values
                of the same width in this order, or queries and fewer heads of keys and values.
            num_heads: H.
            num_key_value_heads: H_kv, a divisor of H; by default H.
            scale: Factor of the logits; by default :math:`1 / \sqrt d`.
            is_causal: Leave out keys after the query.
            observe_forward: Compute the logits at each forward pass in training mode. It costs the
                product of queries and keys once more.

        Raises:
            ValueError: The name is taken, or the sizes do not fit.
        """
        kv_heads = num_heads if num_key_value_heads is None else num_key_value_heads
        layer = linear_layer(name, query_proj, key_proj, num_heads, kv_heads)
        layer.scale, layer.is_causal = scale, is_causal
        self.add(name, layer)
        if observe_forward:
            _observe_forward(layer, query_proj, key_proj)

    def add(self, name: str, layer: WatchedLayer) -> None:
        """Watch a layer that is described by its parts.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._layers:
            raise ValueError(f"a layer {name!r} is watched already; give this one another name")
        self._layers[name] = layer

    def observe(self, name: str, max_logits: Tensor) -> None:
        """Report logits that were seen in a layer since the last step.

        Args:
            name: A watched layer.
            max_logits: Each query head's largest logit (H,), for example of
                :func:`max_attention_logits`.

        Raises:
            KeyError: No layer of that name is watched.
            ValueError: The shape is not (H,).
        """
        if name not in self._layers:
            raise KeyError(f"no layer {name!r} is watched; call watch() first")
        layer = self._layers[name]
        if max_logits.shape != (layer.num_heads,):
            raise ValueError(
                f"{name}: expected one logit for each of {layer.num_heads} heads, got the shape "
                f"{tuple(max_logits.shape)}"
            )
        layer.observe(max_logits.detach())

    @torch.no_grad()
    def __call__(
        self, optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]
    ) -> None:
        """Clip after a step: the signature of ``register_step_post_hook``.

        Raises:
            ValueError: On the CPU: a logit is NaN or infinite; no weight has been scaled then.
        """
        seen = {n: layer for n, layer in self._layers.items() if layer.max_logits is not None}
        for layer in seen.values():
            weights = [param for param, _, _ in layer.query.parameters]
            groups = [] if self.process_group is None else [self.process_group]
            groups += [group for group in mesh_groups(weights) if group not in groups]
            assert layer.max_logits is not None
            layer.last_max_logits = all_reduce_max(layer.max_logits, groups)
        self.clear()
        for name, layer in seen.items():
            assert layer.last_max_logits is not None
            if layer.last_max_logits.device.type == "cpu":
                _check_finite(name, layer.last_max_logits)
        for layer in seen.values():
            self._clip(layer, optimizer)

    def _clip(self, layer: WatchedLayer, optimizer: torch.optim.Optimizer) -> None:
        logits = layer.last_max_logits
        assert logits is not None
        over = (logits > self.threshold) & logits.isfinite()
        if layer.counts is None:
            layer.counts = torch.zeros_like(over, dtype=torch.int64)
        layer.counts += over
        # Looking costs nothing on the CPU, and a wait elsewhere.
        if logits.device.type == "cpu" and not over.any():
            return
        wide = torch.where(over, logits, 0.0).double()
        query, key = qk_clip_factors(wide, self.threshold, layer.num_key_value_heads)
        layer.query.scale_(query, optimizer)
        layer.key.scale_(key, optimizer)

    def clear(self) -> None:
        """Forget the logits seen since the last step, as after a step that was skipped."""
        for layer in self._layers.values():
            layer.max_logits = None

    def remove(self) -> None:
        """Stop watching: take the forward hooks off and forget all layers."""
        for layer in self._layers.values():
            for handle in layer.handles:
                handle.remove()
        for undo in self._undo:
            undo()
        self._undo.clear()
        self._layers.clear()

    @property
    def clip_counts(self) -> dict[str, list[int]]:
        """How often each query head of each layer was over the threshold.

        Raises:
            ValueError: A logit of the last step was NaN or infinite.
        """
        for name, layer in self._layers.items():
            if layer.last_max_logits is not None:
                _check_finite(name, layer.last_max_logits)
        return {
            name: [0] * layer.num_heads if layer.counts is None else layer.counts.tolist()
            for name, layer in self._layers.items()
        }

    @property
    def max_logits(self) -> dict[str, list[float]]:
        """Each query head's largest logit before the last step, for the layers that saw one.

        Raises:
            ValueError: One of them is NaN or infinite.
        """
        result = {}
        for name, layer in self._layers.items():
            if layer.last_max_logits is not None:
                _check_finite(name, layer.last_max_logits)
                result[name] = layer.last_max_logits.tolist()
        return result

    def reset_clip_counts(self) -> None:
        """Set all counts to 0."""
        for layer in self._layers.values():
            layer.counts = None


def linear_layer(
    name: str, query_proj: nn.Module, key_proj: nn.Module, num_heads: int, kv_heads: int
) -> WatchedLayer:
    """Describe an attention layer by its linear projections, or by one fused projection twice.

    Args:
        name: The layer's name, for errors.
        query_proj: A module with a weight (F, in_features), or transformers' Conv1D.
        key_proj: Likewise.
        num_heads: H.
        kv_heads: H_kv.

    Raises:
        ValueError: The sizes do not fit.
    """
    if num_heads < 1 or kv_heads < 1 or num_heads % kv_heads:
        raise ValueError(
            f"{name}: num_heads ({num_heads}) must be a multiple of num_key_value_heads "
            f"({kv_heads})"
        )
    query_features, key_features = out_features(query_proj), out_features(key_proj)
    start = 0
    if query_proj is key_proj:
        parts = num_heads + 2 * kv_heads
        if query_features % parts:
            raise ValueError(
                f"{name}: {query_features} features cannot be split into {num_heads} heads of "
                f"queries and {kv_heads} each of keys and values of one width"
            )
        width = query_features // parts
        start = num_heads * width
    elif query_features % num_heads or query_features * kv_heads != key_features * num_heads:
        raise ValueError(
            f"{name}: {query_features} query and {key_features} key "
            f"features cannot be split into {num_heads} and {kv_heads} heads of one width"
        )
    else:
        width = query_features // num_heads
    return WatchedLayer(
        module_projection(query_proj, heads(num_heads, width)),
        module_projection(key_proj, heads(kv_heads, width, start)),
    )


def heads(count: int, width: int, start: int = 0, stride: int | None = None) -> Tensor:
    """Return the features (count, width) of heads that follow each other at ``stride``."""
    stride = width if stride is None else stride
    return start + stride * torch.arange(count)[:, None] + torch.arange(width)


def out_features(module: nn.Module) -> int:
    """Return how many features a linear module, or transformers' Conv1D, gives.

    Raises:
        ValueError: The module is neither.
    """
    if isinstance(module, nn.Linear):
        return module.out_features
    if type(module).__name__ == "Conv1D" and isinstance(features := module.nf, int):
        return features
    raise ValueError(
        f"a projection must be torch.nn.Linear or transformers' Conv1D, got "
        f"{type(module).__name__}; describe others with QKClipHook.add()"
    )


def module_projection(module: nn.Module, features: Tensor) -> Projection:
    """Describe the part of a linear module, or of transformers' Conv1D, that gives some features.

    Args:
        module: Has a weight and perhaps a bias.
        features: (H, d) of its output.
    """
    # Conv1D keeps its weight as (in_features, out_features).
    dim = 0 if isinstance(module, nn.Linear) else 1
    parameters = module.parameters(recurse=False)
    return Projection(features, [(p, dim if p.ndim == 2 else 0, features) for p in parameters])


def _observe_forward(layer: WatchedLayer, query_proj: nn.Module, key_proj: nn.Module) -> None:
    seen: dict[str, Tensor] = {}

    def see(which: str, module: nn.Module, output: Tensor) -> None:
        if not module.training:
            return
        seen[which] = output.detach()
        if query_proj is key_proj:
            seen["query"] = seen["key"] = output.detach()
        if len(seen) == 2:
            query, key = layer.query.take(seen["query"]), layer.key.take(seen["key"])
            seen.clear()
            layer.observe(
                max_attention_logits(query, key, scale=layer.scale, is_causal=layer.is_causal)
            )

    layer.handles.append(
        query_proj.register_forward_hook(lambda module, _, output: see("query", module, output))
    )
    if query_proj is not key_proj:
        layer.handles.append(
            key_proj.register_forward_hook(lambda module, _, output: see("key", module, output))
        )


def _check_finite(name: str, max_logits: Tensor) -> None:
    values = max_logits.tolist()
    # Minus infinity is a head that could attend to nothing.
    if any(math.isnan(value) or value == math.inf for value in values):
        raise ValueError(
            f"{name}: attention logits are not finite ({values}); training has diverged "
            "before QK-clip could act: lower the learning rate or the threshold"
        )


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold must be a number greater than 0, got {threshold!r}")
