"""Utilities that every phase uses: sizes, population checks, checkpoints and tokenizers."""

from .batch_size import calculate_safe_batch_size, measure_safe_batch_size
from .checkpoint_errors import CheckpointError
from .checkpoint_series import CheckpointSeries, ResumedRun
from .checkpoints import load_checkpoint, save_checkpoint, verify_checkpoint
from .divergence import detect_training_divergence
from .diversity import compute_population_diversity, validate_model_diversity
from .legacy_checkpoints import LegacyConversion, convert_legacy_checkpoint
from .model_size import get_model_size
from .random_states import get_random_states, set_random_states
from .safetensors_weights import load_safetensors
from .tensor_files import SAFETENSORS_AVAILABLE
from .tokenizers import MockTokenizer, get_tokenizer

__all__ = [
    "SAFETENSORS_AVAILABLE",
    "CheckpointError",
    "CheckpointSeries",
    "LegacyConversion",
    "MockTokenizer",
    "ResumedRun",
    "calculate_safe_batch_size",
    "compute_population_diversity",
    "convert_legacy_checkpoint",
    "detect_training_divergence",
    "get_model_size",
    "get_random_states",
    "get_tokenizer",
    "load_checkpoint",
    "load_safetensors",
    "measure_safe_batch_size",
    "save_checkpoint",
    "set_random_states",
    "validate_model_diversity",
    "verify_checkpoint",
]
