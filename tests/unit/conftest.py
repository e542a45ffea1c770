"""Fixtures that the library's tests share."""

import os

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    """The device that is being judged: ``TIERGATE_DEVICE``, by default the CPU.

    A device that is asked for and not there is an error, never a skip.
    """
    name = os.environ.get("TIERGATE_DEVICE", "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("TIERGATE_DEVICE=cuda, but torch sees no CUDA device")
    return torch.device(name)
