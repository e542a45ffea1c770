"""QK-clip: keep attention logits bounded (MuonClip, Kimi K2, arXiv 2507.20534)."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

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
    query: Tensor, key: Tensor, *, scale: float | None = None, is_causal: bool = False
) -> Tensor:
    r"""Return each query head's largest attention logit :math:`\max s\, q_i \cdot k_j`.

    Args:
        query: (B, H, T, d), as the attention sees it (after rotary embeddings and norms).
        key: (B, H_kv, S, d), where H is a multiple of H_kv (grouped-query attention).
        scale: :math:`s`; by default :math:`1 / \sqrt d`.
        is_causal: Look only at keys that are not after the query. Needs T == S.

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
        if is_causal:
            row = torch.arange(start, start + logits.size(-2), device=logits.device)
            column = torch.arange(logits.size(-1), device=logits.device)
            logits = logits.masked_fill(column > row[:, None], -math.inf)
        largest = torch.maximum(largest, logits.amax(dim=(0, 3, 4)))
    return largest.flatten() * (1 / math.sqrt(width) if scale is None else scale)


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
    rows = factors.to(projection).repeat_interleave(width)
    projection.mul_(rows.view(-1, *[1] * (projection.ndim - 1)))


@dataclass(eq=False)
class _Attention:
    """One watched attention layer, and what its last forward passes showed."""

    query_proj: nn.Linear
    key_proj: nn.Linear
    num_heads: int
    num_key_value_heads: int
    scale: float | None
    is_causal: bool
    clip_counts: list[int]
    query: Tensor | None = None
    key: Tensor | None = None
    max_logits: Tensor | None = None
    handles: list[torch.utils.hooks.RemovableHandle] = field(default_factory=list)

    def see(self, which: str, module: nn.Module, output: Tensor) -> None:
        if not module.training:
            return
        setattr(self, which, output.detach())
        if self.query is not None and self.key is not None:
            query = _split_heads(self.query, self.num_heads)
            key = _split_heads(self.key, self.num_key_value_heads)
            self.query = self.key = None
            self.observe(
                max_attention_logits(query, key, scale=self.scale, is_causal=self.is_causal)
            )

    def observe(self, max_logits: Tensor) -> None:
        if self.max_logits is not None:
            max_logits = torch.maximum(self.max_logits, max_logits)
        self.max_logits = max_logits


def _split_heads(projected: Tensor, num_heads: int) -> Tensor:
    """Reshape (B, T, H * d) or (T, H * d) to (B, H, T, d)."""
    if projected.ndim == 2:
        projected = projected.unsqueeze(0)
    return projected.view(*projected.shape[:2], num_heads, -1).transpose(1, 2)


class QKClipHook:
    r"""Rescale the query and key projections of heads whose logits grew too large.

    The post-step form of QK-clip (MuonClip; Kimi K2, arXiv 2507.20534, section 2.1). Forward passes
    in training mode record each head's largest logit :math:`S_h`; after the optimizer's step a
    head with :math:`S_h > \tau` has its rows of :math:`W_q` and :math:`W_k`, and of their biases,
    multiplied by :func:`qk_clip_factors`. The forward and backward pass themselves stay as they
    are. The maxima of several forward passes before one step are taken together.

    It is a step post-hook of any :class:`torch.optim.Optimizer`; MuonGrokfast comes with one, as
    ``optimizer.qk_clip``::

        for i, layer in enumerate(model.layers):
            optimizer.qk_clip.watch(f"layers.{i}", layer.q_proj, layer.k_proj, num_heads=8)

    Hooks belong to modules and optimizers that live: copying or pickling an optimizer leaves the
    watched layers behind.

    Args:
        threshold: Largest logit :math:`\tau` that is left alone, greater than 0.

    Raises:
        ValueError: ``threshold`` is not a number greater than 0.
    """

    def __init__(self, threshold: float = 30.0) -> None:
        _check_threshold(threshold)
        self.threshold = threshold
        self._layers: dict[str, _Attention] = {}

    def watch(
        self,
        name: str,
        query_proj: nn.Linear,
        key_proj: nn.Linear,
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
            key_proj: Gives keys (B, S, H_kv * d) or (S, H_kv * d).
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
        if name in self._layers:
            raise ValueError(f"a layer {name!r} is watched already; give this one another name")
        if num_heads < 1 or kv_heads < 1 or num_heads % kv_heads:
            raise ValueError(
                f"{name}: num_heads ({num_heads}) must be a multiple of num_key_value_heads "
                f"({kv_heads})"
            )
        if (
            query_proj.out_features % num_heads
            or query_proj.out_features * kv_heads != key_proj.out_features * num_heads
        ):
            raise ValueError(
                f"{name}: {query_proj.out_features} query and {key_proj.out_features} key "
                f"features cannot be split into {num_heads} and {kv_heads} heads of one width"
            )
        layer = _Attention(
            query_proj, key_proj, num_heads, kv_heads, scale, is_causal, [0] * num_heads
        )
        if observe_forward:
            layer.handles = [
                query_proj.register_forward_hook(lambda m, _, out: layer.see("query", m, out)),
                key_proj.register_forward_hook(lambda m, _, out: layer.see("key", m, out)),
            ]
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

    def __call__(
        self, optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]
    ) -> None:
        """Clip after a step: the signature of ``register_step_post_hook``.

        Reads the recorded logits back to the host, once per layer.

        Raises:
            ValueError: A logit is NaN or infinite; no weight has been scaled then.
        """
        seen = {n: layer for n, layer in self._layers.items() if layer.max_logits is not None}
        maxima = {n: layer.max_logits for n, layer in seen.items()}
        self.clear()
        values = {n: logits.tolist() for n, logits in maxima.items() if logits is not None}
        for name, heads in values.items():
            if not all(math.isfinite(value) for value in heads):
                raise ValueError(
                    f"{name}: attention logits are not finite ({heads}); training has diverged "
                    "before QK-clip could act: lower the learning rate or the threshold"
                )
        for name, heads in values.items():
            self._clip(seen[name], torch.tensor(heads, dtype=torch.float64), optimizer)

    def _clip(
        self, layer: _Attention, max_logits: Tensor, optimizer: torch.optim.Optimizer
    ) -> None:
        over = (max_logits > self.threshold).tolist()
        if not any(over):
            return
        layer.clip_counts = [n + o for n, o in zip(layer.clip_counts, over, strict=True)]
        factors = qk_clip_factors(max_logits, self.threshold, layer.num_key_value_heads)
        for module, module_factors in zip((layer.query_proj, layer.key_proj), factors, strict=True):
            for param in module.parameters(recurse=False):
                scale_heads_(param, module_factors)
                # A ternary weight is made anew from its latent weight at each step.
                latent = optimizer.state.get(param, {}).get("latent_weight")
                if latent is not None:
                    scale_heads_(latent, module_factors)

    def clear(self) -> None:
        """Forget the logits seen since the last step, as after a step that was skipped."""
        for layer in self._layers.values():
            layer.query = layer.key = layer.max_logits = None

    def remove(self) -> None:
        """Stop watching: take the forward hooks off and forget all layers."""
        for layer in self._layers.values():
            for handle in layer.handles:
                handle.remove()
        self._layers.clear()

    @property
    def clip_counts(self) -> dict[str, list[int]]:
        """How often each query head of each layer was over the threshold."""
        return {name: list(layer.clip_counts) for name, layer in self._layers.items()}

    def reset_clip_counts(self) -> None:
        """Set all counts to 0."""
        for layer in self._layers.values():
            layer.clip_counts = [0] * layer.num_heads


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold must be a number greater than 0, got {threshold!r}")
