"""Small base models that the tests of ``phase3_quietstar`` share."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

VOCAB_SIZE = 23
HIDDEN_SIZE = 16


class TinyLanguageModel(nn.Module):
    """A causal language model that takes ``input_ids`` and keeps no cache."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, HIDDEN_SIZE)
        self.recurrent = nn.GRU(HIDDEN_SIZE, HIDDEN_SIZE, batch_first=True)
        self.lm_head = nn.Linear(HIDDEN_SIZE, VOCAB_SIZE)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        states, _ = self.recurrent(self.embedding(input_ids))
        return SimpleNamespace(logits=self.lm_head(states), last_hidden_state=states)


def tiny_language_model(device: torch.device, seed: int = 0) -> TinyLanguageModel:
    """Float64, and peaked enough for its tokens to be told apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TinyLanguageModel()
    with torch.no_grad():
        model.lm_head.weight.mul_(6)
    return model.double().to(device)


def random_ids(device: torch.device, *shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB_SIZE, shape, generator=generator).to(device)


def ids_tensor(thought_ids: list[list[list[int]]], device: torch.device) -> Tensor:
    """K thoughts of L steps of B ids, as ``(B, K, L)``."""
    return torch.tensor(thought_ids, device=device).permute(2, 0, 1)


def sampling_distribution(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Reference for one row ``(V,)``: temperature, then the smallest set that reaches top_p."""
    probs = (logits.double() / temperature).softmax(dim=-1)
    kept = torch.zeros_like(probs)
    mass = 0.0
    for token in sorted(range(len(probs)), key=lambda token: -probs[token].item()):
        kept[token] = probs[token]
        mass += probs[token].item()
        if mass >= top_p:
            break
    return kept / kept.sum()


TOKENS = {"vocab_size": VOCAB_SIZE, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
LLAMA_LIKE = TOKENS | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
}
WITHOUT_GROUPS = {name: value for name, value in LLAMA_LIKE.items() if "key_value" not in name}
GPT2 = TOKENS | {
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.5,
}
SLIDING = {"sliding_window": 4}

# Name: the family's prefix in transformers, and its options.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "llama": ("Llama", LLAMA_LIKE),
    "mistral, sliding window": ("Mistral", LLAMA_LIKE | SLIDING),
    "qwen2": ("Qwen2", LLAMA_LIKE),
    "qwen2, some layers sliding": (
        "Qwen2",
        LLAMA_LIKE | SLIDING | {"use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", LLAMA_LIKE | {"head_dim": 8}),
    "gemma": ("Gemma", LLAMA_LIKE | {"head_dim": 8}),
    "gemma2, capped": (
        "Gemma2",
        LLAMA_LIKE | SLIDING | {"head_dim": 8, "attn_logit_softcapping": 5.0},
    ),
    "phi3": ("Phi3", LLAMA_LIKE | {"sliding_window": None}),
    "gpt_neox": ("GPTNeoX", WITHOUT_GROUPS),
    "granite": ("Granite", LLAMA_LIKE),
    "olmo2": ("Olmo2", LLAMA_LIKE),
    "starcoder2, sliding window": ("Starcoder2", LLAMA_LIKE | SLIDING),
}


def hugging_face_model(family: str, device: torch.device, **options: Any) -> Any:
    """A tiny causal model of a family, in float64 and evaluation mode."""
    import transformers

    prefix, defaults = FAMILIES[family]
    config = getattr(transformers, f"{prefix}Config")(**(defaults | options))
    name = "GPT2LMHeadModel" if prefix == "GPT2" else f"{prefix}ForCausalLM"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, name)(config)
    return model.double().to(device).eval()


def without_cache(model: Any) -> Any:
    """The same model as a callable that keeps no cache."""

    def forward(input_ids: Tensor) -> SimpleNamespace:
        output = model(input_ids=input_ids, use_cache=False, output_hidden_states=True)
        return SimpleNamespace(logits=output.logits, last_hidden_state=output.hidden_states[-1])

    return forward
