"""Quiet-STaR (arXiv 2403.09629): thoughts sampled between tokens, scored, mixed back in.

The classes live in ``phase3_quietstar.architecture``. Importing this package imports nothing else.
"""
