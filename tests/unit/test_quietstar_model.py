"""The whole of ``QuietSTaRModel``."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from tests.unit.thought_models import (
    HIDDEN_SIZE,
    VOCAB_SIZE,
    TinyLanguageModel,
    random_ids,
    tiny_language_model,
)
from torch import nn

from phase3_quietstar import architecture
from phase3_quietstar.architecture import QuietSTaRModel

CPU = torch.device("cpu")


@pytest.fixture
def base_model() -> TinyLanguageModel:
    return tiny_language_model(CPU)


def build(base_model, **options) -> QuietSTaRModel:
    options = {"num_thoughts": 2, "max_thought_length": 3, "injection_threshold": 0.0} | options
    return QuietSTaRModel(base_model, HIDDEN_SIZE, **options).double()


def let_mix(model: QuietSTaRModel) -> QuietSTaRModel:
    """As after training: the mixing head mixes."""
    torch.manual_seed(0)
    nn.init.normal_(model.mixing_head.weight[-1].weight)
    return model.eval()


def test_logits_at_a_thought_position_come_from_the_mixed_state(base_model):
    model = let_mix(build(base_model, min_thought_length=3, min_interval=9))
    input_ids = random_ids(CPU, 2, 5)
    generated = model.thought_generator(
        input_ids, position=0, generator=torch.Generator().manual_seed(4)
    )
    thoughts = generated.thoughts
    output = model(input_ids, generator=torch.Generator().manual_seed(4))
    assert output["thought_positions"] == [0]
    base = base_model(input_ids)
    state, last = base.last_hidden_state[:, 0], thoughts[:, :, -1]
    scores = model.coherence_scorer(state, thoughts, base_model.lm_head(last))
    mixed = model.mixing_head(state, last, scores.composite)
    torch.testing.assert_close(output["logits"][:, 0], base_model.lm_head(mixed))
    assert not torch.allclose(output["logits"][:, 0], base.logits[:, 0])
    assert torch.equal(output["logits"][:, 1:], base.logits[:, 1:])
    assert output["avg_coherence"] == pytest.approx(scores.composite.mean().item())


def test_labels_do_not_change_the_prediction(base_model):
    model = let_mix(build(base_model))
    input_ids = random_ids(CPU, 2, 5)
    with_labels, without = (
        model(input_ids, labels, generator=torch.Generator().manual_seed(0))
        for labels in (input_ids, None)
    )
    assert torch.equal(with_labels["logits"], without["logits"])
    expected = model._compute_loss(without["logits"], input_ids)
    assert with_labels["loss"].item() == expected.item()


def test_nothing_is_injected_below_the_threshold(base_model):
    model = let_mix(build(base_model, injection_threshold=1.0))
    input_ids = random_ids(CPU, 2, 5)
    output = model(input_ids)
    assert output["thought_positions"] == []
    assert output["avg_coherence"] == 0.0
    assert torch.equal(output["logits"], base_model(input_ids).logits)


def test_loss_reaches_every_part_that_predicts(base_model):
    model = let_mix(build(base_model))
    input_ids = random_ids(CPU, 2, 5)
    model(input_ids, input_ids)["loss"].backward()
    for part in (model.base_model, model.mixing_head, model.coherence_scorer):
        gradients = [parameter.grad for parameter in part.parameters()]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_a_few_steps_lower_the_loss(base_model):
    torch.manual_seed(0)
    model = build(base_model.requires_grad_(False))
    optimizer = torch.optim.Adam(model.mixing_head.parameters(), lr=1e-2)
    input_ids = random_ids(CPU, 4, 6)
    losses = []
    for _ in range(8):
        loss = model(input_ids, input_ids, generator=torch.Generator().manual_seed(0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_state_dict_holds_every_parameter_once_and_restores_the_model(base_model):
    model = let_mix(build(base_model))
    state = model.state_dict()
    assert len(state) == len(list(model.parameters()))
    other = build(tiny_language_model(CPU, seed=7)).eval()
    other.load_state_dict(state)
    input_ids = random_ids(CPU, 2, 5)
    got, expected = (
        m(input_ids, generator=torch.Generator().manual_seed(0))["logits"] for m in (other, model)
    )
    assert torch.equal(got, expected)


def test_a_half_precision_base_model_keeps_its_dtype(base_model):
    model = QuietSTaRModel(base_model.bfloat16(), HIDDEN_SIZE, 2, 3, injection_threshold=0.0)
    output = model(random_ids(CPU, 2, 4))
    assert output["logits"].dtype == torch.bfloat16
    assert output["thought_positions"] == [0, 3]


def test_a_double_that_takes_input_ids_alone_is_a_base_model():
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN_SIZE, 50)

    def forward(input_ids):
        states = torch.randn(*input_ids.shape, HIDDEN_SIZE)
        return Mock(logits=head(states) / 100, last_hidden_state=states)

    double = Mock(spec=nn.Module, side_effect=forward)
    double.lm_head = head
    input_ids = random_ids(CPU, 2, 6)
    output = QuietSTaRModel(double, HIDDEN_SIZE, max_thought_length=2)(input_ids, labels=input_ids)
    assert output["logits"].shape == (2, 6, 50)
    assert output["thought_positions"] == [0, 3]
    assert output["num_thoughts_used"] == 8
    assert output["loss"].isfinite()


def test_a_plain_function_needs_its_output_head_to_be_named(base_model):
    def forward(input_ids):
        return base_model(input_ids)

    input_ids = random_ids(CPU, 2, 4)
    model = build(forward)
    expected = base_model(input_ids).logits
    assert torch.equal(model(input_ids, use_thoughts=False)["logits"], expected)
    with pytest.raises(TypeError, match=r"function has no \.lm_head .* pass lm_head="):
        model(input_ids)
    named = build(forward, lm_head=base_model.lm_head)
    torch.testing.assert_close(named(input_ids)["logits"], expected)


def test_a_wrong_hidden_size_is_refused(base_model):
    model = QuietSTaRModel(base_model, 2 * HIDDEN_SIZE)
    with pytest.raises(ValueError, match="hidden states have size 16, hidden_size is 32"):
        model(random_ids(CPU, 2, 4))


def test_a_minimum_above_the_maximum_length_is_refused(base_model):
    with pytest.raises(ValueError, match=r"min_length \(6\) is greater than max_length \(5\)"):
        build(base_model, max_thought_length=5, min_thought_length=6)


def test_labels_that_do_not_fit_are_refused(base_model):
    model = build(base_model)
    logits = torch.zeros(2, 5, VOCAB_SIZE)
    with pytest.raises(ValueError, match=r"labels must be \(2, 5\) as the logits, got \(2, 4\)"):
        model._compute_loss(logits, random_ids(CPU, 2, 4))
    with pytest.raises(ValueError, match="at least 2 tokens"):
        model._compute_loss(logits[:, :1], random_ids(CPU, 2, 1))


def test_the_package_works_under_its_path_from_the_root_too(base_model):
    other = importlib.import_module("src.phase3_quietstar.architecture")
    assert other.__all__ == architecture.__all__
    for name in other.__all__:
        assert getattr(other, name).__module__.startswith("src.phase3_quietstar.")
    model = other.QuietSTaRModel(
        base_model, HIDDEN_SIZE, num_thoughts=2, max_thought_length=2, injection_threshold=0.0
    ).double()
    # A class that came in twice would not be an instance of its other self.
    assert isinstance(model.thought_generator, other.ThoughtGenerator)
    output = model.thought_generator(random_ids(CPU, 2, 3), 1)
    assert isinstance(output, other.ThoughtOutput)
    assert model(random_ids(CPU, 2, 3))["thought_positions"] == [0]


def test_importing_the_package_imports_no_torch():
    source = Path(architecture.__file__).parents[1]
    program = "import sys, phase3_quietstar; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "False"


def test_an_output_that_is_no_batch_of_sequences_is_refused():
    def flat(input_ids):
        return SimpleNamespace(
            logits=torch.zeros(len(input_ids), 4), last_hidden_state=torch.zeros(1, 1, HIDDEN_SIZE)
        )

    with pytest.raises(
        TypeError, match=r"function returned a SimpleNamespace with logits: \(2, 4\)"
    ):
        build(flat)(random_ids(CPU, 2, 3))
