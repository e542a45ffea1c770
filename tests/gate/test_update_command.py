"""``tiergate update`` takes over numbers, and nothing that only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import FILES, Sample

from tiergate import expect_file, spec
from tiergate.cli import run
from tiergate.errors import UserError
from tiergate.expectation import Bound

GATE = """\
# the only gate
gate: T   # its name
pythonpath: [src]
criteria:
  - id: prices   # the contract
    uses: pytest
    with: {paths: [tests/test_prices.py]}
    expect: {passed: 2}   # exactly
  - id: suite

    uses: collection
    expect:
      errors: 0
      collected: ">=2"  # at least
"""
MORE = "\n\ndef test_more():\n    assert total([3]) == 3\n"


@pytest.fixture
def gated(sample: Sample) -> Sample:
    """The sample with the gate above, committed."""
    sample.write("gate.yaml", GATE)
    sample.commit()
    return sample


def update(sample: Sample, *words: str) -> int:
    return run(["update", *words, "--repo", str(sample.root), "--python", str(sample.python)])


def text(sample: Sample) -> str:
    return (sample.root / "gate.yaml").read_text()


def test_new_tests_are_shown_and_written_where_the_number_stands(gated, capsys):
    gated.write("tests/test_prices.py", FILES["tests/test_prices.py"] + MORE)
    assert update(gated, "prices") == 1
    shown = capsys.readouterr()
    assert "  + tests/test_prices.py::test_more\n" in shown.out
    assert "prices: passed: 2 → 3\n" in shown.out
    assert "+    expect: {passed: 3}   # exactly\n" in shown.out
    assert "--apply writes it" in shown.err
    assert text(gated) == GATE
    assert update(gated, "prices", "--apply") == 0
    assert text(gated) == GATE.replace("passed: 2", "passed: 3")
    assert update(gated, "suite", "--apply") == 0
    assert text(gated) == GATE.replace("passed: 2", "passed: 3").replace(">=2", ">=3")
    capsys.readouterr()
    assert update(gated, "prices") == 0
    assert "prices: the numbers are right" in capsys.readouterr().out


def test_lost_and_renamed_tests_are_named(gated, capsys):
    renamed = FILES["tests/test_prices.py"].replace("test_nothing_costs", "test_no_price_costs")
    gated.write("tests/test_prices.py", renamed.replace("def test_total", "def helper"))
    assert update(gated, "prices", "--apply") == 0
    shown = capsys.readouterr().out
    assert "  - tests/test_prices.py::test_total\n" in shown
    assert "test_nothing_costs_nothing → tests/test_prices.py::test_no_price_costs_nothing" in shown
    assert "prices: passed: 2 → 1" in shown


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("\n\ndef test_wrong():\n    assert total([]) == 1\n", "failed: expected 0, observed 1"),
        (
            "\n\nimport pytest\n\n\n@pytest.mark.skip\ndef test_later():\n    pass\n",
            "skipped: expected 0, observed 1",
        ),
        ("\n\nimport no_such_module\n", "errors: expected 0, observed 1"),
    ],
    ids=["failed", "skipped", "error"],
)
def test_another_reason_than_the_count_is_refused(more, said, gated, capsys):
    gated.write("tests/test_prices.py", FILES["tests/test_prices.py"] + more)
    assert update(gated, "prices", "--apply") == 1
    assert said in capsys.readouterr().err
    assert text(gated) == GATE


def test_no_test_at_all_is_refused(gated, capsys):
    gated.write("tests/test_prices.py", "")
    assert update(gated, "prices", "--apply") == 1
    assert "no passed at all" in capsys.readouterr().err
    assert text(gated) == GATE


def test_a_criterion_that_cannot_be_evaluated_is_exit_code_3(gated, capsys):
    gated.write("tests/test_prices.py", "import os\n\n\ndef test_end():\n    os._exit(0)\n")
    assert update(gated, "prices", "--apply") == 3
    assert "could not be evaluated" in capsys.readouterr().err
    assert text(gated) == GATE


def test_without_a_commit_the_numbers_are_known_all_the_same(sample, capsys):
    sample.write("gate.yaml", GATE.replace("passed: 2", "passed: 5"))
    (sample.root / ".git").rename(sample.root / "no-git")
    assert update(sample, "prices", "--apply") == 0
    shown = capsys.readouterr()
    assert "prices: passed: 5 → 2" in shown.out
    assert "tests gained and lost: unknown: the spec is not committed yet" in shown.err


# The text.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("expect: {passed: 2}", "expect: {passed: 7}"),
        ("expect: { passed : 2 , skipped: 1 }", "expect: { passed : 7 , skipped: 1 }"),
        ("expect:\n      passed: 2# no comment", None),
        ("expect:\n      passed: 2 # why", "expect:\n      passed: 7 # why"),
        ("'expect': {'passed': 2}", "'expect': {'passed': 7}"),
        ("expect: {passed: &two 2, collected: *two}", None),
        ("expect: {passed: +2}", "expect: {passed: 7}"),
    ],
)
def test_only_the_number_changes(before, after):
    head = "é: 1\ngate: T\n".replace("é: 1\n", "# é\n")
    whole = f"{head}criteria:\n  - id: A\n    uses: pytest\n    with: {{paths: [t]}}\n    "
    data = (whole + before + "\n").encode()
    try:
        spec.parse(data, Path("g"))
    except spec.SpecError:
        assert after is None
        return
    if after is None:
        with pytest.raises(UserError, match="by hand: passed: 7"):
            expect_file.rewrite(data, Path("g"), "A", {"passed": Bound(7)})
    else:
        assert expect_file.rewrite(data, Path("g"), "A", {"passed": Bound(7)}).decode() == (
            whole + after + "\n"
        )


@given(
    number=st.integers(1, 10**9),
    at_least=st.booleans(),
    quote=st.sampled_from(['"', "'"]),
    bom=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_any_number_is_read_back_as_it_was_written(number, at_least, quote, bom, newline):
    gate = GATE.replace('">=2"', f"{quote}>=2{quote}").replace("\n", newline)
    data = (b"\xef\xbb\xbf" if bom else b"") + gate.encode()
    bound = Bound(number, at_least=at_least)
    after = expect_file.rewrite(data, Path("g"), "suite", {"collected": bound})
    assert spec.parse(after, Path("g")).criterion("suite").expect["collected"] == bound
    # All but the value's own line is as it was.
    lines = zip(data.split(b"\n"), after.split(b"\n"), strict=True)
    assert [old for old, new in lines if old != new] in (
        [],
        [f"      collected: {quote}>=2{quote}  # at least{newline[:-1]}".encode()],
    )
