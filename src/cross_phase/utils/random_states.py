"""The states of the random number generators, to go on with the same numbers."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def get_random_states() -> dict[str, Any]:
    """Take the states of Python's, NumPy's and torch's global generators.

    Returns:
        ``python``, ``numpy``, ``torch`` and ``cuda`` (one for each CUDA device that is in use),
        of types that ``save_checkpoint`` takes as ``training_state``.
    """
    version, internal, gauss_next = random.getstate()
    cuda_is_used: Callable[[], bool] = torch.cuda.is_initialized
    return {
        # As an array: 625 numbers are no text.
        "python": [version, np.array(internal, dtype=np.int64), gauss_next],
        # The global generator, because other libraries draw from it.
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda_is_used() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore what :func:`get_random_states` took.

    Args:
        states: The states. Those of CUDA are restored where there are as many devices.

    Raises:
        KeyError: A generator's state is missing.
        ValueError: The number of CUDA devices differs from the number of their states.
    """
    python, numpy_state, torch_state, cuda = (
        states[name] for name in ("python", "numpy", "torch", "cuda")
    )
    if cuda and len(cuda) != torch.cuda.device_count():
        raise ValueError(
            f"there are states for {len(cuda)} CUDA devices, and {torch.cuda.device_count()} are "
            "here: set states['cuda'] = [] to leave CUDA's generators alone"
        )
    version, internal, gauss_next = python
    random.setstate((version, tuple(internal.tolist()), gauss_next))
    np.random.set_state(numpy_state)  # noqa: NPY002 - as above
    torch.set_rng_state(torch_state.cpu())
    if cuda:
        torch.cuda.set_rng_state_all([state.cpu() for state in cuda])
