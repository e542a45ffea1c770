"""One way to call every kind of base model.

A base model is either a Hugging Face causal language model, or any callable
``input_ids -> object`` with ``.logits`` and ``.last_hidden_state``. A plain callable is given
``input_ids`` and nothing else: its signature cannot be trusted to tell what more it would take.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

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


def run_base_model(
    base_model: BaseModel,
    input_ids: Tensor,
    *,
    past_key_values: Any = None,
    use_cache: bool = False,
    last_logits_only: bool = False,
) -> BaseModelOutput:
    """Calls the base model, whatever its kind.

    Args:
        base_model: a Hugging Face causal model, or a callable (module docstring).
        input_ids: ``(B, T)`` integers; with ``past_key_values`` only the tokens that it lacks.
        past_key_values: the cache of an earlier call with ``use_cache``.
        use_cache: ask for a cache; a model that has none returns none.
        last_logits_only: the logits of the last position suffice.

    Raises:
        TypeError: the output lacks logits or hidden states.
    """
    if not is_hugging_face_model(base_model):
        output = base_model(input_ids)
        return _checked(base_model, output, getattr(output, "last_hidden_state", None))
    keywords: dict[str, Any] = {}
    forward = getattr(base_model, "forward", base_model)
    if last_logits_only and "logits_to_keep" in inspect.signature(forward).parameters:
        keywords["logits_to_keep"] = 1
    output = base_model(
        input_ids=input_ids,
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
