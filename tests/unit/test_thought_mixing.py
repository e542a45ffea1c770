"""Mixing thoughts into a hidden state."""

import pytest
import torch
from torch import nn

from phase3_quietstar.architecture import MixingHead

H = 8


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def head() -> MixingHead:
    """A head that has learned to mix."""
    torch.manual_seed(0)
    head = MixingHead(H, num_heads=2).double().eval()
    nn.init.normal_(head.weight[-1].weight)
    return head


def test_attention_is_torchs_multi_head_attention_where_all_thoughts_are_equally_coherent(head):
    reference = nn.MultiheadAttention(H, 2, batch_first=True).double()
    with torch.no_grad():
        parts = (head.query, head.key, head.value)
        reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        reference.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        reference.out_proj.load_state_dict(head.output.state_dict())
    base, thoughts = normal(3, H), normal(3, 4, H)
    thought = reference(base[:, None], thoughts, thoughts)[0][:, 0]
    weight = head.weight(torch.cat([base, thought], dim=-1))
    expected = (1 - weight) * base + weight * thought
    got = head(base, thoughts, torch.full((3, 4), 0.6).double())
    torch.testing.assert_close(got, expected)


def test_a_thought_without_coherence_counts_for_nothing(head):
    base, thoughts = normal(2, H), normal(2, 3, H)
    coherence = torch.tensor([[0.5, 0.0, 0.5]] * 2).double()
    got = head(base, thoughts, coherence)
    expected = head(base, thoughts[:, [0, 2]], coherence[:, [0, 2]])
    torch.testing.assert_close(got, expected)


def test_no_coherence_at_all_treats_thoughts_alike(head):
    base, thoughts = normal(2, H), normal(2, 3, H)
    got = head(base, thoughts, torch.zeros(2, 3).double())
    torch.testing.assert_close(got, head(base, thoughts, torch.ones(2, 3).double()))


def test_the_order_of_thoughts_does_not_matter(head):
    base, thoughts, coherence = normal(2, H), normal(2, 3, H), normal(2, 3).abs()
    order = [2, 0, 1]
    got = head(base, thoughts[:, order], coherence[:, order])
    torch.testing.assert_close(got, head(base, thoughts, coherence))


def test_mixing_differentiates(head):
    inputs = [normal(2, H), normal(2, 3, H), normal(2, 3).abs() + 0.1]
    assert torch.autograd.gradcheck(head, [tensor.requires_grad_() for tensor in inputs])


def test_the_untrained_head_can_start_to_learn():
    torch.manual_seed(0)
    head = MixingHead(H, num_heads=2).double()
    head(normal(2, H), normal(2, 3, H), torch.ones(2, 3).double()).square().sum().backward()
    assert head.weight[-1].weight.grad.abs().sum() > 0


def test_dropout_acts_on_training_alone():
    torch.manual_seed(0)
    head = MixingHead(H, num_heads=2, dropout=0.5).double()
    nn.init.normal_(head.weight[-1].weight)
    inputs = (normal(2, H), normal(2, 3, H), torch.ones(2, 3).double())
    assert not torch.equal(head(*inputs), head(*inputs))
    head.eval()
    assert torch.equal(head(*inputs), head(*inputs))


@pytest.mark.parametrize(
    ("hidden_size", "options", "message"),
    [
        (8, {"num_heads": 3}, r"hidden_size \(8\) must be a positive multiple of num_heads \(3\)"),
        (8, {"num_heads": 0}, "multiple of num_heads"),
        (0, {}, "multiple of num_heads"),
        (8, {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(hidden_size, options, message):
    with pytest.raises(ValueError, match=message):
        MixingHead(hidden_size, **options)


@pytest.mark.parametrize(
    ("base", "thoughts", "coherence"),
    [
        ((2, H), (2, 3, 4, H), (2, 3)),
        ((3, H), (2, 3, H), (2, 3)),
        ((2, H), (2, 3, H), (2, 4)),
        ((2, 4), (2, 3, 4), (2, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(head, base, thoughts, coherence):
    with pytest.raises(ValueError, match="base, thoughts and coherence must be"):
        head(normal(*base), normal(*thoughts), normal(*coherence))
