"""How different the members of a population are, by their weights and by their fitness."""

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def validate_model_diversity(models: Sequence[nn.Module], min_diversity: float = 0.1) -> bool:
    """Tell whether every two models differ, so that no member is (nearly) a copy of another.

    Two models of one architecture (the same names and shapes of their floating-point
    parameters) differ by ``|a - b| / sqrt(|a|**2 + |b|**2)`` over all weights: 0 for copies,
    about 1 for independent weights of mean 0, sqrt(2) for opposite ones; a common factor does
    not change it. Models of different architectures differ by 1.

    Args:
        models: The population, on any devices and of any dtypes. Fewer than two are diverse.
        min_diversity: The least distance between any two of them.

    Returns:
        True where all pairs are at least ``min_diversity`` apart.

    Raises:
        TypeError: A member is not an ``nn.Module``.
        ValueError: ``min_diversity`` is negative or NaN, or the weights of a member hold NaN
            or infinity.
    """
    if not min_diversity >= 0:
        raise ValueError(f"min_diversity must be 0 or more, got {min_diversity}")
    for index, model in enumerate(models):
        if not isinstance(model, nn.Module):
            raise TypeError(f"models[{index}] is a {type(model).__name__}, not a torch.nn.Module")
    if len(models) < 2:
        return True
    population = [_floating_weights(model) for model in models]
    for index, weights in enumerate(population):
        for name, weight in weights.items():
            if not bool(torch.isfinite(weight).all()):
                raise ValueError(f"models[{index}] has NaN or infinity in {name!r}")
    return all(
        weight_distance(a, b) >= min_diversity for a, b in itertools.combinations(population, 2)
    )


def weight_distance(a: Weights, b: Weights) -> float:
    """Distance in [0, sqrt(2)] of two sets of named weights; see validate_model_diversity."""
    if {name: w.shape for name, w in a.items()} != {name: w.shape for name, w in b.items()}:
        return 1.0
    difference = 0.0
    total = 0.0
    for name, weight_a in a.items():
        wide_a = weight_a.detach().double()
        wide_b = b[name].detach().to(weight_a.device).double()
        difference += float((wide_a - wide_b).square().sum())
        total += float(wide_a.square().sum() + wide_b.square().sum())
    return math.sqrt(difference / total) if total > 0 else 0.0


def compute_population_diversity(fitness_scores: Iterable[float]) -> float:
    """Measure how far the fitness scores of a population lie apart.

    The mean absolute difference of two members over the mean sum of their magnitudes,
    ``sum |a - b| / sum (|a| + |b|)`` over all pairs (the Gini coefficient, where the scores
    are positive, times n / (n - 1)). A common factor does not change it, and it is defined
    for scores of mean 0.

    Args:
        fitness_scores: One number for each member; a 1-D tensor or array will do.

    Returns:
        A number in [0, 1]: 0 where all scores are equal or there are fewer than two.

    Raises:
        ValueError: A score is NaN or infinite.
    """
    scores = sorted(float(score) for score in fitness_scores)
    for score in scores:
        if not math.isfinite(score):
            raise ValueError(f"a fitness score is {score}: drop members that have no valid score")
    count = len(scores)
    largest = max((abs(score) for score in scores), default=0.0)
    if count < 2 or largest == 0:
        return 0.0
    # In units of the largest magnitude nothing can overflow; from the smallest score on, equal
    # scores give 0 exactly.
    scaled = [score / largest for score in scores]
    differences = math.fsum(
        (2 * rank - count + 1) * (score - scaled[0]) for rank, score in enumerate(scaled)
    )
    magnitudes = (count - 1) * math.fsum(abs(score) for score in scaled)
    return min(1.0, max(0.0, differences / magnitudes))


def _floating_weights(model: nn.Module) -> Weights:
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.dtype.is_floating_point
    }
