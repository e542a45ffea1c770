"""Uniform numbers that belong to a sequence, a thought and a step, not to a place in a batch.

A counter-based generator: each number is a hash of one seed and of what it is for. So a sequence
gets the same numbers wherever it stands in the batch, however it is padded, whatever its neighbours
are and however many thoughts are asked for; and all of them are there at once, on the device.
"""

import torch
from torch import Tensor

# Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64, as the
# signed 64-bit numbers that torch computes with; products wrap.
GOLDEN_GAMMA = -0x61C8864680B583EB
FIRST_MULTIPLIER = -0x40A7B892E31B1A47
SECOND_MULTIPLIER = -0x6B2FB644ECCEEE15


def draw_seed(generator: torch.Generator | None, device: torch.device) -> Tensor:
    """One 63-bit seed, a scalar on ``device``.

    Args:
        generator: its source, on any device; without one torch's default on the CPU, which
            ``torch.manual_seed`` sets. A generator on the CPU gives the same seed for every device.
        device: where the seed is needed.
    """
    source = torch.device("cpu") if generator is None else generator.device
    seed = torch.randint(2**63 - 1, (), generator=generator, device=source)
    return seed.to(device, non_blocking=True)


def prefix_keys(input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """A key of every prefix: a hash of its tokens in their order, without padding.

    Args:
        input_ids: ``(B, T)`` integers.
        attention_mask: ``(B, T)``, 0 at padding.

    Returns:
        ``(B, T)`` int64; entry t is the key of the tokens up to and including t.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    mask = mask.long()
    token = _mix(input_ids.long() + GOLDEN_GAMMA)
    place = _mix(mask.cumsum(dim=-1) * GOLDEN_GAMMA)
    return _mix((_mix(token ^ place) * mask).cumsum(dim=-1))


def distinct_keys(keys: Tensor) -> Tensor:
    """Tells equal keys apart: the second of its kind becomes another key, and so on.

    Args:
        keys: int64, any shape.

    Returns:
        As ``keys``; the first of each kind is unchanged.
    """
    ordered, order = keys.flatten().sort(stable=True)
    index = torch.arange(ordered.numel(), device=keys.device)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    rank = index - torch.where(is_first, index, 0).cummax(dim=0).values
    ranks = torch.empty_like(rank).scatter_(0, order, rank).view_as(keys)
    return torch.where(ranks == 0, keys, _mix(keys + ranks * GOLDEN_GAMMA))


def uniform_draws(seed: Tensor, keys: Tensor, num_thoughts: int, length: int) -> Tensor:
    """One number in [0, 1) for every step of every thought of every key.

    Args:
        seed: scalar int64.
        keys: ``(...)`` int64 on the same device.
        num_thoughts: K; the numbers of thought k do not depend on it.
        length: L; those of a step do not depend on it.

    Returns:
        ``(..., K, L)`` float64, multiples of 2^-53.
    """
    thought = torch.arange(1, num_thoughts + 1, device=keys.device) * GOLDEN_GAMMA
    step = torch.arange(1, length + 1, device=keys.device) * GOLDEN_GAMMA
    of_key = _mix(_mix(seed + GOLDEN_GAMMA) ^ keys)
    of_thought = _mix(of_key.unsqueeze(-1) + thought)
    bits = _mix(of_thought.unsqueeze(-1) + step)
    return _shift_right(bits, 11).double() * 2.0**-53


def _mix(value: Tensor) -> Tensor:
    """The finaliser of SplitMix64: a bijection of 64 bits in which every bit counts."""
    value = (value ^ _shift_right(value, 30)) * FIRST_MULTIPLIER
    value = (value ^ _shift_right(value, 27)) * SECOND_MULTIPLIER
    return value ^ _shift_right(value, 31)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """A shift that fills with zeros; torch's own fills with the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
