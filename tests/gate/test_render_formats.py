"""Every format: what it says of a decision, and that nothing hostile gets out of its place."""

import functools
import json
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import msgspec
import pytest
from builders import (
    FORBIDDEN,
    HOSTILE,
    ROOT,
    SOURCE,
    TWO_LEGS,
    all_legs,
    hostile,
    judged,
    markdown_tokens,
    parse,
    report,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tiergate.commands.report import FORMATS
from tiergate.decide import decide
from tiergate.render import formats, junit, sarif
from tiergate.render.formats import Rendering
from tiergate.verdict import Case, Evidence, Failure, Finding

DATA = ROOT / "tests" / "gate" / "data"
SARIF = Draft202012Validator(json.loads((DATA / "sarif-2.1.0.json").read_text()))
TEXTS = st.text(st.characters(codec=None), max_size=60)  # lone surrogates as well


def rendering(verdicts, **changes) -> Rendering:
    of = parse(TWO_LEGS)
    legs = [report(of, verdicts=verdicts, **changes)]
    return Rendering(decide(of, legs, devices=["cpu"], source=SOURCE), tuple(legs))


def failed() -> Rendering:
    failure = Failure("tests/a.py::test_x", "failed", "assert 1 == 2", "trace", "tests/a.py", 7)
    tests = Evidence(
        failures=[failure],
        cases=[Case("tests/a.py::test_w", "passed", 0.25), Case("tests/a.py::test_x", "failed", 1)],
        reproduce=["python -m pytest tests/a.py"],
    )
    load = Finding("unsafe-torch-load", "src/a.py", 3, 9, "unsafe", "torch.load(f)", "f" * 16)
    return rendering(
        [
            judged("A", status="fail", evidence=tests, summary="1 passed, 1 failed"),
            judged("B", status="fail", evidence=Evidence(findings=[load])),
        ]
    )


def passed() -> Rendering:
    of = parse(TWO_LEGS)
    legs = all_legs(of)
    return Rendering(decide(of, legs, source=SOURCE), tuple(legs))


def test_the_command_offers_every_format():
    assert set(FORMATS) == set(formats.FORMATS)


@functools.cache
def junit_schema():
    import xmlschema

    return xmlschema.XMLSchema(DATA / "junit.xsd")


def read_junit(shown: str) -> ET.Element:
    junit_schema().validate(shown.encode())
    return ET.fromstring(shown)


def read_sarif(shown: str):
    log = json.loads(shown)
    assert list(SARIF.iter_errors(log)) == []
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in run["results"])
    return run


def read_html(shown: str):
    import html5lib

    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(shown)


def test_junit_has_a_suite_for_each_cell_and_a_case_for_each_test():
    root = read_junit(junit.render(failed()))
    assert [(s.get("name"), s.get("tests"), s.get("failures")) for s in root] == [
        ("A@cpu", "2", "1"),
        ("B@cpu", "1", "1"),
    ]
    first, second = root[0].findall("testcase")
    assert (first.get("classname"), first.get("name")) == ("tests.a", "test_w")
    assert (first.get("time"), list(first)) == ("0.2500", [])
    assert second.find("failure").get("message") == "assert 1 == 2"
    assert (second.get("file"), second.get("line")) == ("tests/a.py", "7")
    assert root[1].find("testcase").get("name") == "src/a.py:3:9"


def red(root: ET.Element) -> int:
    return int(root.get("failures")) + int(root.get("errors"))


@pytest.mark.parametrize("status", ["fail", "error", "blocked"])
def test_junit_is_red_when_every_test_passed_but_the_verdict_is_not_good(status):
    evidence = Evidence(cases=[Case("tests/a.py::test_w", "passed", 0.25)])
    verdicts = [judged("A", status=status, evidence=evidence), judged("B")]
    assert red(read_junit(junit.render(rendering(verdicts)))[0]) == 1


def test_junit_is_red_when_a_verdict_is_missing_or_a_report_is_not_believed():
    assert red(read_junit(junit.render(rendering([judged("A")])))) >= 2
    unfinished = rendering([judged("A"), judged("B")], complete=False)
    assert red(read_junit(junit.render(unfinished))) == 1


def test_junit_is_green_when_the_gate_passes_even_by_a_waiver():
    assert red(read_junit(junit.render(passed()))) == 0
    evidence = Evidence(failures=[Failure("t.py::x", "failed", "m")])
    waived = judged("A", status="waived", waiver="until then", evidence=evidence)
    suites = read_junit(junit.render(rendering([waived, judged("B")])))
    assert suites[0].get("failures") == "0"
    assert suites[0].get("skipped") == "1"


def test_sarif_places_findings_and_failed_tests_with_help():
    run = read_sarif(sarif.render(failed()))
    test, load = run["results"]
    place = test["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "tests/a.py", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 7}
    assert load["partialFingerprints"] == {"tiergate/v1": "f" * 16}
    rule = run["tool"]["driver"]["rules"][load["ruleIndex"]]
    assert rule["properties"]["tags"] == ["security", "external/cwe/cwe-502"]
    assert "weights_only=True" in rule["help"]["text"]
    assert rule["helpUri"].startswith("https://docs.pytorch.org/")


def test_a_fingerprint_survives_a_shift_of_lines():
    def marks(line: int):
        failure = Failure("t.py::x", "failed", "m", path="t.py", line=line)
        verdicts = [judged("A", status="fail", evidence=Evidence(failures=[failure])), judged("B")]
        return [
            r["partialFingerprints"]
            for r in read_sarif(sarif.render(rendering(verdicts)))["results"]
        ]

    assert marks(1) == marks(99)


def test_sarif_puts_a_failure_without_a_place_at_its_criterion():
    verdicts = [judged("A", status="error"), judged("B", status="blocked")]
    (result,) = read_sarif(sarif.render(rendering(verdicts)))["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "gate.yaml"
    assert place["region"]["startLine"] == parse(TWO_LEGS).criterion("A").mark.line > 1


def test_sarif_suppresses_what_is_waived():
    finding = Finding("unsafe-torch-load", "src/a.py", 3, 9, "unsafe")
    waived = judged("B", status="waived", waiver="why", evidence=Evidence(findings=[finding]))
    of = parse(
        TWO_LEGS + b"waivers:\n  - {criterion: B, reason: w, owner: o, expires: 2026-02-01}\n"
    )
    leg = report(of, verdicts=[judged("A"), waived])
    from datetime import date

    decision = decide(of, [leg], devices=["cpu"], source=SOURCE, today=date(2026, 1, 20))
    run = read_sarif(sarif.render(Rendering(decision, (leg,))))
    assert [r["suppressions"] for r in run["results"]] == [
        [{"kind": "external", "justification": "why"}]
    ]


def test_sarif_stays_within_what_github_takes_and_says_what_is_left_out():
    findings = [Finding("r", f"src/{n}.py", n + 1, 1, "m" * 3000, "c" * 3000) for n in range(6000)]
    verdicts = [judged("A"), judged("B", status="fail", evidence=Evidence(findings=findings))]
    shown = sarif.render(rendering(verdicts))
    (run,) = json.loads(shown)["runs"]
    assert len(shown.encode()) < 10_000_000
    assert 0 < len(run["results"]) <= 5000
    (said,) = run["invocations"][0]["toolExecutionNotifications"]
    assert "of 6000 results are left out" in said["message"]["text"]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (passed, ("passed", "brightgreen")),
        (failed, ("failed (2 of 4 cells)", "red")),
        (lambda: rendering([judged("A"), judged("B")]), ("passed (2 of 4 cells)", "yellow")),
        (lambda: rendering([]), ("not evaluated (2 of 4 cells)", "lightgrey")),
    ],
    ids=["passed", "failed", "one leg", "nothing"],
)
def test_the_badge_says_no_more_than_what_was_judged(made, expected):
    badge = json.loads(formats.render("badge", made()))
    assert (badge["schemaVersion"], badge["label"]) == (1, "TIER 0")
    assert (badge["message"], badge["color"]) == expected


def test_the_json_holds_the_decision_of_all_legs():
    document = json.loads(formats.render("json", passed()))
    assert (document["conclusion"], document["exit_code"]) == ("passed", 0)
    assert [cell["status"] for cell in document["cells"]] == ["pass"] * 4


def test_the_comment_can_be_found_again_and_fits():
    long = rendering([hostile("&😀" * 50_000), judged("B")])
    shown = formats.render("pr-comment", long)
    assert shown.startswith("<!-- tiergate:decision -->\n## TIER 0 GATE FAILED")
    assert len(shown) < 65_536


def commands(shown: str) -> None:
    lines = shown.splitlines()
    assert len(lines) <= 10
    for line in lines:
        assert re.fullmatch(r"::(error|notice)( file=[^,:]*,line=\d+,)? ?title=[^,:]*::.*", line)


def blank(shown: str) -> None:
    assert not FORBIDDEN & set(shown)


def markdown(shown: str) -> None:
    blank(shown)
    tokens = markdown_tokens(shown.removeprefix("<!-- tiergate:decision -->\n"))
    drawn = {token.type for token in tokens}
    assert not drawn & {"link_open", "image", "em_open", "code_inline", "fence", "s_open"}
    tags = {t.content.strip() for t in tokens if t.type in {"html_block", "html_inline"}}
    assert tags <= {
        "<details><summary>Every cell, with what was observed</summary>",
        "<details><summary>Slowest tests</summary>",
        "</details>",
        "<sub>",
        "</sub>",
        "<sub>Judged: cccccccccccc</sub>",
    }
    titles = [after.content for t, after in pairwise(tokens) if t.type == "heading_open"]
    assert titles == ["TIER 0 GATE FAILED — fix before proceeding", "A@\u200bcpu: fail"]
    prose = "".join(t.content for t in tokens if t.type == "text")
    assert not re.search(r"://|www\.|@[a-z]", prose)


ORACLES = {
    "text": blank,
    "markdown": markdown,
    "github": commands,
    "pr-comment": markdown,
    "html": read_html,
    "junit": read_junit,
    "sarif": read_sarif,
    "badge": json.loads,
    "json": json.loads,
}


@pytest.mark.parametrize("name", formats.FORMATS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_in_its_place(name, text):
    ORACLES[name](formats.render(name, rendering([hostile(text), judged("B", summary=text)])))


@pytest.mark.parametrize("name", formats.FORMATS)
def test_any_text_stays_in_its_place(name):
    @settings(max_examples=25, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        verdict = hostile(text)
        cases = [Case(text, text, 1.0), Case("a.py::" + text, "passed", 0.1)]
        evidence = msgspec.structs.replace(verdict.evidence, cases=cases)
        verdict = msgspec.structs.replace(verdict, evidence=evidence)
        shown = formats.render(name, rendering([verdict], interruption=text, complete=False))
        ORACLES[name](shown)
        shown.encode()  # no lone surrogate is left

    check()
