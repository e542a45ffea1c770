"""Steps of fixed shapes, and CUDA graphs of them."""

import pytest
import torch
from tests.unit.thought_models import FAMILIES, hugging_face_model, random_ids, tiny_language_model

from phase3_quietstar.architecture import ThoughtGenerator
from phase3_quietstar.decoding import Sequences, SharedPrefixDecoder
from phase3_quietstar.static_decoding import StaticPrefixDecoder
from phase3_quietstar.thought_generator import sample_thoughts

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("family", ["gpt2", "gemma2, capped", "mistral, sliding window"])
@torch.no_grad()
def test_static_steps_equal_growing_ones(family, device):
    model = hugging_face_model(family, device)
    sequences = Sequences(model, random_ids(device, 2, 7))
    positions = torch.tensor([[6, 2, 4]] * 2, device=device)
    growing = SharedPrefixDecoder(sequences, positions, copies=2)
    static = StaticPrefixDecoder(sequences, positions, copies=2, steps=6)
    embedding = torch.randn(32, dtype=torch.float64, device=device)
    expected, got = (d.feed_embeddings(embedding) for d in (growing, static))
    torch.testing.assert_close(got, expected)
    addresses = [layer.keys.data_ptr() for layer in static._cache.layers]
    for step in range(5):
        tokens = random_ids(device, 12, seed=step)
        expected, got = growing.feed(tokens), static.feed(tokens)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(static.next_logits, growing.next_logits)
    assert addresses == [layer.keys.data_ptr() for layer in static._cache.layers]
    with pytest.raises(ValueError, match="room for 6 steps"):
        static.feed(tokens)


def test_static_buffers_refuse_gradients():
    sequences = Sequences(hugging_face_model("gpt2", CPU), random_ids(CPU, 1, 3))
    with pytest.raises(ValueError, match=r"decode under torch\.no_grad"):
        StaticPrefixDecoder(sequences, torch.tensor([[2]]), copies=1, steps=1)


@pytest.mark.parametrize("model", ["gpt2", "plain"])
def test_a_graph_where_there_can_be_none_is_refused(model):
    base_model = tiny_language_model(CPU) if model == "plain" else hugging_face_model(model, CPU)
    generator = ThoughtGenerator(base_model, 2, 3, 3, cuda_graph=True)
    with pytest.raises(ValueError, match="cuda_graph=True needs input_ids on a CUDA device"):
        generator(random_ids(CPU, 1, 4), 3)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_graph_thinks_as_single_kernels_do(family):
    device = torch.device("cuda")
    model = hugging_face_model(family, device)
    input_ids = random_ids(device, 2, 7)
    positions = torch.tensor([[6, 2, 4]] * 2, device=device)
    plain, graphed = (
        sample_thoughts(
            Sequences(model, input_ids),
            positions,
            num_thoughts=3,
            length=8,
            generator=torch.Generator().manual_seed(0),
            cuda_graph=cuda_graph,
        )
        for cuda_graph in (False, True)
    )
    assert torch.equal(graphed.token_ids, plain.token_ids)
    torch.testing.assert_close(graphed.hidden_states, plain.hidden_states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(graphed.token_log_probs, plain.token_log_probs, rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@needs_cuda
@torch.no_grad()
def test_no_step_waits_for_the_device():
    device = torch.device("cuda")
    model = hugging_face_model("llama", device).float()
    sequences = Sequences(model, random_ids(device, 2, 7))
    positions = torch.tensor([[6, 2]] * 2, device=device)
    options = {"num_thoughts": 2, "length": 4}
    seeded = torch.Generator(device).manual_seed(0)
    sample_thoughts(sequences, positions, generator=seeded, **options)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sample_thoughts(sequences, positions, generator=seeded, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@needs_cuda
@torch.no_grad()
def test_the_device_draws_what_the_cpu_draws():
    model = hugging_face_model("gpt2", CPU)
    input_ids = random_ids(CPU, 2, 7)
    thoughts = []
    for device in (CPU, torch.device("cuda")):
        positions = torch.tensor([[6, 2]] * 2, device=device)
        sequences = Sequences(model.to(device), input_ids.to(device))
        source = torch.Generator().manual_seed(0)
        sampled = sample_thoughts(sequences, positions, num_thoughts=2, length=5, generator=source)
        thoughts.append(sampled.token_ids.cpu())
    assert torch.equal(*thoughts)
