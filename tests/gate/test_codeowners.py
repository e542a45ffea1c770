"""CODEOWNERS is read as GitHub reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.github import codeowners


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", "a/b.py", True),
        ("*.py", "a/b.py", True),
        ("*.py", "a/b.pyc", False),
        ("/scripts/", "scripts/a/b.py", True),
        ("/scripts/", "src/scripts/a", False),
        ("/scripts/", "scripts", False),
        ("scripts/", "src/scripts/a", True),
        ("/scripts", "scripts/a/b", True),
        ("scripts/*", "scripts/a", True),
        ("scripts/*", "scripts/a/b", False),
        ("scripts/*.py", "scripts/a/b.py", False),
        ("/scripts/**", "scripts/a/b", True),
        ("/scripts/**/b", "scripts/b", True),
        ("/scripts/**/b", "scripts/a/c/b", True),
        ("**/logs", "build/logs/today", True),
        ("/gate.yaml", "gate.yaml", True),
        ("/gate.yaml", "sub/gate.yaml", False),
        ("gate?yaml", "gate.yaml", True),
        ("/a.b", "axb", False),
    ],
)
def test_a_pattern_matches_what_it_matches_on_github(
    pattern: str, path: str, matches: bool
) -> None:
    assert codeowners.Rule(1, pattern, ()).matches(path) is matches


def test_lines_that_github_passes_over_own_nothing() -> None:
    text = "# all\n* @a # the team\n!x @a\n[ab] @a\ny not-an-owner\n/my\\ file a@b.org @c/d\n\nz\n"
    rules = codeowners.parse(text)
    assert [(rule.line, rule.pattern, rule.owners) for rule in rules] == [
        (2, "*", ("@a",)),
        (6, "/my file", ("a@b.org", "@c/d")),
        (8, "z", ()),
    ]


def gaps(text: str, *files: str) -> list[tuple[str, str, int]]:
    found = codeowners.gaps(codeowners.parse(text), files)
    return [(gap.part, gap.path, gap.line) for gap in found]


def test_the_last_line_that_matches_counts() -> None:
    assert gaps("* @a\n") == []
    assert gaps("* @a\n/scripts/tool.py\n", "scripts/tool.py") == [
        ("scripts/", "scripts/tool.py", 2)
    ]
    assert gaps("/scripts/tool.py\n* @a\n", "scripts/tool.py") == []


def test_what_other_repositories_are_judged_by_must_be_owned_where_it_is() -> None:
    text = "/.github/ @a\n/scripts/ @a\n/gate.yaml @a\n"
    assert gaps(text) == []
    assert gaps(text, "action.yml", "docs/action.yml") == [("action.yml", "action.yml", 0)]
    assert gaps(text, ".pre-commit-hooks.yaml") == [
        (".pre-commit-hooks.yaml", ".pre-commit-hooks.yaml", 0)
    ]
    assert gaps(text + "/action.yml @a\n", "action.yml") == []


def test_files_that_a_change_could_add_must_be_owned_too() -> None:
    text = "/.github/workflows/gate.yml @a\n/scripts/*.py @a\n/gate.yaml @a\n"
    found = gaps(text, ".github/workflows/gate.yml", "scripts/a.py")
    assert [part for part, *_ in found] == [".github/", "scripts/"]


@given(st.text("*/?a.\\#![] @\n", max_size=60), st.text("a/.", max_size=20))
def test_no_file_can_break_or_stall_the_reader(text: str, path: str) -> None:
    rules = codeowners.parse(text)
    codeowners.owner_of(rules, path)
    lines = codeowners.lines_to_add(codeowners.gaps(rules, [path]), rules, "o")
    assert gaps(text + "\n" + "\n".join(lines), path) == []
