"""The resolver: what cannot be proved is told, with what would prove it."""

from __future__ import annotations

import ast
import json
import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.loads import folding, project, relevance, scan, statements
from tiergate.loads.notebooks import NotebookError, extract
from tiergate.loads.values import Constant, constant


def places(text: str, **more: str) -> list[tuple[int, str]]:
    sources = {"case.py": textwrap.dedent(text).encode()}
    sources |= {f"{name}.py": textwrap.dedent(other).encode() for name, other in more.items()}
    result = scan.scan(sources, ["case.py"], "explicit")
    assert result.unreadable == []
    seen = result.seen.get("case.py")
    return [(place.line, place.verdict) for place in seen.places] if seen else []


def message(text: str) -> str:
    result = scan.scan({"case.py": textwrap.dedent(text).encode()}, ["case.py"], "explicit")
    (place,) = result.seen["case.py"].places
    return place.message


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("torch.load(p)", "weights_only is not given; write weights_only=True"),
        ("torch.load(p, weights_only=False)", "weights_only is False; write True"),
        ("torch.load(p, weights_only=flag)", "The literal True at the call proves it"),
        ("torch.load(p, **options)", "write weights_only=True at the call itself"),
        ("torch.load(p, pickle_module=m, weights_only=True)", "leave it out"),
        ("call(torch.load)", "functools.partial(torch.load, weights_only=True)"),
    ],
)
def test_message_says_what_would_prove_it(call: str, says: str):
    assert says in message(f"import torch\n{call}\n")


def test_omitted_argument_is_taken_under_the_policy_of_a_floor_and_false_is_not():
    source = {"a.py": b"import torch\ntorch.load(p)\ntorch.load(p, weights_only=False)\n"}
    found = scan.scan(source, ["a.py"], "floor-2.6").seen["a.py"]
    assert [place.line for place in found.places] == [3]
    assert [
        place.line for place in scan.scan(source, ["a.py"], "explicit").seen["a.py"].places
    ] == [2, 3]


def test_only_a_call_that_leaves_the_argument_out_can_be_mended():
    text = b"import torch\ntorch.load(p)\nf = torch.load\nf(p)\ntorch.load(p, weights_only=x)\n"
    found = scan.scan({"a.py": text}, ["a.py"], "explicit").seen["a.py"]
    assert [(place.line, place.fixable) for place in found.places] == [
        (2, True), (4, True), (5, False),
    ]  # fmt: skip


def test_loop_that_changes_a_constant_late_is_followed_round():
    assert places(
        """
        import torch
        a = b = c = True
        for p in paths:
            torch.load(p, weights_only=c)
            c = b
            b = a
            a = False
        """
    ) == [(5, "unsafe")]


def test_recursion_between_functions_ends():
    assert places(
        """
        import torch
        def f():
            return g() or torch.load
        def g():
            return f()
        g()(p)
        """
    )


def test_modules_that_import_each_other_end():
    assert places(
        "from other import fetch\nfetch('m')\n",
        other="from case import nothing\nfrom torch import load as fetch\n",
    ) == [(2, "unsafe")]


def test_module_beside_the_importer_comes_before_one_of_the_same_name_elsewhere():
    sources = {
        "a/case.py": b"from tools import load\nload('m')\n",
        "a/tools.py": b"from json import load\n",
        "b/tools.py": b"from torch import load\n",
    }
    assert not scan.scan(sources, ["a/case.py"], "explicit").seen["a/case.py"].places
    del sources["a/tools.py"]
    assert scan.scan(sources, ["a/case.py"], "explicit").seen["a/case.py"].places


def test_constant_that_another_file_may_bind_proves_nothing():
    text = "import torch\nSAFE = True\ndef f(p):\n    return torch.load(p, weights_only=SAFE)\n"
    assert places(text) == []
    assert places(text, other="import case\ncase.SAFE = False\n") == [(4, "unproven")]
    assert places(text, other="patch('case.SAFE', False)\n") == [(4, "unproven")]
    assert (
        places(text, other="import case\nclass A:\n    def f(self):\n        self.SAFE = 1\n") == []
    )


def test_deep_nesting_and_new_syntax_are_unreadable_not_safe():
    deep = b"import torch\nx = " + b"(" * 150 + b"torch.load(p)" + b")" * 150 + b"\n"
    assert scan.scan({"a.py": deep}, ["a.py"], "explicit").seen
    deeper = b"import torch\nx = torch.load(p)" + b".x" * 30_000 + b"\n"
    result = scan.scan({"a.py": deeper}, ["a.py"], "explicit")
    assert result.unreadable or result.seen
    broken = scan.scan({"a.py": b"import torch\ntorch.load(p\n"}, ["a.py"], "explicit")
    assert broken.unreadable


def test_file_that_would_take_hours_to_follow_is_unreadable_not_safe(monkeypatch):
    depth = 10
    lines = ["import torch"]
    for level in range(depth):
        lines += [f"{' ' * level}for i in p:", f"{' ' * level} x{level} = True"]
    lines += [f"{' ' * depth}x{level} = False" for level in range(depth)]
    lines += [f"{' ' * depth}torch.load(p, weights_only=x0)"]
    source = {"a.py": "\n".join(lines).encode()}
    assert scan.scan(source, ["a.py"], "explicit").seen["a.py"].places
    monkeypatch.setattr(statements, "_STATEMENTS", 2000)
    result = scan.scan(source, ["a.py"], "explicit")
    assert result.unreadable == ["a.py: ValueError: too involved to follow"]
    assert not result.seen


def test_modules_that_never_come_to_an_end_are_unreadable(monkeypatch):
    monkeypatch.setattr(project, "_ROUNDS", 1)
    sources = {
        "case.py": b"from other import fetch\nfetch('m')\n",
        "other.py": b"from torch import load as fetch\n",
    }
    result = scan.scan(sources, ["case.py", "other.py"], "explicit")
    assert "case.py: too involved to follow through modules" in result.unreadable


def test_columns_are_in_characters():
    source = "import torch\nx = 'üü'; torch.load(p)\n".encode()
    (place,) = scan.scan({"a.py": source}, ["a.py"], "explicit").seen["a.py"].places
    assert (place.line, place.column) == (2, 11)


WRAPS = [
    "{}", "({})", "[{}][0]", "f({})", "({} if c else None)", "(lambda: {})()", "{{'a': {}}}['a']",
    "(x := {})", "f(*[{}])", "f(k={})", "[{} for _ in y][0]", "f'{{{}}}'", "({} or z)", "-{}",
    "(await {})",
]  # fmt: skip
STATEMENTS = [
    "r = {}", "return {}", "if {}:\n        pass", "for i in {}:\n        pass", "assert {}",
    "r += {}",
    "with {} as w:\n        pass", "raise {}", "while {}:\n        break", "del r[{}]", "{}",
    "try:\n        {}\n    finally:\n        pass", "match {}:\n        case _:\n            pass",
    "class C(f({})):\n        pass", "@f({})\n    def g():\n        pass",
    "def g(a={}):\n        pass", "def g():\n        return {}",
]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(WRAPS), max_size=3), st.sampled_from(STATEMENTS))
def test_call_is_found_wherever_it_stands_and_never_when_it_is_safe(wraps, statement):
    for call, unsafe in (("torch.load(p)", True), ("torch.load(p, weights_only=True)", False)):
        expression = call
        for wrap in wraps:
            expression = wrap.format(expression)
        text = f"import torch\nasync def h(p, c, y, z, r, f):\n    {statement.format(expression)}\n"
        try:
            ast.parse(text)
        except SyntaxError:
            return
        assert bool(places(text)) is unsafe, text


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["or", "and", "=="]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["not {}", "{}", "bool({})", "({0}, {0})[0]"]),
)
def test_constants_come_to_what_python_makes_of_them(operator, left, right, wrap):
    expression = wrap.format(f"({left} {operator} {right})")
    safe = not places(f"import torch\ntorch.load(p, weights_only={expression})\n")
    assert not safe or eval(expression) is True


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=6), st.text(max_size=6))
def test_folding_agrees_with_python(left: str, right: str):
    assert folding.binary(ast.Add(), constant(left), constant(right)) == {
        Constant("str", left + right)
    }
    assert folding.method("upper", constant(left), []) == {Constant("str", left.upper())}
    assert folding.method("join", constant(left), [[right, right]]) == {
        Constant("str", left.join([right, right]))
    }


def test_folding_is_bounded():
    assert folding.binary(ast.Mod(), constant("%1000000000d"), constant(1)) is None
    assert folding.method("join", constant("x" * 4000), [["a", "b", "c"]]) is None
    assert folding.method("format", constant("{:{}}"), ["x", 999_999_999]) is None


@pytest.mark.parametrize(
    "source",
    [
        b"import json\njson.load(f)\n",
        b"import torch\n# load the weights\nx = torch.zeros(1)\n",
        b"import torch\nmodel.load_state_dict(s)\n",
        b"import torch\ngetattr(self, name)\n",
        b"import torch\nclass A:\n    def load(self): pass\n",
    ],
)
def test_files_that_cannot_name_it_are_not_looked_at(source: bytes):
    assert not relevance.may_load(source)


@pytest.mark.parametrize(
    "source",
    [
        b"import torch\ntorch . \\\n load(p)\n",
        b"import torch\n(torch  # why\n .load)(p)\n",
        b"from torch import (\n    nn,\n    load,\n)\n",
        b"from torch import *\nload(p)\n",
        b"import torch as t\nt.load(p)\n",
        b"t = __import__('torch')\nt.load(p)\n",
        b"import torch\ndef g(): return torch\ng().load(p)\n",
        b"import torch\nx = getattr(torch, name)\n",
        b"import torch\nm = (\n    torch\n)\nm.load(p)\n",
        b"import torch\neval(code)\n",
    ],
)
def test_files_that_may_name_it_are_looked_at(source: bytes):
    assert relevance.may_load(source)


PARTS = st.sampled_from([b"load", b"_", b"s", b".", b" ", b"\n", b"\xc3\xa9"])


@given(st.sampled_from([b"load", b"_load"]), st.lists(PARTS, max_size=12).map(b"".join))
def test_a_word_is_found_where_it_stands_between_boundaries(name: bytes, source: bytes):
    found = [match.start() for match in re.finditer(relevance.word(name), source)]
    assert found == [match.start() for match in re.finditer(rb"\b" + name + rb"\b", source)]


def test_an_import_in_a_comment_does_not_hide_the_import_below_it():
    source = b"# from a import (\n  from torch import serialization as s\n# )\nyield from x\n"
    assert relevance.passed_on(source)["s"][0] == (0, "torch", "serialization")
    assert set(relevance.passed_on(source)) == {"s"}


def notebook(*cells: object, **metadata: object) -> bytes:
    import json

    return json.dumps(
        {
            "cells": [{"cell_type": "code", "source": cell} for cell in cells],
            "metadata": metadata,
            "nbformat": 4,
        },
        indent=1,
    ).encode()


def test_notebook_lines_are_lines_of_the_file():
    data = notebook(["import torch\n", "x = torch.load('ü')"], ["torch.load(p)"])
    found = extract(data)
    assert found is not None
    shown = data.decode().split("\n")
    for number, line in enumerate(found.source.decode().splitlines(), start=1):
        if "load" in line:
            assert "torch.load(" in shown[found.lines[number - 1] - 1]


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("%matplotlib inline", "pass"),
        ("!ls", "pass"),
        ("x = !ls", "x = None"),
        ("y = %env HOME", "y = None"),
        ("torch.load?", "pass"),
        ("?torch", "pass"),
        ("%time torch.load(p)", "torch.load(p)"),
        ("%timeit -n 3 torch.load(p)", "torch.load(p)"),
        ("%%time torch.load(p)\nf()", "torch.load(p)\nf()"),
        ("%%bash\ntorch.load(p)", "\n"),
        ("a = 7 % b\nc %d", "a = 7 % b\nc %d"),
        ("if x:\n    !ls\n    f()", "if x:\n    pass\n    f()"),
        ("await f()", "await f()"),
        ("!tts --text x \\\n --out y\nf()", "pass\n\nf()"),
        ("%pip install a \\\n b \\\n c\nf()", "pass\n\n\nf()"),
        ("%env X\na = 1 + \\\n 2", "pass\na = 1 + \\\n 2"),
        ("pip install torch\nimport torch", "pass\nimport torch"),
        ("if x:\n    cd ..\nls - 1", "if x:\n    pass\nls - 1"),
        ("%%wandb\n!ls\nf()", "\npass\nf()"),
        ("%%python3\nf()", "\nf()"),
        ("%%writefile notes.txt\nno python", ""),
        ("%%sql\nselect", ""),
    ],
)
def test_what_is_not_python_is_left_out_of_a_cell(cell: str, python: str):
    found = extract(notebook(cell))
    assert found is not None
    assert found.source.decode().rstrip("\n") == python.rstrip("\n")


def test_notebook_in_another_language_is_none():
    assert extract(notebook("x <- 1", language_info={"name": "R"})) is None


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"cells": 1}', b"\xff"])
def test_what_is_no_notebook_is_an_error(data: bytes):
    with pytest.raises(NotebookError):
        extract(data)


def test_cell_that_is_no_python_is_named_and_the_others_are_read():
    cells = [["import torch\n"], ["print 'old'\n"], ["torch.load('m')\n"]]
    document = {"cells": [{"cell_type": "code", "source": source} for source in cells]}
    found = extract(json.dumps(document, indent=1).encode())
    assert found is not None
    assert found.source == b"import torch\ntorch.load('m')\n"
    assert len(found.broken) == 1
    assert found.lines[0] < found.broken[0] < found.lines[1]


def test_code_behind_a_magic_that_cannot_be_read_is_not_passed_over():
    found = extract(notebook("%timeit --loops=3 torch.load(p)"))
    assert found is not None
    assert found.broken


def test_modules_of_one_name_do_not_hide_each_other():
    sources = {
        "a/tools.py": b"from torch import load as fetch\n",
        "b/tools.py": b"from json import load as fetch\n",
        "a/case.py": b"from .tools import fetch\nfetch('m')\n",
        "b/case.py": b"from .tools import fetch\nfetch('m')\n",
    }
    for order in (list(sources), list(reversed(sources))):
        seen = scan.scan({name: sources[name] for name in order}, order, "explicit").seen
        assert [name for name in sorted(seen) if seen[name].places] == ["a/case.py"]


@pytest.mark.parametrize(
    "text",
    [
        "from lib.deep import reader\nreader.read(p)\n",
        "from lib.deep import (\n    reader,\n)\nreader.read(p)\n",
        "from \\\n  lib.deep import reader\nreader.read(p)\n",
        "from lib.deep.reader import read as f\nf(p)\n",
        "import lib.deep.reader as r\nr.read(p)\n",
        "import lib\nlib.deep.reader.read(p)\n",
        "from deep import reader\nreader.read(p)\n",
        "import sys, reader\nreader.read(p)\n",
        "from .deep import reader\nreader.read(p)\n",
        "from .deep.reader import read\nread(p)\n",
        "from ..lib.deep import reader\nreader.read(p)\n",
        "import importlib\nimportlib.import_module('lib.deep.reader').read(p)\n",
        "exec('p = 1\\nimport reader\\nreader.read(p)')\n",
    ],
)
def test_other_file_is_followed_however_it_is_imported(text: str):
    sources = {
        "lib/case.py": text.encode(),
        "lib/deep/reader.py": b"from torch import load as read",
    }
    result = scan.scan(sources, ["lib/case.py"], "explicit")
    assert len(result.seen["lib/case.py"].places) == 1


def test_other_file_is_followed_under_any_name():
    sources = {"case.py": "import l\u00e4ser\nl\u00e4ser.read(p)\n".encode()}
    sources["l\u00e4ser.py"] = b"from torch import load as read\n"
    result = scan.scan(sources, ["case.py"], "explicit")
    assert len(result.seen["case.py"].places) == 1


def test_only_files_that_may_be_imported_are_followed(monkeypatch):
    followed: list[str] = []
    analyse = project.Project._analyse
    monkeypatch.setattr(
        project.Project, "_analyse", lambda self, path: (followed.append(path), analyse(self, path))
    )
    reader = b"from torch import load\n"
    sources = {
        "src/case.py": b"import torch\nimport json\ntorch.load(json.loads(p), values, 'loads')\n",
        "lib/values.py": reader,
        "lib/loads/values.py": reader,
        "lib/json/reader.py": reader,
        "src/json.py": reader,
    }
    scan.scan(sources, ["src/case.py"], "explicit")
    # A string may be the name of a module that is imported.
    assert followed == ["src/case.py", "lib/loads/values.py", "src/json.py"]
