"""YAML bytes → nodes with their places."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate import yaml_document
from tiergate.yaml_document import Kind, Mark, YamlError, parse


def refusal(data: bytes) -> str:
    with pytest.raises(YamlError) as caught:
        parse(data)
    problem = caught.value.problem
    return f"{problem.mark.line}:{problem.mark.column}: {problem.message}"


def plain(node):
    """Return a node as text, lists and pairs."""
    if node.kind is Kind.SCALAR:
        return node.text
    if node.kind is Kind.SEQUENCE:
        return [plain(item) for item in node.items]
    return [(plain(key), plain(value)) for key, value in node.entries]


def test_a_tree_keeps_order_and_duplicate_keys():
    root = parse(b"b: [1, two]\na: {x: y}\nb: again\n")
    assert plain(root) == [("b", ["1", "two"]), ("a", [("x", "y")]), ("b", "again")]


def test_every_node_knows_its_line_and_column_counted_from_one():
    root = parse("a: é\n\nbb:\n  - [x,  y]\n".encode())
    (first, value), (second, items) = root.entries
    assert (first.mark, value.mark) == (Mark(1, 1), Mark(1, 4))
    assert second.mark == Mark(3, 1)
    assert [node.mark for node in items.items[0].items] == [Mark(4, 6), Mark(4, 10)]


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfa: 1\nb: 2\n", b"a: 1\r\nb: 2\r\n", b"%YAML 1.2\n---\na: 1\nb: 2\n"]
)
def test_a_byte_order_mark_windows_line_ends_and_a_version_are_read(data):
    assert plain(parse(data)) == [("a", "1"), ("b", "2")]


def test_a_byte_order_mark_moves_no_column():
    assert parse(b"\xef\xbb\xbfa: 1").entries[0][1].mark == Mark(1, 4)


def test_windows_line_ends_count_one_line_each():
    assert parse(b"a: 1\r\nb: 2\r\n").entries[1][0].mark == Mark(2, 1)


def test_only_unquoted_scalars_are_plain():
    root = parse(b"- a\n- 'b'\n- \"c\"\n- |\n  d\n")
    assert [node.plain for node in root.items] == [True, False, False, False]


def test_an_alias_stands_for_its_node():
    assert plain(parse(b"a: &x [1]\nb: *x\n")) == [("a", ["1"]), ("b", ["1"])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "1:1: the file is empty"),
        (b"# only a comment\n", "1:1: the file is empty"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second YAML document starts here; one is allowed"),
        (b"a: !!python/object:os.system x\n", "1:4: tags are not supported"),
        (b"a: !local x\n", "1:4: tags are not supported: remove '!local'"),
        (b"ok: 1\nb: *nowhere\n", "2:4: the alias *nowhere has no anchor before it"),
        (b"a: &x [1, *x]\n", "1:11: the alias *x stands inside its own anchor"),
        (b"ok: 1\na: [1\nb: 2\n", "3:2: not valid YAML: while parsing a flow sequence"),
        (b"a: b: c\n", "1:5: not valid YAML: mapping values are not allowed"),
        (b"a:\n\t- b\n", "2:1: not valid YAML: while scanning for the next token"),
        ("é: 1\nü: é".encode() + b"\xff\n", "2:5: the file is not UTF-8: invalid start byte"),
        ("a: é".encode("latin-1"), "1:4: the file is not UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: the file is not UTF-8"),
        ("ok: 1\né: \0\n".encode(), "2:4: the file is not readable text"),
        ("é: \x07\n".encode(), "1:4: the file is not readable text"),
        (b'a: "x\\0y"\n', "1:4: text with a NUL character"),
        (
            b'a: "\\ud800"\n',
            "1:7: not valid YAML: while parsing a quoted scalar found invalid Unicode",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(data, message):
    assert refusal(data).startswith(message)


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not():
    padding = b"#" * (yaml_document.MAX_BYTES - 5) + b"\n"
    assert plain(parse(padding + b"a: 1")) == [("a", "1")]
    assert refusal(padding + b"a: 12") == "1:1: the file has 262145 bytes; the limit is 262144"


@pytest.mark.parametrize(
    ("opening", "closing", "column"), [(b"[", b"]", 26), (b"- ", b"", 51), (b"? ", b"", 51)]
)
def test_nesting_is_bounded(opening, closing, column):
    assert parse(opening * 24 + b"x" + closing * 24)
    refused = refusal(opening * 25 + b"x" + closing * 25)
    assert refused == f"1:{column}: nested more than 24 levels deep"


def test_nesting_by_way_of_aliases_is_bounded_as_well():
    ten = b"[" * 10 + b"%s" + b"]" * 10
    data = b"- &a " + ten % b"x" + b"\n- &b " + ten % b"*a" + b"\n"
    assert parse(data)
    refused = refusal(data + b"- " + ten % b"*b" + b"\n")
    assert refused == "3:13: nested more than 24 levels deep, aliases expanded"


def test_aliases_that_explode_are_refused_before_the_tree_exists():
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)]
    refused = refusal(b"\n".join(lines))
    assert refused.startswith("5:")
    assert refused.endswith("more than 20000 nodes, aliases expanded")


def test_the_number_of_nodes_is_bounded():
    assert len(parse(b"- x\n" * 19_999).items) == 19_999
    assert refusal(b"- x\n" * 20_000) == "20000:3: more than 20000 nodes, aliases expanded"


def test_directives_are_bounded():
    data = b"".join(b"%%TAG !a%d! b\n" % n for n in range(9)) + b"---\na\n"
    assert refusal(data) == "9:1: more than 8 directives"


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda inner: st.lists(inner, min_size=1, max_size=4),
        max_leaves=20,
    )
)
def test_flow_lists_come_back_as_they_were_written(value):
    text = str(value).replace("'", "")
    assert plain(parse(text.encode())) == value
