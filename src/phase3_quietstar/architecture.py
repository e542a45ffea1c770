"""The parts of Quiet-STaR (arXiv 2403.09629) under one roof."""

from .coherence import CoherenceScorer, CoherenceScores
from .injection import ThoughtInjector
from .mixing import MixingHead
from .model import QuietSTaRModel
from .thought_generator import ThoughtGenerator, ThoughtOutput

__all__ = [
    "CoherenceScorer",
    "CoherenceScores",
    "MixingHead",
    "QuietSTaRModel",
    "ThoughtGenerator",
    "ThoughtInjector",
    "ThoughtOutput",
]
