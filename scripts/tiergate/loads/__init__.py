"""Decides, over Python's own syntax tree, which calls of ``torch.load`` are provably safe.

Nothing of what is read is executed. ``project`` puts the files of a repository together,
``interpreter`` follows values through one file, ``calls`` judges a call.

The abstract interpreter is built up in layers, each a class in a module of its own: what is said
of places (``record``), ``names``, ``judging``, ``members``, what is known of the ``library``,
``calling``, ``expressions``, ``functions``, ``statements``, ``control_flow``, ``interpreter``.
"""
