"""The metrics that each phase logs, declared as data: one table of names.

A name is ``metric`` or ``group/metric``, unique within its phase. Most come from families, one
metric for each member of a group (a model, a generation, a level, a stage).
"""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType


def _family(groups: Iterable[str], metrics: str) -> tuple[str, ...]:
    return tuple(f"{group}/{metric}" for group in groups for metric in metrics.split())


def _numbered(name: str, count: int) -> tuple[str, ...]:
    width = len(str(count))
    return tuple(f"{name}_{number:0{width}}" for number in range(1, count + 1))


def _names(metrics: str) -> tuple[str, ...]:
    return tuple(metrics.split())


TRAINING = "train_loss val_loss perplexity accuracy learning_rate grad_norm tokens_per_second"
BENCHMARKS = ("arc", "gsm8k", "hellaswag", "humaneval", "mmlu", "truthfulqa", "winogrande")

TITAN_MODELS = ("reasoning", "memory", "adaptive")
MERGE_TECHNIQUES = ("linear", "slerp", "ties", "dare", "frankenmerge", "dfs")
BAKING_CYCLES = ("tools", "persona")
COMPRESSION_STAGES = ("seedlm", "vptq", "hypercompression")

# Phase 1, Cognate: three TinyTitans models are trained from scratch.
COGNATE = (
    *_family(TITAN_MODELS, f"{TRAINING} muon_update_norm qk_clip_count gpu_memory_gb params"),
    *_names("population_diversity best_accuracy total_tokens wall_time_hours"),
)

# Phase 2, EvoMerge: 50 generations of eight merged models.
EVOMERGE = (
    *_family(_numbered("member", 8), "initial_fitness"),
    *_family(
        _numbered("generation", 50),
        "best_fitness mean_fitness worst_fitness fitness_std diversity mutation_rate seconds",
    ),
    *_family(MERGE_TECHNIQUES, "wins"),
    *_names("best_fitness improvement diversity generations champion_perplexity wall_time_hours"),
)

# Phase 3, Quiet-STaR: thoughts between the tokens.
QUIET_STAR = (
    *_names(TRAINING),
    *_family(("coherence",), "semantic syntactic predictive composite"),
    *_names("thoughts_per_sequence thought_length injection_rate mixing_weight"),
    *_names("reward policy_loss"),
)

# Phase 4, BitNet: ternary weights.
BITNET = (
    *_names(TRAINING),
    *_family(("ternary",), "negative_share zero_share positive_share"),
    *_family(("before", "after"), "size_mb perplexity accuracy"),
    *_names("compression_ratio quantization_error accuracy_drop"),
)

# Phase 5, curriculum training: ten levels of difficulty.
CURRICULUM = (
    *_family(
        _numbered("level", 10),
        "train_loss val_loss accuracy questions_seen questions_correct mean_attempts hint_rate",
    ),
    *_names("level success_rate temperature consolidation_loss self_modeling_accuracy"),
    *_names("learning_rate grad_norm tokens_per_second"),
)

# Phase 6, baking: prompts for tools and persona become weights, in alternating cycles.
BAKING = (
    *_family(
        BAKING_CYCLES,
        f"{TRAINING} kl_divergence baking_strength prompts iterations wall_time_hours",
    ),
    *_names("tool_success_rate persona_consistency prompt_retention perplexity accuracy"),
    *_names("total_iterations cycle_switches plateaus"),
)

# Phase 7, experts: five experts behind a router, and a search for how to combine them.
EXPERTS = (
    *_family(_numbered("expert", 5), "train_loss accuracy utilization singular_value_shift"),
    *_family(("router",), "loss entropy load_balance"),
    *_family(("search",), "generation hypervolume"),
    *_names("accuracy perplexity latency_ms"),
)

# Phase 8, compression: three stages, each judged on all benchmarks.
COMPRESSION = (
    *_family(
        COMPRESSION_STAGES,
        "size_before_mb size_after_mb compression_ratio bits_per_weight reconstruction_error "
        "perplexity accuracy_retention compress_seconds decompress_seconds peak_memory_gb "
        "latency_ms",
    ),
    *_family(COMPRESSION_STAGES, " ".join(f"{name}_score" for name in BENCHMARKS)),
    *_family(COMPRESSION_STAGES, " ".join(f"{name}_retention" for name in BENCHMARKS)),
    *_family(BENCHMARKS, "baseline_score final_score"),
    *_names("size_mb compression_ratio bits_per_weight perplexity accuracy_retention latency_ms"),
)

PHASE_METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "phase1": COGNATE,
        "phase2": EVOMERGE,
        "phase3": QUIET_STAR,
        "phase4": BITNET,
        "phase5": CURRICULUM,
        "phase6": BAKING,
        "phase7": EXPERTS,
        "phase8": COMPRESSION,
    }
)
"""The names of each phase's metrics."""

METRICS_COUNT: dict[str, int] = {phase: len(names) for phase, names in PHASE_METRICS.items()}
"""How many metrics each phase logs."""


def phase_key(phase: str | int) -> str:
    """Turn ``1`` or ``"phase1"`` into ``"phase1"``.

    Raises:
        ValueError: There is no such phase.
    """
    key = f"phase{phase}" if isinstance(phase, int) else phase
    if key not in PHASE_METRICS:
        raise ValueError(f"no phase {phase!r}: use 1 to 8, or 'phase1' to 'phase8'")
    return key


def check_metric_names(phase: str, names: Iterable[str]) -> None:
    """Check that a phase declares these metrics.

    Args:
        phase: ``"phase1"`` to ``"phase8"``.
        names: Metric names.

    Raises:
        ValueError: One is not declared; says the nearest name that is.
    """
    declared = PHASE_METRICS[phase]
    known = set(declared)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{phase} declares no metric {name!r}{hint}")
