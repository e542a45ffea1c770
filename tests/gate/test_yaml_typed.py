"""Nodes → structs, with every problem at its place."""

# ruff: noqa: E501 - a table of cases is read row by row

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from tiergate import yaml_document, yaml_typed
from tiergate.yaml_typed import INVALID, Reader, TooManyProblemsError


class Inner(msgspec.Struct, frozen=True):
    name: Annotated[str, Meta(pattern=r"^[a-z]+$")]
    count: int = 7


class Outer(msgspec.Struct, frozen=True):
    text: str = "default"
    whole: Annotated[int, Meta(ge=0, le=9)] = 0
    number: Annotated[float, Meta(gt=0)] = 1.0
    flag: bool = False
    choice: Literal["red", "green"] = "red"
    maybe: str | None = None
    either: int | str = 0
    words: Annotated[list[str], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["w"])
    inners: list[Inner] = []
    table: dict[Annotated[str, Meta(pattern=r"^[A-Z]+$")], int] = {}
    checked: Annotated[str, Meta(min_length=1, extra={"check": "no-x"})] = "c"
    free: Any = None


def read(text: str, wanted: Any = Outer):
    reader = Reader({"no-x": lambda value: "holds an x" if "x" in value else None})
    value = reader.read(yaml_document.parse(text.encode()), wanted)
    return value, [f"{p.mark.line}:{p.mark.column}: {p.message}" for p in reader.problems]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("text: on", "text", "on"),
        ("text: '7'", "text", "7"),
        ("text: 0x1F", "text", "0x1F"),
        ("text: 2026-01-02", "text", "2026-01-02"),
        ("whole: 007", "whole", 7),
        ("number: 2", "number", 2.0),
        ("number: 1.5e1", "number", 15.0),
        ("number: .5", "number", 0.5),
        ("flag: True", "flag", True),
        ("choice: green", "choice", "green"),
        ("maybe: ~", "maybe", None),
        ("maybe:", "maybe", None),
        ("maybe: 'null'", "maybe", "null"),
        ("either: 3", "either", 3),
        ("either: '>=3'", "either", ">=3"),
        ("words: [a, b]", "words", ["a", "b"]),
        ("inners: [{name: a}]", "inners", [Inner("a")]),
        ("table: {A: 1}", "table", {"A": 1}),
        (
            "free: {a: [1, yes, 1.5, null, true, 1e99]}",
            "free",
            {"a": [1, "yes", 1.5, None, True, 1e99]},
        ),
        ("free: [1e400]", "free", ["1e400"]),
    ],
)
def test_a_scalar_is_read_by_the_type_that_is_wanted(text, field, value):
    read_value, problems = read(text)
    assert problems == []
    got = getattr(read_value, field)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text: 7", "1:7: text: expected text, found the number 7 (quote it to make it text)"),
        ("text: 0.20", "1:7: text: expected text, found the number 0.20 (quote it to make it text)"),
        ("text: true", "1:7: text: expected text, found the boolean true (quote it to make it text)"),
        ("text:", "1:6: text: expected text, found nothing"),
        ("text: [a]", "1:7: text: expected text, found a list"),
        ("whole: '7'", "1:8: whole: expected a whole number, found the text '7'"),
        ("whole: true", "1:8: whole: expected a whole number, found the boolean true (quote it to make it text)"),
        ("whole: -1", "1:8: whole: must be at least 0, not -1"),
        ("whole: 10", "1:8: whole: must be at most 9, not 10"),
        ("number: 0", "1:9: number: must be more than 0, not 0.0"),
        ("number: .nan", "1:9: number: expected a number, found the text '.nan'"),
        ("number: 1e999", "1:9: number: expected a number, found the text '1e999'"),
        ("flag: yes", "1:7: flag: expected true or false, found the text 'yes'"),
        ("choice: gren", "1:9: choice: unknown value 'gren' (did you mean 'green'?)"),
        ("either: 1.5", "1:9: either: expected a whole number or text, found the number 1.5 (quote it to make it text)"),
        ("either:", "1:8: either: expected a whole number or text, found nothing"),
        ("words: []", "1:8: words: must not be empty"),
        ("words: a", "1:8: words: expected a list, found the text 'a'"),
        ("words: [a, 1]", "1:12: words[1]: expected text, found the number 1 (quote it to make it text)"),
        ("inners: [{}]", "1:10: inners[0]: missing name"),
        ("inners: [{name: A}]", "1:17: inners[0].name: 'A' does not match ^[a-z]+$"),
        ('inners: [{name: "a\\n"}]', "1:17: inners[0].name: 'a\\n' does not match ^[a-z]+$"),
        ("table: {a: 1}", "1:9: table: 'a' does not match ^[A-Z]+$"),
        ("table: {A: a}", "1:12: table.A: expected a whole number, found the text 'a'"),
        ("checked: ax", "1:10: checked: holds an x"),
        ("checked: ''", "1:10: checked: must not be empty"),
        ("txet: a", "1:1: unknown key 'txet' (did you mean 'text'?)"),
        ("text: a\ntext: b", "2:1: duplicate key 'text', first at line 1"),
        ("free: {a: 1, b: {c: 1, c: 2}}", "1:24: duplicate key 'c', first at line 1"),
        ("? [a]\n: b", "1:3: the file: a key must be text, not a list"),
        ("[a]", "1:1: the file: expected a mapping, found a list"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_its_place(text, message):
    assert read(text)[1] == [message]


def test_all_problems_are_found_at_once():
    text = "text: 1\nunknown: 2\ninners:\n  - {name: 1}\n  - {name: ok, count: x}\ntable: {a: b}\n"
    assert [problem.split(" ", 1)[0] for problem in read(text)[1]] == [
        "1:7:", "2:1:", "4:12:", "5:23:", "6:12:", "6:9:",
    ]  # fmt: skip


def test_a_value_with_a_problem_leaves_the_rest_readable():
    reader = Reader({})
    text = b"text: 1\nwhole: 5\ninners: [{name: 1}, {name: ok, count: x}]\n"
    value = reader.read(yaml_document.parse(text), Outer)
    assert (value.text, value.whole) == ("default", 5)
    assert value.inners == [INVALID, Inner("ok")]
    assert reader.invalid == {
        ("text",), ("inners", 0), ("inners", 0, "name"), ("inners", 1, "count"),
    }  # fmt: skip


def test_what_is_no_mapping_at_all_is_invalid():
    assert read("[a]")[0] is INVALID


def test_one_problem_of_an_aliased_node_is_told_once():
    text = "inners: [&x {name: ok, bad: 1}, *x, *x]"
    assert len(read(text)[1]) == 1


def test_a_problem_of_something_that_is_not_there_stands_at_the_nearest_that_is():
    reader = Reader({})
    reader.read(yaml_document.parse(b"inners:\n  - {name: a}\n"), Outer)
    reader.problem(("inners", 0, "count", 3), "said")
    assert [str(p.mark) for p in reader.problems] == [str(yaml_document.Mark(2, 5))]


def test_reading_stops_at_too_many_problems_and_says_so():
    reader = Reader({})
    text = "".join(f"key{n}: 1\n" for n in range(300))
    with pytest.raises(TooManyProblemsError):
        reader.read(yaml_document.parse(text.encode()), Outer)
    assert len(reader.problems) == yaml_typed.MAX_PROBLEMS + 1
    assert reader.problems[-1].message == "too many problems: reading stopped after 100"
    assert reader.problems[-1].mark == yaml_document.Mark(100, 1)


@pytest.mark.parametrize(
    "text",
    ["? %s\n: 1", "text: [%s]", "table:\n  ? %s\n  : [1]", "choice: %s", "inners: [{name: %s!}]"],
)
def test_messages_stay_short_whatever_the_file_holds(text):
    problems = read(text % ("k" * 100_000))[1]
    assert problems
    assert all(len(problem) < 400 for problem in problems)
