"""Utilities that every phase uses: sizes, population checks, checkpoints and tokenizers."""

from .batch_size import calculate_safe_batch_size
from .checkpoint_errors import CheckpointError
from .checkpoints import load_checkpoint, save_checkpoint
from .divergence import detect_training_divergence
from .diversity import compute_population_diversity, validate_model_diversity
from .model_size import get_model_size
from .tensor_files import SAFETENSORS_AVAILABLE
from .tokenizers import MockTokenizer, get_tokenizer

__all__ = [
    "SAFETENSORS_AVAILABLE",
    "CheckpointError",
    "MockTokenizer",
    "calculate_safe_batch_size",
    "compute_population_diversity",
    "detect_training_divergence",
    "get_model_size",
    "get_tokenizer",
    "load_checkpoint",
    "save_checkpoint",
    "validate_model_diversity",
]
