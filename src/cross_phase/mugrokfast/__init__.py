"""MuonGrokfast: Muon for matrices, AdamW for the rest, both on Grokfast-filtered gradients."""

from .config import MuGrokConfig
from .optimizer import MuonGrokfast

__all__ = ["MuGrokConfig", "MuonGrokfast"]
