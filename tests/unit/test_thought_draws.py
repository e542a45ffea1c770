"""The random numbers of thoughts."""

import torch
from tests.unit.thought_models import random_ids

from phase3_quietstar.draws import (
    FIRST_MULTIPLIER,
    GOLDEN_GAMMA,
    SECOND_MULTIPLIER,
    distinct_keys,
    draw_seed,
    prefix_keys,
    uniform_draws,
)

WORD = 2**64


def mix(value: int) -> int:
    """SplitMix64's finaliser on unsigned integers of Python."""
    value %= WORD
    value = (value ^ (value >> 30)) * FIRST_MULTIPLIER % WORD
    value = (value ^ (value >> 27)) * SECOND_MULTIPLIER % WORD
    return value ^ (value >> 31)


def test_the_constants_are_those_of_splitmix64():
    assert GOLDEN_GAMMA % WORD == 0x9E3779B97F4A7C15
    assert FIRST_MULTIPLIER % WORD == 0xBF58476D1CE4E5B9
    assert SECOND_MULTIPLIER % WORD == 0x94D049BB133111EB


def test_numbers_equal_the_same_hash_of_python_integers(device):
    keys = torch.tensor([3, -(2**63), 2**63 - 1], device=device)
    got = uniform_draws(torch.tensor(123456789, device=device), keys, 2, 3)
    for row, key in enumerate(keys.tolist()):
        of_key = mix(mix(123456789 + GOLDEN_GAMMA) ^ (key % WORD))
        for thought in range(2):
            of_thought = mix(of_key + (thought + 1) * GOLDEN_GAMMA)
            for step in range(3):
                bits = mix(of_thought + (step + 1) * GOLDEN_GAMMA)
                assert got[row, thought, step].item() == (bits >> 11) / 2**53


def test_numbers_are_uniform_and_unrelated(device):
    keys = prefix_keys(random_ids(device, 40, 25)).flatten()
    numbers = uniform_draws(torch.tensor(7, device=device), keys.unique(), 5, 16)
    count = numbers.numel()
    assert count > 60_000
    for values in (numbers, (numbers * 1024) % 1):
        shares = values.flatten().cpu().histc(20, 0, 1) / count
        assert (shares - 1 / 20).abs().max() < 0.005
    for dim in range(3):
        first, second = numbers.narrow(dim, 0, 4), numbers.narrow(dim, 1, 4)
        pairs = torch.stack([first.flatten(), second.flatten()])
        assert pairs.corrcoef()[0, 1].abs() < 0.15


def test_a_key_belongs_to_the_tokens_in_their_order(device):
    keys = prefix_keys(torch.tensor([[1, 2, 3], [2, 1, 3], [1, 2, 4], [1, 1, 1]], device=device))
    assert keys[0, 1] == keys[2, 1]
    assert keys.unique().numel() == 12 - 3  # 1; 1 again; (1, 2) again


def test_a_key_does_not_depend_on_padding(device):
    plain = prefix_keys(torch.tensor([[5, 6, 7]], device=device))
    padded = torch.tensor([[0, 9, 5, 6, 7], [5, 6, 7, 9, 0]], device=device)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
    keys = prefix_keys(padded, mask)
    assert torch.equal(keys[0, 2:], plain[0])
    assert torch.equal(keys[1, :3], plain[0])


def test_equal_keys_become_different_ones_and_the_first_stays(device):
    keys = torch.tensor([[4, 9], [4, 4], [7, 9]], device=device)
    distinct = distinct_keys(keys)
    assert distinct.unique().numel() == 6
    first = torch.tensor([[True, True], [False, False], [True, False]], device=device)
    assert torch.equal(distinct[first], keys[first])
    assert torch.equal(distinct_keys(distinct), distinct)


def test_a_seed_is_drawn_from_the_generator_or_the_default(device):
    first, second = (draw_seed(torch.Generator().manual_seed(s), device) for s in (1, 2))
    assert first.device.type == device.type
    assert first != second
    assert first == draw_seed(torch.Generator().manual_seed(1), device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert draw_seed(None, device) == first
