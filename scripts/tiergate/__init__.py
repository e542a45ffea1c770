"""A merge gate for PyTorch repositories that cannot go green by accident."""

__version__ = "0.1.0"
