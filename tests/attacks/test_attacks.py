"""Every attack is red and says why; every harmless neighbour is green."""

from __future__ import annotations

import json
from pathlib import Path

import attack_beyond
import attack_catalogue
import attack_platform
import attack_shards
import attack_suite
import attack_table
import pytest
from attack_case import Attack, Beyond, Control
from attack_gate import Interpreter, run_against_base, verdict_on, words
from attack_platform import BaseAttack, ReportAttack, SpecAttack
from attack_shards import ShardAttack, SuiteAttack

from tiergate.errors import ExitCode

ROOT = attack_table.ROOT


@pytest.mark.parametrize("attack", attack_suite.ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_red_and_the_verdict_says_why(
    attack: Attack, tmp_path: Path, running: Interpreter
) -> None:
    verdict = verdict_on(tmp_path, attack.changes, attack.criterion, running, attack.environment)

    said = words(verdict)
    assert verdict.status in {"fail", "error"}, said
    assert attack.shows in said, said


@pytest.mark.parametrize(
    ("criterion", "control"),
    attack_suite.controls(),
    ids=lambda value: value.name.replace(" ", "-") if isinstance(value, Control) else value,
)
def test_a_harmless_neighbour_is_green(
    criterion: str, control: Control, tmp_path: Path, running: Interpreter
) -> None:
    verdict = verdict_on(tmp_path, control.changes, criterion, running, control.environment)

    assert verdict.status == "pass", words(verdict)


@pytest.mark.parametrize("attack", attack_platform.REPORTS, ids=lambda attack: attack.name)
def test_reports_that_do_not_add_up_do_not_pass(attack: ReportAttack) -> None:
    decided = attack_platform.decision(attack.reports)

    assert decided.exit_code != ExitCode.PASSED
    assert attack.shows in "\n".join(decided.problems)


def test_two_good_reports_pass() -> None:
    assert attack_platform.decision(attack_platform.both).exit_code == ExitCode.PASSED
    assert attack_platform.decision(attack_platform.counted).exit_code == ExitCode.PASSED


@pytest.mark.parametrize("attack", attack_shards.REPORTS, ids=lambda attack: attack.name)
def test_shards_that_do_not_add_up_do_not_pass(attack: ShardAttack) -> None:
    decided = attack_shards.decision(attack.reports)

    assert decided.exit_code != ExitCode.PASSED
    assert attack.shows in "\n".join(decided.problems), decided.problems


def test_two_good_shards_pass() -> None:
    assert attack_shards.decision(lambda reports, _: reports).exit_code == ExitCode.PASSED


@pytest.mark.parametrize("attack", attack_shards.SUITES, ids=lambda attack: attack.name)
def test_a_suite_that_shards_collect_differently_is_red_and_its_neighbour_is_green(
    attack: SuiteAttack, tmp_path: Path, running: Interpreter
) -> None:
    verdict = attack_shards.verdict_in_shards(tmp_path / "attack", attack.changes, running)
    control = attack_shards.verdict_in_shards(tmp_path / "control", attack.control, running)

    assert verdict is not None
    assert verdict.status in {"fail", "error"}, words(verdict)
    assert attack.shows in words(verdict)
    assert control is not None
    assert control.status == "pass", words(control)


@pytest.mark.parametrize("attack", attack_platform.SPECS, ids=lambda attack: attack.name)
def test_a_spec_that_would_always_pass_is_refused_and_its_neighbour_is_not(
    attack: SpecAttack,
) -> None:
    assert attack.shows in attack_platform.refusal(attack.gate)
    assert attack_platform.refusal(attack.control) == ""


@pytest.mark.parametrize("attack", attack_platform.BASES, ids=lambda attack: attack.name)
def test_what_only_the_base_shows_is_red_and_its_neighbour_is_green(
    attack: BaseAttack, tmp_path: Path, running: Interpreter
) -> None:
    code, said = run_against_base(tmp_path / "attack", attack.base, attack.head, running)
    control, said_of_control = run_against_base(
        tmp_path / "control", attack.base, attack.control, running
    )

    assert code == ExitCode.FAILED, said
    assert attack.shows in said
    assert control == ExitCode.PASSED, said_of_control


@pytest.mark.parametrize("case", attack_beyond.CASES, ids=lambda case: case.name)
def test_what_is_documented_as_beyond_the_gate_is_green(
    case: Beyond, tmp_path: Path, running: Interpreter
) -> None:
    """One of these that turns red is good news, and belongs among the attacks."""
    verdict = verdict_on(tmp_path, case.changes, case.criterion, running, {})

    assert verdict.status == "pass", words(verdict)


def test_every_way_that_is_known_elsewhere_has_its_cases() -> None:
    suites = (
        attack_suite.ATTACKS,
        attack_platform.REPORTS,
        attack_platform.SPECS,
        attack_platform.BASES,
        attack_beyond.CASES,
    )
    names = {case.name for cases in suites for case in cases}
    names |= {case.name for case in [*attack_shards.REPORTS, *attack_shards.SUITES]}
    ways = dict(attack_catalogue.WAYS)
    assert len(ways) == len(attack_catalogue.WAYS)
    for way, cases in ways.items():
        assert cases, way
        for case in cases:
            file, _, test = case.partition("::")
            known = case in names or (test and f"def {test}(" in (ROOT / file).read_text())
            assert known, f"{way}: no case {case}"


def test_the_page_of_attacks_is_up_to_date() -> None:
    written = attack_table.PAGE.read_text(encoding="utf-8")

    assert written == attack_table.page(), "run python tests/attacks/attack_table.py"


def test_every_attack_was_measured_in_the_ordinary_pipelines() -> None:
    measured = json.loads(attack_table.RESULTS.read_text(encoding="utf-8"))["attacks"]

    assert list(measured) == [attack.name for attack in attack_suite.ATTACKS]
    assert len(measured) == len(set(measured))
