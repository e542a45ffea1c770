"""``gate.yaml`` → ``Spec``: what is accepted, and each mistake at its line and column."""

# ruff: noqa: E501 - a table of cases is read row by row

import hashlib
from pathlib import Path

import pytest
from builders import ROOT, TWO_LEGS, TWO_TIERS, gate, parse, problems

from tiergate import spec
from tiergate.errors import ExitCode, UserError
from tiergate.expectation import Bound

COMMAND = "  - {id: A, uses: command, with: {run: [a]}}\n"


# What is accepted.


def test_a_spec_becomes_tiers_of_criteria_with_their_defaults():
    made = parse(TWO_LEGS)
    (tier,) = made.tiers
    assert (tier.gate, tier.next, tier.remedy.task) == ("TIER 0", "TIER 1", "9")
    a, b, c = made.criteria
    assert (a.id, a.name, a.uses, a.devices) == ("A", "A", "pytest", ("cpu", "cuda"))
    assert (a.expect, a.timeout, a.mark.line) == ({"passed": Bound(3)}, 600.0, 6)
    assert (b.expect, b.needs, b.devices) == ({"findings": Bound(0)}, ("A",), ("cpu",))
    assert (c.expect, c.remedy.task) == ({"exit-code": Bound(0)}, "")
    assert made.digest == hashlib.sha256(TWO_LEGS).hexdigest()


def test_tiers_come_in_the_order_of_the_file():
    assert [(t.gate, t.next, len(t.criteria)) for t in parse(TWO_TIERS).tiers] == [
        ("TIER 0", "TIER 1", 1),
        ("TIER 1", "", 1),
    ]


def test_options_of_the_whole_file_reach_the_spec():
    head = (
        "gate: T\npythonpath: [src, .]\nenv: {A_B: '1'}\npass-env: [HF_HOME]\ntimeout: 5\n"
        "devices: [cpu]\n"
    )
    made = parse(gate(COMMAND + "  - {id: B, uses: command, with: {run: [b]}, timeout: 7}\n", head))
    assert (made.pythonpath, made.env, made.pass_env) == (("src", "."), {"A_B": "1"}, ("HF_HOME",))
    assert [c.timeout for c in made.criteria] == [5.0, 7.0]


def test_the_gate_of_this_repository_holds_the_six_criteria():
    made = spec.load(ROOT / "gate.yaml")
    expected = {c.id: {k: str(v) for k, v in c.expect.items()} for c in made.criteria}
    assert list(expected) == ["ISS-001", "ISS-002", "ISS-003", "ISS-004", "ISS-005", "collection"]
    assert expected["ISS-001"] == {"missing": "0"}
    assert expected["ISS-002"] == {"collected": "9"}
    assert expected["ISS-003"] == {"passed": "11"}
    assert expected["ISS-004"] == {"findings": "0"}
    assert expected["ISS-005"] == {"passed": "39"}
    assert expected["collection"]["errors"] == "0"
    assert made.criterion("collection").needs == ("ISS-001", "ISS-003", "ISS-005")
    assert made.criterion("ISS-003").devices == made.criterion("ISS-005").devices == ("cpu", "cuda")


def test_a_spec_with_windows_line_ends_means_the_same_but_has_another_digest():
    other = parse(TWO_LEGS.replace(b"\n", b"\r\n"))
    assert other.tiers == parse(TWO_LEGS).tiers
    assert other.digest != parse(TWO_LEGS).digest


def test_a_criterion_is_found_by_its_id_and_a_slip_gets_a_suggestion():
    made = parse(TWO_LEGS)
    assert made.criterion("B").uses == "semgrep"
    with pytest.raises(UserError, match=r"^gate.yaml: no criterion 'Bb' \(did you mean 'B'\?\)$"):
        made.criterion("Bb")


# Each mistake.

PASSES = "id: A, uses: pytest, with: {paths: [t]}, expect: {passed: 1}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{«idd: A, uses: x}", "unknown key 'idd' (did you mean 'id'?)"),
        ("«{idd: A, uses: x}", "criteria[0]: missing id"),
        ("«{id: A}", "criteria[0]: missing uses"),
        ("{id: A, «id: B, uses: command, with: {run: [a]}}", "duplicate key 'id', first at line 3"),
        ("{id: «7, uses: command, with: {run: [a]}}", "criteria[0].id: expected text, found the number 7 (quote it to make it text)"),
        ("{id: «'a b', uses: x}", "criteria[0].id: 'a b' does not match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"),
        ('{id: «"a\\n", uses: x}', "criteria[0].id: 'a\\n' does not match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"),
        ("{id: «aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, uses: x}", "criteria[0].id: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' does not match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"),
        ("{id: A, uses: «pytes}", "unknown checker 'pytes' (did you mean 'pytest'?)"),
        ("«{id: A, uses: pytest, expect: {passed: 1}}", "criteria[0].with: missing paths"),
        ("{id: A, uses: pytest, with: {«path: [t]}, expect: {passed: 1}}", "unknown key 'path' (did you mean 'paths'?)"),
        ("{id: A, uses: pytest, with: {paths: «[]}, expect: {passed: 1}}", "criteria[0].with.paths: must not be empty"),
        ("{id: A, uses: pytest, with: {paths: [a], «paths: [b]}, expect: {passed: 1}}", "duplicate key 'paths', first at line 3"),
        ("{id: A, uses: command, with: «[a]}", "criteria[0].with: expected a mapping, found a list"),
        ("{id: A, uses: semgrep, with: {rules: [«unsafe-torch-lod], paths: [src]}}", "unknown rule 'unsafe-torch-lod' (did you mean 'unsafe-torch-load'?)"),
        ("{id: A, uses: imports, with: {module: «'a-b'}}", "criteria[0].with.module: 'a-b' does not match ^[^\\W\\d]\\w*(\\.[^\\W\\d]\\w*)*$"),
        ("{id: A, uses: imports, with: {module: a, names: [b, «b]}}", "'b' is listed twice"),
        ("{id: A, uses: pytest, with: {paths: [«../t]}, expect: {passed: 1}}", "criteria[0].with.paths[0]: '../t' is outside the repository"),
        ("{id: A, uses: pytest, with: {paths: [a, «b/../../t]}, expect: {passed: 1}}", "criteria[0].with.paths[1]: 'b/../../t' is outside the repository"),
        ("{id: A, uses: pytest, with: {paths: [«/t]}, expect: {passed: 1}}", "criteria[0].with.paths[0]: '/t' is absolute; write it relative to the repository's root"),
        ("{id: A, uses: pytest, with: {paths: [«'C:/t']}, expect: {passed: 1}}", "criteria[0].with.paths[0]: 'C:/t' is not a relative path with '/'"),
        ("{id: A, uses: pytest, with: {paths: [«'a\\t']}, expect: {passed: 1}}", "criteria[0].with.paths[0]: 'a\\\\t' is not a relative path with '/'"),
        ("{id: A, uses: pytest, with: {paths: [«-x]}, expect: {passed: 1}}", "criteria[0].with.paths[0]: '-x' looks like an option; write './-x'"),
        ("{id: A, uses: command, with: {run: [a]}, remedy: {files: [«../x]}}", "criteria[0].remedy.files[0]: '../x' is outside the repository"),
        ("«{id: A, uses: pytest, with: {paths: [t]}}", "expect: must say how many passed; without it the criterion could not fail"),
        ("{id: A, uses: pytest, with: {paths: [t]}, expect: {«pased: 1, passed: 1}}", "unknown outcome 'pased' (did you mean 'passed'?)"),
        ("{id: A, uses: pytest, with: {paths: [t], collect-only: true}, expect: «{errors: 0}}", "expect: must say how many collected; without it the criterion could not fail"),
        ("{id: A, uses: pytest, with: {paths: [t]}, expect: {passed: «-1}}", "a count cannot be negative: -1"),
        ("{id: A, uses: pytest, with: {paths: [t]}, expect: «{passed: '>=0'}}", 'passed: ">=0" always holds; expect at least one'),
        ("{id: A, uses: pytest, with: {paths: [t]}, expect: «{passed: 0}}", "holds where there is nothing; expect some passed"),
        ("{id: A, uses: command, with: {run: [a]}, expect: «{exit-code: '>=0'}}", "always holds, whatever is observed"),
        ("{id: A, uses: command, with: {run: [a]}, expect: {exit-code: «1.5}}", "criteria[0].expect.exit-code: expected a whole number or text, found the number 1.5 (quote it to make it text)"),
        (f"{{{PASSES}, devices: [«gpu]}}", "criteria[0].devices[0]: unknown value 'gpu' (did you mean 'cpu'?)"),
        (f"{{{PASSES}, devices: «[]}}", "criteria[0].devices: must not be empty"),
        (f"{{{PASSES}, devices: [«cuda]}}", "'cuda' is not one of the spec's devices"),
        (f"{{{PASSES}, devices: [cpu, «cpu]}}", "'cpu' is listed twice"),
        (f"{{{PASSES}, timeout: «0}}", "criteria[0].timeout: must be more than 0, not 0.0"),
        (f"{{{PASSES}, timeout: «86401}}", "criteria[0].timeout: must be at most 86400, not 86401.0"),
        (f"{{{PASSES}, needs: [«B]}}", "needs 'B', which is no criterion (valid: A)"),
        (f"{{{PASSES}, needs: «[A]}}", "needs form a cycle: A → A"),
        (f"{{{PASSES}, remedy: {{«taks: '1'}}}}", "unknown key 'taks' (did you mean 'task'?)"),
        (f"{{{PASSES}, remedy: {{task: «0.20}}}}", "criteria[0].remedy.task: expected text, found the number 0.20 (quote it to make it text)"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_criterion_is_told_with_its_place(line, message):
    """The mark « stands where the message must point."""
    text = f"gate: T\ncriteria:\n  - {line}\n"
    column = text.splitlines()[2].index("«") + 1
    assert f"3:{column}: {message}" in problems(text.replace("«", ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gate: T\n", "1:1: no criteria: an empty gate would always pass"),
        ("gate: T\ncriteria: []\n", "2:11: no criteria: an empty gate would always pass"),
        ("criteria:\n" + COMMAND, "1:1: missing 'gate': the name of the tier"),
        (gate(COMMAND, "gate: T\ncriterias: 1\n"), "2:1: unknown key 'criterias' (did you mean 'criteria'?)"),
        (gate(COMMAND, "gate: T\ngate: U\n"), "2:1: duplicate key 'gate', first at line 1"),
        (gate(COMMAND, "gate: T\ndevices: [cpu, cuda]\n"), "2:16: no criterion is judged on 'cuda'"),
        (gate(COMMAND, "gate: T\ndevices: [cpu, cpu]\n"), "2:16: 'cpu' is listed twice"),
        (gate(COMMAND, "gate: T\ndevices: []\n"), "2:10: devices: must not be empty"),
        (gate(COMMAND, "gate: T\npythonpath: [..]\n"), "2:14: pythonpath[0]: '..' is outside the repository"),
        (gate(COMMAND, "gate: T\nenv: {A B: x}\n"), "2:7: env: 'A B' does not match ^[A-Za-z_][A-Za-z0-9_]{0,127}$"),
        (gate(COMMAND, "gate: T\nenv: {A: 1}\n"), "2:10: env.A: expected text, found the number 1 (quote it to make it text)"),
        (gate(COMMAND, 'gate: T\nenv: {A: "\\0"}\n'), "2:10: text with a NUL character"),
        (gate(COMMAND, "gate: T\npass-env: [A-B]\n"), "2:12: pass-env[0]: 'A-B' does not match ^[A-Za-z_][A-Za-z0-9_]{0,127}$"),
        (gate(COMMAND + COMMAND), "4:10: duplicate id 'A', first at line 3"),
        (gate(COMMAND + "  - 7\n"), "4:5: criteria[1]: expected a mapping, found the number 7 (quote it to make it text)"),
        ("tiers: []\n", "1:8: no tiers: an empty gate would always pass"),
        ("gate: T\ntiers: [{gate: U, criteria: [{id: A, uses: command, with: {run: [a]}}]}]\n", "1:7: 'gate' goes inside a tier when 'tiers' is used"),
        ("tiers: [{criteria: [{id: A, uses: command, with: {run: [a]}}]}]\n", "1:9: tiers[0]: missing gate"),
        ("tiers: [{gate: T, criteria: []}]\n", "1:29: tiers[0].criteria: must not be empty"),
        ("[]", "1:1: the file: expected a mapping, found a list"),
        ("gate: T\n---\ngate: U\n", "2:1: a second YAML document starts here; one is allowed"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_whole_is_told_with_its_place(text, message):
    assert problems(text) == [message]


def test_a_need_of_a_later_tier_is_refused():
    text = TWO_TIERS.replace(b"with: {run: [a]}", b"with: {run: [a]}, needs: [B]")
    assert problems(text) == ["6:58: needs 'B' of a later tier, which would never be judged"]


def test_a_need_that_is_listed_twice_is_refused():
    text = gate(COMMAND + "  - {id: B, uses: command, with: {run: [b]}, needs: [A, A]}\n")
    assert problems(text) == ["4:57: 'A' is listed twice"]


def test_an_id_may_not_come_back_in_another_tier():
    text = TWO_TIERS.replace(b"{id: B", b"{id: A")
    assert problems(text) == ["9:14: duplicate id 'A', first at line 6"]


def test_every_cycle_is_told():
    lines = [
        "  - {{id: {}, uses: command, with: {{run: [x]}}, needs: [{}]}}\n".format(*pair)
        for pair in (("A", "B"), ("B", "A"), ("C", "D"), ("D", "C"), ("E", "A"))
    ]
    found = problems(gate("".join(lines)))
    assert len(found) == 2
    assert {frozenset(problem.split(": ")[2].split(" → ")) for problem in found} == {
        frozenset("AB"),
        frozenset("CD"),
    }


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    text = """\
gat: T
devices: [cpu, gpu]
criteria:
  - id: A
    uses: pytest
    with: {paths: [../a], colect-only: true}
    expect: {passed: 1}
  - id: B
    name: 7
    uses: semgrep
    with: {rules: [unsafe-torch-lode], paths: [src]}
    needs: [A, D]
  - uses: command
  - id: A
    uses: comand
    needs: [F]
"""
    assert problems(text) == [
        "1:1: missing 'gate': the name of the tier",
        "1:1: unknown key 'gat' (did you mean 'gate'?)",
        "2:16: devices[1]: unknown value 'gpu' (did you mean 'cpu'?)",
        "6:20: criteria[0].with.paths[0]: '../a' is outside the repository",
        "6:27: unknown key 'colect-only' (did you mean 'collect-only'?)",
        "9:11: criteria[1].name: expected text, found the number 7 (quote it to make it text)",
        "11:20: unknown rule 'unsafe-torch-lode' (did you mean 'unsafe-torch-load'?)",
        "12:16: needs 'D', which is no criterion (valid: A, B)",
        "13:5: criteria[2]: missing id",
        "14:9: duplicate id 'A', first at line 4",
        "15:11: unknown checker 'comand' (did you mean 'command'?)",
        "16:13: needs 'F', which is no criterion (valid: A, B)",
    ]


def test_a_criterion_with_a_mistake_still_counts_as_there():
    text = gate(COMMAND.replace("uses: command, ", "") + COMMAND.replace("A", "B, needs: [A]", 1))
    assert problems(text) == ["3:5: criteria[0]: missing uses"]


def test_a_mistake_in_the_devices_is_told_once():
    text = gate(COMMAND.replace("}}", "}, devices: [cuda]}"), "gate: T\ndevices: [cpu, cudda]\n")
    assert problems(text) == ["2:16: devices[1]: unknown value 'cudda' (did you mean 'cuda'?)"]


@pytest.mark.parametrize("line", ["criteria: 7\n", "criteria:\n"])
def test_criteria_that_are_no_list_are_told_once(line):
    assert len(problems("gate: T\n" + line)) == 1


def test_the_message_has_a_line_per_problem_that_begins_with_the_place():
    with pytest.raises(spec.SpecError) as caught:
        spec.parse(b"gat: T\n", Path("some/gate.yaml"))
    assert str(caught.value).splitlines() == [
        "some/gate.yaml:1:1: missing 'gate': the name of the tier",
        "some/gate.yaml:1:1: no criteria: an empty gate would always pass",
        "some/gate.yaml:1:1: unknown key 'gat' (did you mean 'gate'?)",
    ]
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_message_cannot_steer_the_terminal():
    with pytest.raises(spec.SpecError) as caught:
        parse('"\\e[31mkey\\n": 1\n')
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == len(caught.value.problems)


def test_more_than_a_hundred_problems_are_cut_and_the_message_says_so():
    found = problems(gate("  - {id: 7}\n" * 200))
    assert len(found) == 101
    assert found[-1].endswith("too many problems: reading stopped after 100")


def test_a_spec_that_is_not_there_names_the_option(tmp_path):
    with pytest.raises(UserError, match=r"gate\.yaml: cannot read the spec: No such file.*--spec"):
        spec.load(tmp_path / "gate.yaml")


def test_a_spec_is_read_from_its_file(tmp_path):
    (tmp_path / "gate.yaml").write_bytes(TWO_LEGS)
    made = spec.load(tmp_path / "gate.yaml")
    assert made.path == tmp_path / "gate.yaml"
    assert made.criteria == parse(TWO_LEGS).criteria
