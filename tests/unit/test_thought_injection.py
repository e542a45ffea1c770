"""Where a thought is injected."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phase3_quietstar.architecture import ThoughtInjector
from phase3_quietstar.injection import SIGNAL_WEIGHTS, combine_signals

FLAT = torch.zeros(2, 50)
PEAKED = torch.zeros(2, 50)
PEAKED[:, 3] = 100.0

signals = st.dictionaries(st.sampled_from(sorted(SIGNAL_WEIGHTS)), st.floats(0, 1), min_size=1)


def test_all_signals_together_are_the_published_sum():
    got = combine_signals({"entropy": 0.5, "dispersion": 0.2, "loss": 0.9})
    assert got == pytest.approx(0.4 * 0.5 + 0.3 * 0.2 + 0.3 * 0.9)


@settings(max_examples=50, deadline=None)
@given(signals)
def test_difficulty_lies_between_the_signals_that_are_there(given_signals):
    difficulty = combine_signals(given_signals)
    assert min(given_signals.values()) - 1e-12 <= difficulty <= max(given_signals.values()) + 1e-12


def test_attention_counts_where_it_is_given():
    scattered, focused = torch.full((2, 4, 8), 1 / 8), torch.eye(8)[:2]
    # (0.4 * 0 + 0.3 * 1) / 0.7 = 0.43
    assert ThoughtInjector(threshold=0.42)(PEAKED, scattered) is True
    assert ThoughtInjector(threshold=0.44)(PEAKED, scattered) is False
    assert ThoughtInjector(threshold=0.1)(PEAKED, focused) is False


def test_attention_is_measured_whatever_its_scale():
    attention = torch.tensor([[1.0, 1.0, 2.0, 0.0]])
    injector = ThoughtInjector()
    expected = 1.5 * math.log(2) / math.log(4)
    assert injector._compute_dispersion(attention) == pytest.approx(expected)
    assert injector._compute_dispersion(attention / 4) == pytest.approx(expected)


@pytest.mark.parametrize(("loss", "share"), [(0.0, 0.0), (4.0, 0.4), (10.0, 1.0), (math.inf, 1.0)])
def test_loss_counts_up_to_its_ceiling(loss, share):
    difficulty = 0.3 * share / 0.7
    if difficulty > 0.01:
        assert ThoughtInjector(threshold=difficulty - 0.01)(PEAKED, loss=torch.tensor(loss)) is True
    assert ThoughtInjector(threshold=difficulty + 0.01)(PEAKED, loss=loss) is False


def test_a_decision_is_a_bool_and_a_refusal_is_not_remembered():
    injector = ThoughtInjector(min_interval=4)
    assert injector(PEAKED, position=2) is False
    assert injector.last_injection == -4
    assert injector(FLAT, position=3) is True
    assert injector.last_injection == 3


def test_reset_starts_a_new_sequence():
    injector = ThoughtInjector()
    assert injector(FLAT, position=5) is True
    assert injector(FLAT, position=7) is False
    injector.reset()
    assert injector(FLAT, position=7) is True


def test_positions_of_a_batch_are_those_of_one_decision_after_another():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 8, 8, 0.1, 0.1, 0.1, 8, 8, 0.1, 8])[None, :, None]
    logits = torch.randn(3, 10, 50, generator=generator) * scale
    injector = ThoughtInjector(threshold=0.7, min_interval=2)
    selected = injector.select_positions(logits)
    assert selected == [0, 3, 5, 8]
    one_by_one = ThoughtInjector(threshold=0.7, min_interval=2)
    assert selected == [t for t in range(10) if one_by_one(logits[:, t], position=t)]
    assert injector.select_positions(logits) == selected


def test_padding_does_not_count_where_positions_are_selected():
    logits = torch.zeros(2, 4, 50)
    logits[0, :, 3] = 100.0
    logits[1, 0] = math.nan
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 0]])
    injector = ThoughtInjector(threshold=0.3, min_interval=1)
    # Certain alone at 0; half certain at 1 and 2; nobody is there at 3.
    assert injector.select_positions(logits, mask) == [1, 2]
    with pytest.raises(ValueError, match="not finite"):
        injector.select_positions(logits)


@pytest.mark.parametrize(
    "arguments",
    [
        {"logits": FLAT * math.nan},
        {"logits": FLAT, "loss": math.nan},
        {"logits": FLAT, "attention_weights": torch.zeros(2, 4)},
    ],
)
def test_signals_that_are_not_finite_are_refused(arguments):
    with pytest.raises(ValueError, match="not finite"):
        ThoughtInjector()(**arguments)


def test_a_position_before_the_sequence_is_refused():
    with pytest.raises(ValueError, match="position must not be negative, got -1"):
        ThoughtInjector()(FLAT, position=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"threshold must be in \[0, 1\]"),
        ({"threshold": math.nan}, r"threshold must be in \[0, 1\]"),
        ({"min_interval": 0}, "min_interval must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ThoughtInjector(**options)
