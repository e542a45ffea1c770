"""One way to call every kind of base model.

A base model is either a Hugging Face causal language model, or any callable
``input_ids -> object`` with ``.logits`` and ``.last_hidden_state``. A plain callable is given
``input_ids`` and nothing else: its signature cannot be trusted to tell what more it would take.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

BaseModel: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class BaseModelOutput:
    """What a base model says about a batch of sequences.

    Attributes:
        logits: ``(B, T, V)``, or ``(B, 1, V)`` where only the last position was asked for.
        last_hidden_state: ``(B, T, H)``, what the output head reads.
        past_key_values: the Hugging Face cache, or None where the model keeps none.
    """

    logits: Tensor
    last_hidden_state: Tensor
    past_key_values: Any = None


def is_hugging_face_model(base_model: BaseModel) -> bool:
    """Whether the model carries a Hugging Face configuration.

    The configuration survives wrappers (PEFT, ``torch.compile``) that an ``isinstance`` check of
    the model itself does not. ``transformers`` is looked up, never imported: whoever holds such a
    model has imported it.
    """
    configuration = sys.modules.get("transformers.configuration_utils")
    config = getattr(base_model, "config", None)
    return configuration is not None and isinstance(config, configuration.PreTrainedConfig)


def check_base_model(base_model: BaseModel) -> None:
    """Refuses what can be seen to be no causal language model.

    Raises:
        TypeError: the model cannot be called.
        ValueError: the model is an encoder-decoder.
    """
    if not callable(base_model):
        raise TypeError(f"base_model must be callable, got {type(base_model).__name__}")
    if is_hugging_face_model(base_model) and getattr(
        base_model.config,  # type: ignore[attr-defined]
        "is_encoder_decoder",
        False,
    ):
        raise ValueError(
            f"{type(base_model).__name__} is an encoder-decoder model; thoughts continue a prefix, "
            "which needs a decoder-only model (…ForCausalLM)"
        )


def check_context_length(base_model: BaseModel, length: int) -> None:
    """Refuses sequences that are longer than a Hugging Face model's ``max_position_embeddings``.

    Raises:
        ValueError: ``length`` tokens do not fit. (A learned position table would be read out of
            bounds, which on CUDA ends the process' use of the device.)
    """
    if not is_hugging_face_model(base_model):
        return
    limit = getattr(base_model.config, "max_position_embeddings", None)  # type: ignore[attr-defined]
    if isinstance(limit, int) and length > limit:
        raise ValueError(
            f"the prefix and its thought need {length} positions, the base model has {limit} "
            "(config.max_position_embeddings); shorten the prefix or lower max_length"
        )


def check_sequences(input_ids: Tensor, attention_mask: Tensor | None = None) -> None:
    """Refuses what is no batch of token sequences with padding at one end of each row.

    Raises:
        TypeError: ``input_ids`` are not integers.
        ValueError: a shape does not fit, or a row's real tokens are not in one piece.
    """
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise TypeError(f"input_ids must be integers, got {input_ids.dtype}")
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ValueError(f"input_ids must be (B, T), not empty, got {tuple(input_ids.shape)}")
    if attention_mask is None:
        return
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must be {tuple(input_ids.shape)} as input_ids, "
            f"got {tuple(attention_mask.shape)}"
        )
    real = attention_mask.bool()
    pieces = real[:, 0].long() + (real[:, 1:] & ~real[:, :-1]).sum(dim=-1)
    if not (pieces == 1).all():
        raise ValueError(
            "every row of attention_mask must have its ones in one piece: real tokens, and padding "
            "only before or after them"
        )


def run_base_model(
    base_model: BaseModel,
    input_ids: Tensor | None = None,
    *,
    inputs_embeds: Tensor | None = None,
    attention_mask: Tensor | Mapping[str, Tensor] | None = None,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,
    use_cache: bool = False,
    last_logits_only: bool = False,
    **attention_options: Any,
) -> BaseModelOutput:
    """Calls the base model, whatever its kind.

    Args:
        base_model: a Hugging Face causal model, or a callable (module docstring); a callable is
            given ``input_ids`` alone, whatever else is passed here.
        input_ids: ``(B, T)`` integers; with ``past_key_values`` only the tokens that it lacks.
        inputs_embeds: ``(B, T, H)`` instead of ``input_ids``; Hugging Face models only.
        attention_mask: ``(B, S)``, ``(B, 1, T, S)``, or one of the latter per kind of layer.
        position_ids: ``(B, T)``; left out where the model's forward does not take them.
        past_key_values: the cache of an earlier call with ``use_cache``.
        use_cache: ask for a cache; a model that has none returns none.
        last_logits_only: the logits of the last position suffice.
        attention_options: what the model hands on to its attention function.

    Raises:
        TypeError: the output lacks logits or hidden states.
    """
    if not is_hugging_face_model(base_model):
        output = base_model(input_ids)
        return _checked(base_model, output, getattr(output, "last_hidden_state", None))
    keywords = dict(attention_options)
    accepted = _forward_parameters(base_model)
    if last_logits_only and "logits_to_keep" in accepted:
        keywords["logits_to_keep"] = 1
    if position_ids is not None and "position_ids" in accepted:
        keywords["position_ids"] = position_ids
    if attention_mask is not None:
        keywords["attention_mask"] = attention_mask
    keywords["input_ids" if inputs_embeds is None else "inputs_embeds"] = (
        input_ids if inputs_embeds is None else inputs_embeds
    )
    output = base_model(
        past_key_values=past_key_values,
        use_cache=use_cache,
        output_hidden_states=True,
        return_dict=True,
        **keywords,
    )
    states = getattr(output, "hidden_states", None)
    cache = getattr(output, "past_key_values", None)
    return _checked(base_model, output, states[-1] if states else None, cache)


def output_head(base_model: BaseModel) -> Callable[[Tensor], Tensor] | None:
    """The map from hidden states ``(..., H)`` to logits ``(..., V)``, or None if there is none.

    Hugging Face models name it with ``get_output_embeddings()``, others as ``.lm_head``.
    """
    if is_hugging_face_model(base_model):
        head = base_model.get_output_embeddings()  # type: ignore[attr-defined]
    else:
        head = getattr(base_model, "lm_head", None)
    return head if callable(head) else None


def _forward_parameters(base_model: BaseModel) -> Mapping[str, inspect.Parameter]:
    """Parameters of the model's own forward, under wrappers that hand on whatever they are given.

    (``torch.compile`` wraps as ``_orig_mod``, PEFT has ``get_base_model()``.)
    """
    model: Any = getattr(base_model, "_orig_mod", base_model)
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return inspect.signature(getattr(model, "forward", model)).parameters


def _checked(
    base_model: BaseModel, output: Any, states: Any, past_key_values: Any = None
) -> BaseModelOutput:
    logits: Any = getattr(output, "logits", None)
    for name, value in (("logits", logits), ("hidden states", states)):
        if not isinstance(value, Tensor) or value.dim() != 3:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"{type(base_model).__name__} returned a {type(output).__name__} with {name}: "
                f"{found}; a base model is a Hugging Face causal model (…ForCausalLM), or a "
                "callable whose output has .logits (B, T, V) and .last_hidden_state (B, T, H)"
            )
    return BaseModelOutput(logits, states, past_key_values)
