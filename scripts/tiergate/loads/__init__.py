"""Decides, over Python's own syntax tree, which calls of ``torch.load`` are provably safe.

Standard library only, and nothing of what is read is executed. ``project`` puts the files of a
repository together, ``interpreter`` follows values through one file, ``calls`` judges a call.
"""
