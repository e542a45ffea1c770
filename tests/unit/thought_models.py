"""Small base models that the tests of ``phase3_quietstar`` share."""

from types import SimpleNamespace

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
