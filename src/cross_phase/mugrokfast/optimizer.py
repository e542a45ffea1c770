"""The MuonGrokfast optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import torch
from torch import Tensor, _foreach_neg, _foreach_norm, nn
from torch.optim.adamw import adamw

from .adopt import adopted_states
from .config import MuGrokConfig, check_hyperparameters
from .describe import DescribedParameter, Description
from .distributed import (
    Workload,
    all_reduce_max,
    is_dtensor,
    local,
    mesh_groups,
    orthogonalize_replicated,
    orthogonalize_sharded,
    world_size,
)
from .grokfast import grokfast_ema, grokfast_ma
from .muon import muon
from .newton_schulz import orthogonalize
from .qk_clip import QKClipHook, apply_qk_clip
from .routing import ADAMW, ALGORITHMS, MUON, Route, route_model, route_named, route_tensor
from .ternary import ternarize

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["MuonGrokfast", "QKClipHook", "apply_qk_clip", "create_optimizer_from_phase"]

Params: TypeAlias = (
    nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
)
# torch's fused AdamW kernels exist for these.
_FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
# Entries, per process, that are updated together: few enough for a CPU's caches, and for the
# temporary memory of an accelerator.
_CPU_PART_NUMEL = 2**20
_PART_NUMEL = 2**26
# State that keeps the type it was saved in, whatever the parameter's is.
_OWN_DTYPE = ("grokfast_ema", "grokfast_window", "grokfast_sum", "momentum_buffer")


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

    State per parameter entry: the Grokfast average (1 number; ``grokfast_window`` + 1 with the
    ``"ma"`` filter, none where ``grokfast_lambda`` is 0), Muon's momentum (1) or AdamW's moments
    (2), and the latent weight (1, in ``muon_ste_mode``), in the parameter's own type or, the first
    and second, in ``state_dtype``. It is made at the first step. Parameters without a gradient are
    left alone, and ``p.grad`` is never modified.

    Sharded parameters (``fully_shard``, any DTensor) are recognised: each matrix is orthogonalised
    by one process of those it is sharded over. Under DistributedDataParallel the same is done for
    the processes of ``process_group``; without it each process does all the work.

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
        grokfast_filter: ``"ema"`` or ``"ma"``.
        grokfast_window: Gradients in the window of ``"ma"``.
        ns_coefficients: ``"muon"`` or ``"polar_express"``.
        ns_form: ``"standard"`` or ``"gram"``.
        nonfinite_grads: ``"propagate"``, ``"raise"`` or ``"skip"``.
        state_dtype: Type of the Grokfast average and the momentum.
        capturable: Let a CUDA graph capture the step; learning rates become tensors, which
            schedulers change in place.
        process_group: Processes that hold the same parameters and the same gradients, as under
            DistributedDataParallel, and share Muon's work. All must step together. A copy or a
            pickle leaves it behind.

    Attributes:
        config: The :class:`MuGrokConfig` in use.
        process_group: As it was given.
        qk_clip: The :class:`QKClipHook` that runs after each step; it clips the layers that it was
            told to ``watch``.
        skipped_steps: Steps left out because a gradient was not finite, with
            ``nonfinite_grads="skip"``.

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
        grokfast_filter: str = "ema",
        grokfast_window: int = 100,
        ns_coefficients: str = "muon",
        ns_form: str = "standard",
        nonfinite_grads: str = "propagate",
        state_dtype: torch.dtype | None = None,
        capturable: bool = False,
        *,
        process_group: ProcessGroup | None = None,
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
                grokfast_filter=grokfast_filter,
                grokfast_window=grokfast_window,
                ns_coefficients=ns_coefficients,
                ns_form=ns_form,
                nonfinite_grads=nonfinite_grads,
                state_dtype=state_dtype,
                capturable=capturable,
            )
        elif not isinstance(config, MuGrokConfig):
            raise TypeError(
                f"config must be a MuGrokConfig, got {type(config).__name__}; pass single "
                "hyperparameters by keyword"
            )
        self.config = config
        self.process_group = process_group
        self.skipped_steps = 0
        self._reasons: dict[Tensor, str] = {}
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
            "grokfast_filter": config.grokfast_filter,
            "grokfast_window": config.grokfast_window,
            "ns_coefficients": config.ns_coefficients,
            "ns_form": config.ns_form,
            "capturable": config.capturable,
        }
        if isinstance(params, nn.Module):
            params = self._groups_of(params)
        super().__init__(params, defaults)
        self._attach_qk_clip()

    def _groups_of(self, model: nn.Module) -> list[dict[str, Any]]:
        routed = route_model(model)
        self._reasons = {param: route.reason for _, param, route in routed}
        groups: list[dict[str, Any]] = []
        for algorithm in ALGORITHMS:
            named = [(name, p) for name, p, route in routed if route.algorithm == algorithm]
            if named:
                groups.append({"params": named, "algorithm": algorithm})
        return groups

    def _attach_qk_clip(self) -> None:
        self.qk_clip = QKClipHook(self.config.qk_clip_threshold, self.process_group)
        self.register_step_post_hook(self.qk_clip)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles keep: groups, state and configuration."""
        return {
            **super().__getstate__(),
            "config": self.config,
            "skipped_steps": self.skipped_steps,
            "_reasons": self._reasons,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a copied or loaded state."""
        super().__setstate__(state)
        self.__dict__.setdefault("process_group", None)
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
        reasons: dict[Tensor, str] = {}
        for entry in _entries(param_group["params"]):
            if algorithm:
                route = Route(algorithm, "as its group says")
            else:
                route = route_named(*entry) if isinstance(entry, tuple) else route_tensor(entry)
            _check_param(entry, route.algorithm)
            by_algorithm.setdefault(route.algorithm, []).append(entry)
            reasons[entry[1] if isinstance(entry, tuple) else entry] = route.reason
        before = len(self.param_groups)
        lrs = {MUON: self.config.muon_lr, ADAMW: self.config.fallback_lr}
        try:
            for name in sorted(by_algorithm, key=ALGORITHMS.index):
                super().add_param_group(
                    {"lr": lrs[name], **options} | {"params": by_algorithm[name], "algorithm": name}
                )
                group = self.param_groups[-1]
                check_hyperparameters({"nonfinite_grads": self.config.nonfinite_grads, **group})
                # Decided here because load_state_dict places AdamW's step counts by it.
                group.setdefault(
                    "fused", all(p.device.type in _FUSED_DEVICES for p in group["params"])
                )
                if group["capturable"] and not isinstance(group["lr"], Tensor):
                    group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
        except Exception:
            del self.param_groups[before:]
            raise
        # What a model said about its parameters stays.
        self._reasons = reasons | self._reasons

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` of a MuonGrokfast with the same groups returned.

        State is moved to the parameters' devices and keeps its type.

        Args:
            state_dict: The saved state.

        Raises:
            ValueError: Its groups are not those of this optimizer.
        """
        saved = [group.get("algorithm") for group in state_dict["param_groups"]]
        own = [group["algorithm"] for group in self.param_groups]
        if None in saved:
            raise ValueError(
                "the saved state is not one of a MuonGrokfast: its groups have no algorithm; "
                "adopt_state() takes over that of torch.optim.Muon and torch.optim.AdamW"
            )
        if saved != own:
            raise ValueError(
                f"the saved state has groups for {saved}, this optimizer for {own}: build it from "
                "the same parameters, in the same way, as the one that was saved"
            )
        super().load_state_dict(state_dict)
        # torch casts to the parameter's type, which would round a wider state for ever.
        indices = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for index, param in zip(indices, params, strict=True):
            values = state_dict["state"].get(index, {})
            for name in _OWN_DTYPE:
                if name in values and values[name].dtype != param.dtype:
                    self.state[param][name] = values[name].to(param.device)

    def adopt_state(self, *sources: torch.optim.Optimizer | Mapping[str, Any]) -> None:
        """Go on from the state of :class:`torch.optim.Muon` and :class:`torch.optim.AdamW`.

        Muon's momentum is taken as it is, and AdamW's moments and step counts for parameters that
        AdamW updates here; with ``grokfast_lambda=0`` and the same options training goes on bit for
        bit. For a matrix that AdamW updated before and Muon updates here, the first moment becomes
        the momentum: both are moving averages of the gradients. The Grokfast average starts anew.
        Learning rates and other options stay those of this optimizer, and parameters that no source
        knows start without state.

        Args:
            sources: Optimizers of the same parameter tensors, or state dicts with parameter names
                (of optimizers that were given ``named_parameters()``), if this optimizer has names.

        Raises:
            ValueError: A source has no names, a parameter that is not here, or state that has no
                meaning here. Nothing has been changed then.
        """
        states = adopted_states(self.param_groups, sources)
        for param, state in states.items():
            self.state[param] = state

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
            FloatingPointError: A gradient is not finite and ``nonfinite_grads`` is ``"raise"``.
            ValueError: A gradient is sparse. No parameter has been changed in either case.
        """
        self._check_capture()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # All gradients are looked at before the first parameter is changed.
        ready = [(group, *_params_with_grad(group)) for group in self.param_groups]
        if self.config.nonfinite_grads != "propagate" and not self._grads_are_finite(ready):
            self.skipped_steps += 1
            self.qk_clip.clear()
            return loss
        work = Workload()
        for group, params, grads in ready:
            for part in self._parts(params):
                some = [params[i] for i in part]
                filtered = self._filter(group, some, [local(grads[i]) for i in part])
                if group["algorithm"] == MUON:
                    self._muon(group, some, filtered, work)
                else:
                    self._adamw(group, some, filtered)
        return loss

    def _check_capture(self) -> None:
        # Renamed in torch 2.13.
        for name in (
            "_accelerator_graph_capture_health_check",
            "_cuda_graph_capture_health_check",
        ):
            if hasattr(self, name):
                getattr(self, name)()
                return

    def _parts(self, params: list[Tensor]) -> list[list[int]]:
        """Split parameters into lists of indices that are updated together, like shapes by them."""
        world = world_size(self.process_group)
        by_shape: dict[torch.Size, list[int]] = {}
        for i, param in enumerate(params):
            by_shape.setdefault(param.shape, []).append(i)
        parts: list[list[int]] = []
        room = 0
        for i in chain.from_iterable(by_shape.values()):
            if not parts or params[i].numel() > room:
                parts.append([])
                on_cpu = params[i].device.type == "cpu"
                room = world * (_CPU_PART_NUMEL if on_cpu else _PART_NUMEL)
            parts[-1].append(i)
            room -= params[i].numel()
        return parts

    def _grads_are_finite(
        self, ready: list[tuple[dict[str, Any], list[Tensor], list[Tensor]]]
    ) -> bool:
        params = [param for _, params, _ in ready for param in params]
        grads = [local(grad) for _, _, grads in ready for grad in grads]
        if not grads:
            return True
        device = grads[0].device
        # A process may have no piece of a small parameter, and nothing has no largest entry.
        some = [i for i, grad in enumerate(grads) if grad.numel()]
        norms = _foreach_norm([grads[i] for i in some], math.inf) if some else []
        bad = torch.zeros(len(grads), device=device)
        for i, norm in zip(some, norms, strict=True):
            bad[i] = ~norm.isfinite()
        bad = all_reduce_max(bad, mesh_groups(params))
        if not bad.any():
            return True
        if self.config.nonfinite_grads == "raise":
            param = params[int(bad.argmax())]
            raise FloatingPointError(
                f"{self._name(param)} of shape {tuple(param.shape)} has a gradient that is not "
                "finite; no parameter has been changed. Look for the operation with "
                "torch.autograd.set_detect_anomaly(True), or leave such steps out with "
                'nonfinite_grads="skip"'
            )
        return False

    def _filter(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]
    ) -> list[Tensor]:
        if group["maximize"]:
            grads = list(_foreach_neg(grads))
        if group["grokfast_lambda"] == 0:
            return grads
        states = [self.state[param] for param in params]
        if group["grokfast_filter"] == "ema":
            for param, grad, state in zip(params, grads, states, strict=True):
                if "grokfast_ema" not in state:
                    state["grokfast_ema"] = self._new_state(param)
                    local(state["grokfast_ema"]).copy_(grad)
            return grokfast_ema(
                grads,
                [local(state["grokfast_ema"]) for state in states],
                alpha=group["grokfast_alpha"],
                lamb=group["grokfast_lambda"],
            )
        for param, state in zip(params, states, strict=True):
            if "grokfast_window" not in state:
                if is_dtensor(param):
                    raise ValueError(
                        f"{self._name(param)} is sharded, and a window of sharded gradients cannot "
                        'be kept; use grokfast_filter="ema"'
                    )
                state["grokfast_sum"] = self._new_state(param)
                state["grokfast_window"] = state["grokfast_sum"].new_zeros(
                    (group["grokfast_window"], *param.shape)
                )
                state["grokfast_count"] = 0
        filtered = grokfast_ma(
            grads,
            [state["grokfast_window"] for state in states],
            [state["grokfast_sum"] for state in states],
            [state["grokfast_count"] for state in states],
            lamb=group["grokfast_lambda"],
        )
        for state in states:
            state["grokfast_count"] += 1
        return filtered

    def _new_state(self, param: Tensor) -> Tensor:
        return _zeros_like(param, self.config.state_dtype)

    def _muon(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], work: Workload
    ) -> None:
        weights = params
        states = [self.state[param] for param in params]
        for param, state in zip(params, states, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = self._new_state(param)
            if group["muon_ste_mode"] and "latent_weight" not in state:
                state["latent_weight"] = param.clone(memory_format=torch.preserve_format)
        if group["muon_ste_mode"]:
            weights = [state["latent_weight"] for state in states]
        muon(
            [local(weight) for weight in weights],
            grads,
            [local(state["momentum_buffer"]) for state in states],
            orthogonalize=partial(self._orthogonalize, group, params, work),
            shapes=[param.shape for param in params],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            adjust_lr_fn=group["adjust_lr_fn"],
        )
        if group["muon_ste_mode"]:
            for param, latent in zip(params, weights, strict=True):
                param.copy_(ternarize(latent))

    def _orthogonalize(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        work: Workload,
        updates: list[Tensor],
    ) -> list[Tensor]:
        iterate = partial(
            orthogonalize,
            steps=group["ns_steps"],
            coefficients=group["ns_coefficients"],
            form=group["ns_form"],
        )
        result = list(updates)
        sharded = [i for i, param in enumerate(params) if is_dtensor(param)]
        whole = [i for i, param in enumerate(params) if not is_dtensor(param)]
        if sharded:
            pieces = orthogonalize_sharded(
                [param for param in params if is_dtensor(param)],
                [updates[i] for i in sharded],
                iterate,
                work,
            )
            for i, piece in zip(sharded, pieces, strict=True):
                result[i] = piece
        if whole:
            matrices = [updates[i].flatten(1) for i in whole]
            if self.process_group is None:
                matrices = iterate(matrices)
            else:
                matrices = orthogonalize_replicated(matrices, iterate, self.process_group, work)
            for i, matrix in zip(whole, matrices, strict=True):
                result[i] = matrix.reshape(params[i].shape)
        return result

    def _adamw(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        states = [self.state[param] for param in params]
        for param, state in zip(params, states, strict=True):
            if "step" not in state:
                on_device = group["fused"] or group["capturable"]
                device = param.device if on_device else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)
                state["exp_avg"] = _zeros_like(param)
                state["exp_avg_sq"] = _zeros_like(param)
        beta1, beta2 = group["betas"]
        adamw(
            [local(param) for param in params],
            grads,
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            capturable=group["capturable"] and not group["fused"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def describe(self) -> Description:
        """Return what happens to each parameter: its route and why, learning rate, state.

        ``print(optimizer.describe())`` shows it as a table.
        """
        rows = []
        for group in self.param_groups:
            lr = float(group["lr"])
            for param in group["params"]:
                per_entry = self._state_bytes_per_entry(group, param)
                rows.append(
                    DescribedParameter(
                        self._name(param),
                        tuple(param.shape),
                        group["algorithm"],
                        lr,
                        group["weight_decay"],
                        self._reasons[param],
                        per_entry * param.numel() if param.requires_grad else 0,
                    )
                )
        return Description(tuple(rows))

    def _state_bytes_per_entry(self, group: dict[str, Any], param: Tensor) -> int:
        own = (self.config.state_dtype or param.dtype).itemsize
        copies = 1 if group["grokfast_filter"] == "ema" else group["grokfast_window"] + 1
        grokfast = copies * own if group["grokfast_lambda"] else 0
        if group["algorithm"] == ADAMW:
            return int(grokfast + 2 * param.dtype.itemsize)
        return int(grokfast + own + group["muon_ste_mode"] * param.dtype.itemsize)

    def _name(self, param: Tensor) -> str:
        for number, group in enumerate(self.param_groups):
            for i, candidate in enumerate(group["params"]):
                if candidate is param:
                    names = group.get("param_names")
                    return str(names[i]) if names else f"parameter {i} of group {number}"
        raise KeyError("not a parameter of this optimizer")

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

        It is 0 before the first step, without the filter, and for windows that are not full. Reads
        the norm back to the host; with sharded parameters all processes must call it.
        """
        norms = []
        for state in self.state.values():
            norm = None
            if "grokfast_ema" in state:
                norm = torch.linalg.vector_norm(state["grokfast_ema"], dtype=torch.float32)
            elif state.get("grokfast_count", 0) >= len(state.get("grokfast_window", ())) > 0:
                total = state["grokfast_sum"] / len(state["grokfast_window"])
                norm = torch.linalg.vector_norm(total, dtype=torch.float32)
            if norm is not None:
                norms.append(norm.full_tensor() if is_dtensor(norm) else norm)
        return float(torch.stack([n.to(norms[0].device) for n in norms]).norm()) if norms else 0.0

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
    if algorithm == MUON and route_tensor(param).algorithm != MUON:
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
        grad = param.grad.to(param.dtype)
        if is_dtensor(param) and is_dtensor(grad) and grad.placements != param.placements:
            grad = grad.redistribute(placements=param.placements)
        params.append(param)
        grads.append(grad)
    return params, grads


def _zeros_like(param: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
