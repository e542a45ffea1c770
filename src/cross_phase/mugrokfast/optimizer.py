"""The MuonGrokfast optimizer."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor, _foreach_neg, _foreach_norm, nn
from torch.optim.adamw import adamw

from .config import MuGrokConfig, check_hyperparameters
from .grokfast import grokfast_ema
from .muon import muon
from .qk_clip import QKClipHook, apply_qk_clip
from .routing import ADAMW, ALGORITHMS, MUON, route_model, route_named, route_tensor
from .ternary import ternarize

__all__ = ["MuonGrokfast", "QKClipHook", "apply_qk_clip", "create_optimizer_from_phase"]

Params: TypeAlias = (
    nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
)
# torch's fused AdamW kernels exist for these.
_FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


class MuonGrokfast(torch.optim.Optimizer):
    """Muon for hidden matrices and AdamW for the rest, both on Grokfast-filtered gradients.

    Each parameter belongs to one of two algorithms, and each entry of ``param_groups`` holds
    parameters of one: ``group["algorithm"]`` is ``"muon"`` or ``"adamw"``, ``group["lr"]`` its
    learning rate, which any ``torch.optim.lr_scheduler`` may change. Parameters are routed

    - from a model by the modules that own them (:func:`~.routing.route_model`),
    - from ``model.named_parameters()`` by name and shape (:func:`~.routing.route_named`),
    - from bare tensors by shape alone: 2 dimensions or more are Muon's, embeddings too,
    - or as a group says with ``"algorithm"``; without it, a group with parameters for both becomes
      two groups with the same options.

    State per parameter element, in the parameter's own type: the Grokfast average (1, none where
    ``grokfast_lambda`` is 0), Muon's momentum (1) or AdamW's moments (2), and the latent weight (1,
    in ``muon_ste_mode``). It is made at the first step. Parameters without a gradient are left
    alone, and ``p.grad`` is never modified.

    Args:
        params: A module, or what any torch optimizer takes: parameters, named parameters, or
            dicts of groups with their own options.
        config: All hyperparameters at once; where it is given the keywords below count for
            nothing.
        muon_lr: See :class:`MuGrokConfig` for this and the others.
        fallback_lr: Learning rate of AdamW's parameters.
        grokfast_alpha: Decay of the gradient average.
        grokfast_lambda: Amplification of the gradient average.
        qk_clip_threshold: Threshold of :attr:`qk_clip`.
        kl_coefficient: Carried for the training code.
        muon_ste_mode: Ternary weights with a straight-through gradient.
        momentum: Muon's momentum.
        nesterov: Nesterov momentum for Muon.
        ns_steps: Newton-Schulz iterations.
        weight_decay: Decoupled weight decay.
        adjust_lr_fn: ``"match_rms_adamw"`` or ``"original"``.
        betas: AdamW's betas.
        eps: AdamW's epsilon.
        maximize: Ascend instead of descend.

    Attributes:
        config: The :class:`MuGrokConfig` in use.
        qk_clip: The :class:`QKClipHook` that runs after each step; it clips the layers that it was
            told to ``watch``.

    Raises:
        TypeError: A parameter is not a tensor, or an option is of the wrong type.
        ValueError: An option lies outside its range, a parameter cannot be optimized, or there is
            no parameter.
    """

    def __init__(
        self,
        params: Params,
        config: MuGrokConfig | None = None,
        muon_lr: float = 0.01,
        fallback_lr: float = 1e-3,
        grokfast_alpha: float = 0.98,
        grokfast_lambda: float = 2.0,
        qk_clip_threshold: float = 30.0,
        kl_coefficient: float = 0.0,
        muon_ste_mode: bool = False,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.0,
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        if config is None:
            config = MuGrokConfig(
                muon_lr=muon_lr,
                fallback_lr=fallback_lr,
                grokfast_alpha=grokfast_alpha,
                grokfast_lambda=grokfast_lambda,
                qk_clip_threshold=qk_clip_threshold,
                kl_coefficient=kl_coefficient,
                muon_ste_mode=muon_ste_mode,
                momentum=momentum,
                nesterov=nesterov,
                ns_steps=ns_steps,
                weight_decay=weight_decay,
                adjust_lr_fn=adjust_lr_fn,
                betas=betas,
                eps=eps,
                maximize=maximize,
            )
        elif not isinstance(config, MuGrokConfig):
            raise TypeError(
                f"config must be a MuGrokConfig, got {type(config).__name__}; pass single "
                "hyperparameters by keyword"
            )
        self.config = config
        defaults = {
            "lr": config.muon_lr,
            "weight_decay": config.weight_decay,
            "grokfast_alpha": config.grokfast_alpha,
            "grokfast_lambda": config.grokfast_lambda,
            "muon_ste_mode": config.muon_ste_mode,
            "momentum": config.momentum,
            "nesterov": config.nesterov,
            "ns_steps": config.ns_steps,
            "adjust_lr_fn": config.adjust_lr_fn,
            "betas": config.betas,
            "eps": config.eps,
            "maximize": config.maximize,
        }
        if isinstance(params, nn.Module):
            params = [
                {"params": named, "algorithm": algorithm}
                for algorithm, named in route_model(params).items()
            ]
        super().__init__(params, defaults)
        self._attach_qk_clip()

    def _attach_qk_clip(self) -> None:
        self.qk_clip = QKClipHook(self.config.qk_clip_threshold)
        self.register_step_post_hook(self.qk_clip)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles keep: groups, state and configuration."""
        return {**super().__getstate__(), "config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a copied or loaded state."""
        super().__setstate__(state)
        # A copy has hooks of its own; load_state_dict comes here too, and keeps those it has.
        if "qk_clip" not in self.__dict__:
            self._attach_qk_clip()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as one group or, where they take both routes, as two.

        Args:
            param_group: ``"params"`` (a tensor, tensors, or named tensors) and options of its own;
                ``"algorithm"`` (``"muon"`` or ``"adamw"``) overrides the routing, ``"lr"`` holds
                for whichever algorithm, ``"fused": False`` turns AdamW's fused kernel off.

        Raises:
            TypeError: A parameter is not a tensor, or an option is of the wrong type.
            ValueError: An option lies outside its range, a parameter cannot be optimized or is in
                another group already. The optimizer is as it was before, then.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, got {type(param_group).__name__}")
        options = {k: v for k, v in param_group.items() if k not in ("params", "algorithm")}
        check_hyperparameters(options)
        algorithm = param_group.get("algorithm")
        if algorithm is not None and algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}; leave it "
                "out to have the parameters routed"
            )
        by_algorithm: dict[str, list[Tensor | tuple[str, Tensor]]] = {}
        for entry in _entries(param_group["params"]):
            route = algorithm or (
                route_named(*entry) if isinstance(entry, tuple) else route_tensor(entry)
            )
            _check_param(entry, route)
            by_algorithm.setdefault(route, []).append(entry)
        before = len(self.param_groups)
        lrs = {MUON: self.config.muon_lr, ADAMW: self.config.fallback_lr}
        try:
            for route in sorted(by_algorithm, key=ALGORITHMS.index):
                super().add_param_group(
                    {"lr": lrs[route], **options}
                    | {"params": by_algorithm[route], "algorithm": route}
                )
                group = self.param_groups[-1]
                # Decided here because load_state_dict places AdamW's step counts by it.
                group.setdefault(
                    "fused", all(p.device.type in _FUSED_DEVICES for p in group["params"])
                )
        except Exception:
            del self.param_groups[before:]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` of a MuonGrokfast with the same groups returned.

        Args:
            state_dict: The saved state.

        Raises:
            ValueError: Its groups are not those of this optimizer.
        """
        saved = [group.get("algorithm") for group in state_dict["param_groups"]]
        own = [group["algorithm"] for group in self.param_groups]
        if saved != own:
            raise ValueError(
                f"the saved state has groups for {saved}, this optimizer for {own}: build it from "
                "the same parameters, in the same way, as the one that was saved"
            )
        super().load_state_dict(state_dict)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters that have a gradient.

        Args:
            closure: Evaluates the model again and returns the loss.

        Returns:
            What ``closure`` returned, or None without one.

        Raises:
            ValueError: A gradient is sparse; no parameter has been changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # All gradients are looked at before the first parameter is changed.
        ready = [(group, *_params_with_grad(group)) for group in self.param_groups]
        for group, params, grads in ready:
            if not params:
                continue
            filtered = self._filter(group, params, grads)
            if group["algorithm"] == MUON:
                self._muon(group, params, filtered)
            else:
                self._adamw(group, params, filtered)
        return loss

    def _filter(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]
    ) -> list[Tensor]:
        if group["maximize"]:
            grads = list(_foreach_neg(grads))
        if group["grokfast_lambda"] == 0:
            return grads
        emas = []
        for param, grad in zip(params, grads, strict=True):
            state = self.state[param]
            if "grokfast_ema" not in state:
                state["grokfast_ema"] = grad.clone(memory_format=torch.preserve_format)
            emas.append(state["grokfast_ema"])
        return grokfast_ema(
            grads, emas, alpha=group["grokfast_alpha"], lamb=group["grokfast_lambda"]
        )

    def _muon(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        weights = params
        states = [self.state[param] for param in params]
        for param, state in zip(params, states, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = _zeros_like(param)
            if group["muon_ste_mode"] and "latent_weight" not in state:
                state["latent_weight"] = param.clone(memory_format=torch.preserve_format)
        if group["muon_ste_mode"]:
            weights = [state["latent_weight"] for state in states]
        muon(
            weights,
            grads,
            [state["momentum_buffer"] for state in states],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            ns_steps=group["ns_steps"],
            adjust_lr_fn=group["adjust_lr_fn"],
        )
        if group["muon_ste_mode"]:
            for param, latent in zip(params, weights, strict=True):
                param.copy_(ternarize(latent))

    def _adamw(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        states = [self.state[param] for param in params]
        for param, state in zip(params, states, strict=True):
            if "step" not in state:
                device = param.device if group["fused"] else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)
                state["exp_avg"] = _zeros_like(param)
                state["exp_avg_sq"] = _zeros_like(param)
        beta1, beta2 = group["betas"]
        adamw(
            params,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def get_muon_lr(self) -> float:
        """Return the present learning rate of the first group that Muon updates.

        Without such a group it is the configured one.
        """
        for group in self.param_groups:
            if group["algorithm"] == MUON:
                return float(group["lr"])
        return self.config.muon_lr

    def get_mu_norm(self) -> float:
        r"""Return the Euclidean norm of all Grokfast averages :math:`\mu` together.

        It is 0 before the first step, and without the filter. Reads the norm back to the host.
        """
        emas = [state["grokfast_ema"] for state in self.state.values() if "grokfast_ema" in state]
        norms = [norm.float().to(emas[0].device) for norm in _foreach_norm(emas)] if emas else []
        return float(torch.stack(norms).norm()) if norms else 0.0

    def get_qk_clip_count(self) -> int:
        """Return how many heads :attr:`qk_clip` has rescaled, over all steps and layers."""
        return sum(sum(counts) for counts in self.qk_clip.clip_counts.values())

    def reset_qk_clip_count(self) -> None:
        """Set the count of rescaled heads to 0."""
        self.qk_clip.reset_clip_counts()


def create_optimizer_from_phase(model: nn.Module, phase_num: int) -> MuonGrokfast:
    """Return an optimizer for a model with the preset of a training phase.

    Args:
        model: Its parameters are routed by module.
        phase_num: 1, 3, 5, 6 or 7.

    Raises:
        ValueError: The phase has no preset, or the model no parameters.
    """
    return MuonGrokfast(model, config=MuGrokConfig.from_phase(phase_num))


def _entries(params: Any) -> list[Tensor | tuple[str, Tensor]]:
    """Return the parameters of a group as a list of tensors or of named tensors."""
    if isinstance(params, Tensor):
        return [params]
    if isinstance(params, (set, frozenset)):
        raise TypeError(
            "params must have an order that is the same in every run; pass a list, not a set"
        )
    entries = list(params)
    for entry in entries:
        param = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
        if not isinstance(param, Tensor):
            raise TypeError(
                f"params must be tensors or pairs of name and tensor, got {type(entry).__name__}"
            )
    return entries


def _check_param(entry: Tensor | tuple[str, Tensor], algorithm: str) -> None:
    name, param = entry if isinstance(entry, tuple) else ("a parameter", entry)
    shape = tuple(param.shape)
    if not param.is_floating_point():
        raise ValueError(
            f"{name} of shape {shape} is {param.dtype}; only real floating-point parameters can be "
            "optimized"
        )
    if algorithm == MUON and route_tensor(param) != MUON:
        raise ValueError(
            f"{name} of shape {shape} is no matrix, Muon cannot update it; use "
            f'"algorithm": "{ADAMW}"'
        )


def _params_with_grad(group: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters that have a gradient, and the gradients in the parameters' types."""
    params: list[Tensor] = []
    grads: list[Tensor] = []
    for i, param in enumerate(group["params"]):
        if param.grad is None:
            continue
        if param.grad.layout != torch.strided:
            names = group.get("param_names")
            raise ValueError(
                f"{names[i] if names else 'a parameter'} of shape {tuple(param.shape)} has a "
                "sparse gradient, which neither Muon nor AdamW can use; build its embedding with "
                "sparse=False, or give it to torch.optim.SparseAdam"
            )
        params.append(param)
        grads.append(param.grad.to(param.dtype))
    return params, grads


def _zeros_like(param: Tensor) -> Tensor:
    return torch.zeros_like(param, memory_format=torch.preserve_format)
