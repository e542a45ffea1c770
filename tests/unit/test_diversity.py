"""Diversity of populations, by weights and by fitness."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cross_phase.utils import compute_population_diversity, validate_model_diversity
from cross_phase.utils.diversity import weight_distance

scores = st.lists(st.floats(-1e100, 1e100), min_size=2, max_size=12)


def network(seed: int, width: int = 16, device: torch.device | None = None) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4)).to(device)


def test_copies_are_not_diverse_and_independent_models_are(device: torch.device) -> None:
    first = network(0, device=device)
    second = network(1, device=device)

    assert validate_model_diversity([first, copy.deepcopy(first)]) is False
    assert validate_model_diversity([first, second]) is True


def test_one_copy_among_different_models_is_found() -> None:
    models = [network(seed) for seed in range(4)]

    assert validate_model_diversity(models) is True
    assert validate_model_diversity([*models, copy.deepcopy(models[2])]) is False


def test_different_architectures_are_diverse_and_do_not_crash() -> None:
    assert validate_model_diversity([network(0, width=16), network(0, width=32)]) is True
    assert validate_model_diversity([network(0), nn.Linear(8, 4)]) is True


def test_models_of_different_dtypes_are_compared_by_value() -> None:
    model = network(0)

    assert validate_model_diversity([model, copy.deepcopy(model).double()], 1e-6) is False


def test_distance_agrees_with_the_formula_in_float64() -> None:
    a, b = network(0), network(1)
    flat_a, flat_b = (
        torch.cat([p.detach().double().reshape(-1) for p in model.parameters()]) for model in (a, b)
    )
    expected = (flat_a - flat_b).norm() / torch.sqrt(flat_a.norm() ** 2 + flat_b.norm() ** 2)

    measured = weight_distance(dict(a.named_parameters()), dict(b.named_parameters()))

    assert measured == pytest.approx(float(expected), rel=1e-12)


def test_distance_is_0_for_copies_1_for_orthogonal_and_sqrt2_for_opposite_weights() -> None:
    x, y = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])

    assert weight_distance({"w": x}, {"w": x}) == 0
    assert weight_distance({"w": x}, {"w": y}) == pytest.approx(1)
    assert weight_distance({"w": x}, {"w": -x}) == pytest.approx(math.sqrt(2))
    assert weight_distance({"w": 0 * x}, {"w": 0 * x}) == 0


def test_min_diversity_is_the_border() -> None:
    x = nn.Linear(2, 1, bias=False)
    y = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        x.weight.copy_(torch.tensor([[1.0, 0.0]]))
        y.weight.copy_(torch.tensor([[0.0, 1.0]]))

    assert validate_model_diversity([x, y], min_diversity=1.0) is True
    assert validate_model_diversity([x, y], min_diversity=1.0001) is False


def test_fewer_than_two_models_are_diverse() -> None:
    assert validate_model_diversity([]) is True
    assert validate_model_diversity([network(0)]) is True


def test_weights_that_are_not_finite_are_an_error_that_names_them() -> None:
    broken = network(0)
    with torch.no_grad():
        broken[2].bias[0] = math.nan  # type: ignore[index]

    with pytest.raises(ValueError, match=r"models\[1\] .* '2.bias'"):
        validate_model_diversity([network(1), broken])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match=r"models\[1\] is a dict"):
        validate_model_diversity([network(0), {}])  # type: ignore[list-item]
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="min_diversity"):
            validate_model_diversity([], min_diversity=bad)


@settings(max_examples=100, deadline=None)
@given(values=scores)
def test_population_diversity_agrees_with_its_definition(values: list[float]) -> None:
    pairs = list(itertools.combinations([value / 1e100 for value in values], 2))
    total = math.fsum(abs(a) + abs(b) for a, b in pairs)
    expected = math.fsum(abs(a - b) for a, b in pairs) / total if total else 0.0
    if total < 1e-200:
        return

    measured = compute_population_diversity(values)

    assert type(measured) is float
    assert 0 <= measured <= 1
    assert measured == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(values=scores, factor=st.floats(1e-50, 1e50), data=st.data())
def test_population_diversity_ignores_scale_sign_and_order(
    values: list[float], factor: float, data: st.DataObject
) -> None:
    values = [value if abs(value) > 1e-200 else 0.0 for value in values]
    shuffled = data.draw(st.permutations(values))
    expected = compute_population_diversity(values)

    assert compute_population_diversity(shuffled) == expected
    assert compute_population_diversity([factor * v for v in values]) == pytest.approx(
        expected, abs=1e-9
    )
    assert compute_population_diversity([-v for v in values]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e308, 5e-324])
def test_equal_scores_have_no_diversity_exactly(value: float) -> None:
    assert compute_population_diversity([value] * 7) == 0.0


def test_scores_of_mean_zero_have_full_diversity_and_few_have_none() -> None:
    assert compute_population_diversity([-1.0, 1.0]) == 1.0
    assert compute_population_diversity([1e308, -1e308]) == 1.0
    assert compute_population_diversity([]) == 0.0
    assert compute_population_diversity([3.0]) == 0.0
    assert compute_population_diversity([0.0, 0.0]) == 0.0


def test_wider_scores_are_more_diverse(device: torch.device) -> None:
    narrow = torch.tensor([0.50, 0.51, 0.52], device=device)
    wide = torch.tensor([0.1, 0.5, 0.9], device=device)

    assert compute_population_diversity(narrow) < compute_population_diversity(wide)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="fitness score"):
        compute_population_diversity([1.0, bad])
