"""The rule pack: every rule says what it is about, finds its own examples and spares the rest."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from samples import Sample

from tiergate.scanning import engines, rules
from tiergate.spec import SpecError

RULES = sorted(rules.known_rules())


def definition(rule: str) -> dict:
    (found,) = yaml.safe_load((rules.RULES / f"{rule}.yaml").read_text())["rules"]
    return found


def weaknesses(rule: str) -> list[str]:
    stated = definition(rule)["metadata"]["cwe"]
    return [stated] if isinstance(stated, str) else stated


def annotated(rule: str, word: str) -> set[int]:
    lines = (rules.RULES / f"{rule}.py").read_text().splitlines()
    mark = re.compile(rf"#\s*{word}:\s*{rule}\s*$")
    return {number + 1 for number, line in enumerate(lines, start=1) if mark.search(line)}


@pytest.fixture(scope="module")
def matches() -> dict[str, set[int]]:
    """Lines that each rule matches in its own examples, by the engine that the checker drives."""
    configs = [part for rule in RULES for part in ("--config", f"{rules.RULES / rule}.yaml")]
    flags = ["--json", "--metrics=off", "--disable-version-check", "--disable-nosem", "--strict"]
    flags += ["--no-git-ignore", "--x-ignore-semgrepignore-files", "-j", "1"]
    examples = [str(rules.RULES / f"{rule}.py") for rule in RULES]
    done = subprocess.run(
        ["osemgrep", "scan", "--experimental", *configs, *flags, "--", *examples],
        executable=engines.fast(),
        capture_output=True,
        check=False,
    )
    results = json.loads(done.stdout)
    assert results["errors"] == []
    found: dict[str, set[int]] = {rule: set() for rule in RULES}
    for match in results["results"]:
        rule = match["check_id"].rsplit(".", 1)[-1]
        if Path(match["path"]).stem == rule:
            found[rule].add(match["start"]["line"])
    return found


@pytest.mark.parametrize("rule", RULES)
def test_rule_finds_its_examples_and_spares_the_others(rule: str, matches: dict[str, set[int]]):
    wanted, spared = annotated(rule, "ruleid"), annotated(rule, "ok")
    assert wanted
    assert spared
    assert matches[rule] == wanted
    assert not matches[rule] & spared


@pytest.mark.parametrize("rule", RULES)
def test_rule_says_what_is_wrong_what_to_do_and_which_weakness_it_is(rule: str):
    found = definition(rule)
    assert found["id"] == rule
    assert found["languages"] == ["python"]
    assert found["severity"] in {"ERROR", "WARNING"}
    assert len(found["message"].split()) >= 15
    assert re.search(r"\b(?:Write|Keep|Leave|Pin|Name)\b", found["message"])
    assert weaknesses(rule)
    assert all(re.fullmatch(r"CWE-[0-9]+: .+", weakness) for weakness in weaknesses(rule))
    assert all(url.startswith("https://") for url in found["metadata"]["references"])


def test_what_deserializes_is_cwe_502():
    deserializing = {"unsafe-torch-load", "torch-load-patched"} | {
        rule for rule in RULES if rule.startswith("unsafe-deserialization-")
    }
    for rule in deserializing:
        assert any(weakness.startswith("CWE-502:") for weakness in weaknesses(rule)), rule
    assert set(RULES) - deserializing == {"item-on-batch"}


@pytest.mark.parametrize("rule", RULES)
def test_no_file_that_a_rule_matches_lacks_what_it_mentions(rule: str):
    may_match = rules.prefilter(rule)
    lines = (rules.RULES / f"{rule}.py").read_bytes().split(b"\n")
    imports = b"\n".join(line for line in lines if re.match(rb"(?:import|from)\b", line))
    for number in annotated(rule, "ruleid"):
        # A statement may go on below; the imports are the file's.
        text = imports + b"\n" + b"\n".join(lines[number - 1 : number + 4])
        assert may_match(text), lines[number - 1]
    assert not may_match(b"import numeric\n\nnumeric.add(1, 2)\n")


def test_group_stands_for_all_of_its_rules_and_each_can_be_chosen_alone(sample: Sample):
    sample.write("src/a.py", "import pickle, joblib\n\npickle.loads(x)\njoblib.load(x)\n")

    def found(*rules: str) -> list[tuple[str, int]]:
        with_ = {"rules": list(rules), "paths": ["src"]}
        verdict = sample.verdict({"id": "d", "uses": "semgrep", "with": with_})
        assert verdict.status == "fail", verdict.summary
        return [(f.rule, f.line) for f in verdict.evidence.findings]

    assert found("unsafe-deserialization") == [
        ("unsafe-deserialization-pickle", 3),
        ("unsafe-deserialization-joblib", 4),
    ]
    assert found("unsafe-deserialization-joblib") == [("unsafe-deserialization-joblib", 4)]


def test_beginning_of_a_rule_is_no_group(sample: Sample):
    criterion = {"id": "d", "uses": "semgrep", "with": {"rules": ["item-on"], "paths": ["src"]}}
    with pytest.raises(SpecError, match=r"unknown rule 'item-on' .did you mean 'item-on-batch'"):
        sample.verdict(criterion)


def test_item_on_batch_finds_the_root_cause_of_a_failing_batch(sample: Sample):
    sample.write(
        "src/a.py",
        "import torch\n\n\ndef pick(p):\n    x = torch.multinomial(p, 1)\n    return x.item()\n",
    )
    with_ = {"rules": ["item-on-batch"], "paths": ["src"]}
    verdict = sample.verdict({"id": "d", "uses": "semgrep", "with": with_})
    assert [(f.rule, f.line) for f in verdict.evidence.findings] == [("item-on-batch", 6)]


def test_semgreps_own_test_command_agrees(tmp_path: Path):
    folder = tmp_path / "rules"
    folder.mkdir()
    for path in (rules.RULES / f"{rule}{suffix}" for rule in RULES for suffix in (".yaml", ".py")):
        # That command cannot be told to disregard suppression comments.
        (folder / path.name).write_text(path.read_text().replace("# nosemgrep", "#"))
    done = subprocess.run(
        [Path(sys.executable).parent / "semgrep", "--test", "--metrics=off", folder],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SEMGREP_ENABLE_VERSION_CHECK": "0"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert f"{len(RULES)}/{len(RULES)}: ✓ All tests passed" in done.stdout


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("numpy", "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=False)"),
        ("yaml", "yaml.unsafe_load(p)", "yaml.safe_load(p)"),
        (
            "trust-remote-code",
            "A.from_pretrained(p, trust_remote_code=True)",
            "A.from_pretrained(p, trust_remote_code=False)",
        ),
    ],
)
def test_fix_of_a_rule_leaves_nothing_to_find(rule: str, before: str, after: str, tmp_path: Path):
    path = tmp_path / "a.py"
    imports = "import numpy as np\nimport yaml\n"
    path.write_text(f"{imports}{before}\n")
    config = f"{rules.RULES}/unsafe-deserialization-{rule}.yaml"
    flags = ["--metrics=off", "--disable-version-check", "--no-git-ignore", "--autofix"]
    subprocess.run(
        ["osemgrep", "scan", "--experimental", "--config", config, *flags, "--", path],
        executable=engines.fast(),
        capture_output=True,
        check=True,
    )
    assert path.read_text() == f"{imports}{after}\n"


@pytest.mark.parametrize("rule", RULES)
def test_page_has_every_rule_with_its_help(rule: str):
    text = (rules.RULES.parents[2] / "docs" / "detection.md").read_text()
    assert f"| `{rule}` | {definition(rule)['message'].strip()} |" in text
