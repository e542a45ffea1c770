"""The table of metric names from which METRICS_COUNT follows."""

import re

import pytest

from cross_phase.monitoring.phase_metrics import (
    METRICS_COUNT,
    PHASE_METRICS,
    check_metric_names,
    phase_key,
)

PHASES = [f"phase{number}" for number in range(1, 9)]


def test_the_table_declares_the_eight_phases_in_order() -> None:
    assert list(PHASE_METRICS) == PHASES


@pytest.mark.parametrize("phase", PHASES)
def test_the_counts_follow_from_the_table_without_duplicates(phase: str) -> None:
    names = PHASE_METRICS[phase]

    assert METRICS_COUNT[phase] == len(names) == len(set(names))


@pytest.mark.parametrize("phase", PHASES)
def test_names_are_metric_or_group_and_metric(phase: str) -> None:
    pattern = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?")

    assert [name for name in PHASE_METRICS[phase] if not pattern.fullmatch(name)] == []


def test_evomerge_declares_every_one_of_its_50_generations() -> None:
    generations = {name.partition("/")[0] for name in PHASE_METRICS["phase2"]}

    assert {f"generation_{number:02}" for number in range(1, 51)} <= generations


def test_a_misspelt_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'coherence/semantic'"):
        check_metric_names("phase3", ["coherence/semantc"])
    check_metric_names("phase3", PHASE_METRICS["phase3"])


def test_a_phase_is_named_by_number_or_by_key() -> None:
    assert phase_key(3) == phase_key("phase3") == "phase3"
    for unknown in (0, 9, "phase9", "3", ""):
        with pytest.raises(ValueError, match="1 to 8"):
            phase_key(unknown)
