"""Which parameters Muon updates and which AdamW."""

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from cross_phase.mugrokfast import MuonGrokfast
from cross_phase.mugrokfast.optimizer import create_optimizer_from_phase
from cross_phase.mugrokfast.routing import route_model, route_named, route_tensor


def names(model: nn.Module, algorithm: str) -> set[str]:
    return {name for name, _, route in route_model(model) if route.algorithm == algorithm}


class TinyLM(nn.Module):
    """A language model that says nothing by its names."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.a = nn.Embedding(256, 64)
        # As many outputs as the embedding has rows, by chance.
        self.b = nn.Linear(64, 256)
        self.c = nn.Linear(256, 64)
        self.d = nn.Linear(64, 256, bias=False)
        if tied:
            self.d.weight = self.a.weight


@pytest.mark.parametrize("tied", [False, True])
def test_the_output_head_is_found_without_its_name(tied: bool) -> None:
    model = TinyLM(tied=tied)
    assert names(model, "muon") == {"b.weight", "c.weight"}
    assert names(model, "adamw") == {"a.weight", "b.bias", "c.bias"} | (
        set() if tied else {"d.weight"}
    )


def test_norms_biases_and_embeddings_of_any_shape_are_adamws() -> None:
    model = nn.ModuleDict(
        {
            "x": nn.LayerNorm((4, 5)),
            "y": nn.BatchNorm2d(3),
            "z": nn.EmbeddingBag(5, 4),
            "m": nn.MultiheadAttention(8, 2, add_bias_kv=True),
            "k": nn.Conv2d(3, 4, 3),
        }
    )
    assert names(model, "muon") == {"m.in_proj_weight", "m.out_proj.weight", "k.weight"}


def test_every_parameter_is_routed_once() -> None:
    model = TinyLM(tied=True)
    routed = [param for _, param, _ in route_model(model)]
    assert len(routed) == len({id(param) for param in routed}) == len(list(model.parameters()))


@pytest.mark.parametrize("tied", [False, True])
def test_gpt2_hidden_matrices_are_muons_and_the_rest_is_adamws(tied: bool) -> None:
    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=16, n_positions=16, vocab_size=32, tie_word_embeddings=tied
    )
    model = GPT2LMHeadModel(config)
    expected = {
        f"transformer.h.0.{name}.weight"
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert names(model, "muon") == expected
    by_name = {n for n, p in model.named_parameters() if route_named(n, p).algorithm == "muon"}
    assert by_name == expected


def test_llama_trains_with_each_kind_of_parameters() -> None:
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=32,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    assert names(model, "adamw") == {
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    }
    ids = torch.arange(1, 17).view(2, 8)
    optimizer = create_optimizer_from_phase(model, 1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss: Tensor = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("layers.0.mlp.up_proj.weight", "muon"),
        ("encoder.conv1.weight", "muon"),
        ("attn.bias_k", "adamw"),
        ("model.embed_tokens.weight", "adamw"),
        ("vit.pos_embed", "adamw"),
        ("cls_token", "adamw"),
        ("lm_head.weight", "adamw"),
        ("heads.head.weight", "adamw"),
        ("multihead.out_proj.weight", "muon"),
        ("head.mlp.fc1.weight", "muon"),
        ("final_norm.weight", "adamw"),
    ],
)
def test_a_matrix_is_routed_by_what_its_name_says(name: str, algorithm: str) -> None:
    assert route_named(name, torch.zeros(4, 6)).algorithm == algorithm


@pytest.mark.parametrize(
    ("shape", "algorithm"),
    [((), "adamw"), ((3,), "adamw"), ((1, 3), "muon"), ((2, 3, 4), "muon"), ((0, 4), "adamw")],
)
def test_a_bare_tensor_is_routed_by_its_shape(shape: tuple[int, ...], algorithm: str) -> None:
    assert route_tensor(torch.zeros(shape)).algorithm == algorithm


def test_muons_group_comes_first_wherever_its_matrices_are() -> None:
    model = TinyLM(tied=False)
    for params in (model, model.named_parameters(), reversed(list(model.parameters()))):
        groups = MuonGrokfast(params).param_groups
        assert [group["algorithm"] for group in groups] == ["muon", "adamw"]


def test_names_are_kept_in_the_groups() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    for params in (model, model.named_parameters()):
        groups = MuonGrokfast(params).param_groups
        assert [group["param_names"] for group in groups] == [["0.weight"], ["0.bias"]]


def test_a_group_can_say_its_algorithm() -> None:
    embedding = nn.Embedding(5, 4)
    groups = MuonGrokfast(
        [{"params": embedding.parameters(), "algorithm": "adamw"}], fallback_lr=0.3
    ).param_groups
    assert [(group["algorithm"], group["lr"]) for group in groups] == [("adamw", 0.3)]
