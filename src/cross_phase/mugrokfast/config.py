"""Hyperparameters of MuonGrokfast, and the presets of the training phases."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from .grokfast import FILTERS
from .muon import ADJUST_LR_FNS
from .newton_schulz import COEFFICIENTS, FORMS

# name: (lowest value, upper bound); the upper bound itself is excluded.
_RANGES: Mapping[str, tuple[float, float]] = {
    "lr": (0.0, math.inf),
    "muon_lr": (0.0, math.inf),
    "fallback_lr": (0.0, math.inf),
    "grokfast_alpha": (0.0, 1.0),
    "grokfast_lambda": (0.0, math.inf),
    "kl_coefficient": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "weight_decay": (0.0, math.inf),
    "eps": (0.0, math.inf),
    "ns_steps": (1, 100),
    "grokfast_window": (1, 1_000_000),
}
_FLAGS = ("nesterov", "muon_ste_mode", "maximize", "capturable")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "adjust_lr_fn": ADJUST_LR_FNS,
    "grokfast_filter": FILTERS,
    "ns_coefficients": tuple(COEFFICIENTS),
    "ns_form": FORMS,
    "nonfinite_grads": ("propagate", "raise", "skip"),
}
_STATE_DTYPES = (None, torch.bfloat16, torch.float32)
_PHASES: Mapping[int, Mapping[str, Any]] = {
    1: {"muon_lr": 1e-3, "fallback_lr": 1e-3, "grokfast_lambda": 0.3},
    3: {
        "muon_lr": 5e-4,
        "fallback_lr": 5e-4,
        "grokfast_lambda": 0.1,
        "qk_clip_threshold": 25.0,
        "kl_coefficient": 0.1,
    },
    5: {"muon_lr": 1e-3, "fallback_lr": 1e-3, "grokfast_lambda": 2.0, "muon_ste_mode": True},
    6: {"muon_lr": 1e-4, "fallback_lr": 1e-4, "grokfast_lambda": 0.2},
    7: {
        "muon_lr": 5e-4,
        "fallback_lr": 5e-4,
        "grokfast_lambda": 0.15,
        "qk_clip_threshold": 28.0,
        "kl_coefficient": 0.05,
    },
}


def check_hyperparameters(values: Mapping[str, Any]) -> None:
    """Check every known hyperparameter in ``values``; other keys are left alone.

    Args:
        values: Hyperparameters by name, as :class:`MuGrokConfig` or a ``param_groups`` entry has
            them.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value lies outside its range.
    """
    for name, (low, high) in _RANGES.items():
        if name == "lr" and isinstance(values.get(name), Tensor):
            _check_lr_tensor(values[name])
        elif name in values:
            _check_number(name, values[name], low, high)
    if "qk_clip_threshold" in values:
        threshold = values["qk_clip_threshold"]
        _check_number("qk_clip_threshold", threshold, 0.0, math.inf)
        if threshold == 0:
            raise ValueError("qk_clip_threshold must be greater than 0: it bounds attention logits")
    if "betas" in values:
        _check_betas(values["betas"])
    for name in _FLAGS:
        if name in values and not isinstance(values[name], bool):
            raise TypeError(f"{name} must be True or False, got {values[name]!r}")
    for name, known in _NAMES.items():
        if name in values and values[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {values[name]!r}")
    if values.get("state_dtype") not in _STATE_DTYPES:
        raise ValueError(
            "state_dtype must be None, torch.bfloat16 or torch.float32, got "
            f"{values['state_dtype']!r}"
        )
    if values.get("capturable"):
        _check_capturable(values)


def _check_capturable(values: Mapping[str, Any]) -> None:
    if values.get("grokfast_filter") == "ma":
        raise ValueError(
            "capturable needs grokfast_filter='ema': the moving window keeps its place on the host"
        )
    if values.get("nonfinite_grads") in ("raise", "skip"):
        raise ValueError(
            "capturable needs nonfinite_grads='propagate': the host decides about the others"
        )


def _check_betas(betas: object) -> None:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
    for index, beta in enumerate(betas):
        _check_number(f"betas[{index}]", beta, 0.0, 1.0)


def _check_lr_tensor(lr: Tensor) -> None:
    # Its value is not read: that would wait for the device.
    if lr.numel() != 1 or not lr.is_floating_point():
        raise ValueError(
            "lr as a tensor must hold one floating-point number, got the shape "
            f"{tuple(lr.shape)} of {lr.dtype}"
        )


def _check_number(name: str, value: object, low: float, high: float) -> None:
    wanted = Integral if isinstance(low, int) else Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = "an integer" if wanted is Integral else "a number"
        raise TypeError(f"{name} must be {kind}, got {value!r}")
    if not low <= float(value) < high:
        raise ValueError(f"{name} must be in [{low}, {high}), got {value!r}")


@dataclass(frozen=True)
class MuGrokConfig:
    """Hyperparameters of :class:`~cross_phase.mugrokfast.MuonGrokfast`.

    An instance cannot be changed; :func:`dataclasses.replace` makes a changed copy. Learning
    rates are those at the start: a scheduler changes ``param_groups``, not the configuration.

    Args:
        muon_lr: Learning rate of the parameters that Muon updates.
        fallback_lr: Learning rate of the parameters that AdamW updates.
        grokfast_alpha: Decay of the gradient's exponential moving average, in [0, 1).
        grokfast_lambda: How much of the average is added to the gradient; 0 turns the filter off.
        qk_clip_threshold: Largest attention logit that QK-clip leaves alone, greater than 0.
        kl_coefficient: Weight of a KL penalty in the loss, for training code that adds one. The
            optimizer carries it and does not use it.
        muon_ste_mode: Keep the parameters that Muon updates ternary, see
            :mod:`cross_phase.mugrokfast.ternary`.
        momentum: Decay of Muon's momentum buffer, in [0, 1).
        nesterov: Whether Muon looks one step of momentum ahead.
        ns_steps: Newton-Schulz iterations per Muon update, 1 to 99.
        weight_decay: Decoupled weight decay, for all parameters.
        adjust_lr_fn: How Muon's learning rate depends on a matrix's shape: ``"match_rms_adamw"``
            makes a learning rate that was tuned for AdamW fit, ``"original"`` is Keller Jordan's.
        betas: AdamW's decay rates of the first and second moment, each in [0, 1).
        eps: AdamW's term in the denominator.
        maximize: Ascend instead of descend.
        grokfast_filter: ``"ema"``, an exponential moving average, or ``"ma"``, the mean of a window
            of gradients.
        grokfast_window: Gradients in that window; the state holds them all.
        ns_coefficients: ``"muon"`` or ``"polar_express"``, see
            :func:`~cross_phase.mugrokfast.newton_schulz.newton_schulz`.
        ns_form: ``"standard"``, on the CPU bit for bit what :class:`torch.optim.Muon` computes, or
            ``"gram"``, the same polynomial with fewer multiplications for oblong matrices.
        nonfinite_grads: What a NaN or infinite gradient does: ``"propagate"`` lets it through, as
            torch's optimizers do; ``"raise"`` names the parameter and changes nothing; ``"skip"``
            leaves out the step and counts it. The last two read one number per step back from the
            device.
        state_dtype: Type of the Grokfast state and of Muon's momentum, ``torch.bfloat16`` or
            ``torch.float32``; by default each parameter's own. AdamW's moments always have the
            parameter's type: bfloat16 could not represent the small steps of the second one.
        capturable: Let a CUDA graph capture the step. Give learning rates as tensors then, because
            a graph would keep a number for ever.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value lies outside its range.
    """

    muon_lr: float = 0.01
    fallback_lr: float = 1e-3
    grokfast_alpha: float = 0.98
    grokfast_lambda: float = 2.0
    qk_clip_threshold: float = 30.0
    kl_coefficient: float = 0.0
    muon_ste_mode: bool = False
    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    weight_decay: float = 0.0
    adjust_lr_fn: str = "match_rms_adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    maximize: bool = False
    grokfast_filter: str = "ema"
    grokfast_window: int = 100
    ns_coefficients: str = "muon"
    ns_form: str = "standard"
    nonfinite_grads: str = "propagate"
    state_dtype: torch.dtype | None = None
    capturable: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        check_hyperparameters({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_phase(cls, phase_num: int) -> "MuGrokConfig":
        """Return the preset of a training phase.

        Args:
            phase_num: 1, 3, 5, 6 or 7.

        Raises:
            ValueError: The phase has no preset.
        """
        if phase_num not in _PHASES:
            raise ValueError(
                f"phase {phase_num!r} has no optimizer preset; phases with one: "
                f"{', '.join(map(str, _PHASES))}. Use MuGrokConfig.custom(...) for your own values"
            )
        return cls(**_PHASES[phase_num])

    @classmethod
    def custom(cls, **hyperparameters: Any) -> "MuGrokConfig":
        """Return the defaults of no phase in particular, with ``hyperparameters`` replaced."""
        return cls(**hyperparameters)
