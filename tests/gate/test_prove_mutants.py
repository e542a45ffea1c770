"""Counter-examples change what they say they change, and nothing else."""

from __future__ import annotations

import ast
import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import parse, problems
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate import checkers
from tiergate.errors import UserError
from tiergate.prove import copies, kinds, scans
from tiergate.prove.counter_examples import (
    CounterExample,
    CounterExampleError,
    Tree,
    from_entry,
)
from tiergate.prove.declared import ProofEntry
from tiergate.prove.python_source import FoundTest, Source
from tiergate.repository import Repository
from tiergate.scanning.rules import known_rules
from tiergate.spec import Spec
from tiergate.verdict import Evidence, Failure, Verdict

MODULE = '''\
"""Tests."""

from __future__ import annotations

import unittest

import pytest

grüße = "ü"


@pytest.mark.parametrize("x", [1, 2])
def test_decorated(x):
    """Its docstring."""
    assert x


def test_one_line(): assert grüße; assert True


async def test_coroutine():
    if grüße:
        pass


class TestSuite:
    def test_method(self):
        @pytest.mark.usefixtures("a")
        def inner():
            pass

        assert inner

    def helper(self):
        pass


class TestAlone:
    def test_only(self):
        assert True


class Prices(unittest.TestCase):
    def test_unittest(self):
        assert True


class Helper:
    def test_not_collected(self):
        assert False
'''
NAMES = [
    "test_decorated",
    "test_one_line",
    "test_coroutine",
    "TestSuite::test_method",
    "TestAlone::test_only",
]


def find(source: Source, name: str) -> FoundTest:
    return next(test for test in source.tests() if test.name == name)


def namespace(data: bytes) -> dict[str, Any]:
    """Execute a module; its own source must still be Python."""
    names: dict[str, Any] = {}
    exec(compile(data, "module", "exec"), names)
    return names


def call(data: bytes, name: str) -> Any:
    names = namespace(data)
    owner, _, method = name.rpartition("::")
    function = getattr(names[owner](), method) if owner else names[name]
    result = function(1) if name == "test_decorated" else function()
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


def test_tests_are_found_as_pytest_finds_them():
    assert [test.name for test in Source(MODULE.encode()).tests()] == [
        *NAMES,
        "Prices::test_unittest",
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_statement_at_the_beginning_of_a_test_comes_before_all_else(name: str, newline: str):
    source = Source(MODULE.replace("\n", newline).encode())
    data = source.beginning(find(source, name), "raise KeyError('first')")
    with pytest.raises(KeyError, match="first"):
        call(data, name)
    for other in NAMES:
        if other != name:
            call(data, other)


@pytest.mark.parametrize("name", NAMES)
def test_deleted_test_is_gone_and_the_others_are_as_they_were(name: str):
    source = Source(MODULE.encode())
    left = Source(source.without(find(source, name)))
    assert name not in [test.name for test in left.tests()]
    for test in left.tests():
        assert ast.dump(test.node) == ast.dump(find(source, test.name).node)


@pytest.mark.parametrize("name", NAMES)
def test_decorator_is_the_outermost(name: str):
    source = Source(MODULE.encode())
    changed = Source(source.decorated(find(source, name), "@pytest.mark.skip"))
    assert ast.unparse(find(changed, name).node.decorator_list[0]) == "pytest.mark.skip"
    assert len(changed.tests()) == len(source.tests())


@pytest.mark.parametrize("name", NAMES)
def test_renamed_test_is_no_test_any_more(name: str):
    source = Source(MODULE.encode())
    test = find(source, name)
    changed = Source(source.renamed(test, f"no_{test.node.name}"))
    assert name not in [found.name for found in changed.tests()]
    assert len(changed.tests()) == len(source.tests()) - 1


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("import os\n", "import os"),
        ('"""Doc."""\nimport os\n', "import os"),
        ('"""Doc."""; import os\n', "import os"),
        ('"""Doc."""\nfrom __future__ import annotations\n@str\ndef a(): pass\n', "def a"),
        ('"""Doc."""\n', ""),
        ("", ""),
    ],
)
def test_statement_at_the_start_keeps_docstring_and_future_imports_first(text: str, last: str):
    changed = Source(text.encode()).starting("started = 1")
    tree = ast.parse(changed)
    assert ast.get_docstring(tree) == ast.get_docstring(ast.parse(text))
    assert (
        ast.unparse(tree).index("started = 1") < (ast.unparse(tree) + last).index(last or " ")
        or not last
    )
    compile(changed, "module", "exec")


def test_encoding_byte_order_mark_and_line_ends_are_kept():
    latin = "# -*- coding: latin-1 -*-\r\ndef test_a():\r\n    assert 'ü'\r\n".encode("latin-1")
    changed = Source(latin).beginning(Source(latin).tests()[0], "pass")
    assert changed.decode("latin-1").count("\r\n") == changed.count(b"\n") == 4
    assert "ü" in changed.decode("latin-1")
    marked = b"\xef\xbb\xbfdef test_a():\n\tassert 1\n"
    changed = Source(marked).appended("x = 1\n")
    assert changed == marked + b"x = 1\n"


def test_form_feed_is_no_line_end():
    source = Source(b"\x0cdef test_a():\n    x = '\x0c'\n    assert x\n\ndef test_b(): pass\n")
    data = source.beginning(find(source, "test_b"), "raise KeyError")
    with pytest.raises(KeyError):
        call(data, "test_b")
    call(data, "test_a")


_body = st.sampled_from(
    ["    assert 1\n", "    '''doc\n    more'''\n    x = [\n1]\n", "\tif 1:\n\t\tpass\n", None]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_body, min_size=1, max_size=5), st.data(), st.sampled_from(["\n", "\r\n"]))
def test_any_edit_leaves_python_and_the_other_tests(
    bodies: list[str | None], data: Any, newline: str
):
    functions = [
        f"def test_{i}():" + (f" # ü\n{body}" if body else " pass\n")
        for i, body in enumerate(bodies)
    ]
    source = Source("".join(functions).replace("\n", newline).encode())
    chosen = data.draw(st.sampled_from(source.tests()))
    edit: Callable[[], bytes] = data.draw(
        st.sampled_from(
            [
                lambda: source.without(chosen),
                lambda: source.renamed(chosen, "no_test"),
                lambda: source.beginning(chosen, "import os"),
                lambda: source.decorated(chosen, "@staticmethod"),
            ]
        )
    )
    changed = Source(edit())
    others = {t.name: ast.dump(t.node) for t in source.tests() if t.name != chosen.name}
    kept = {t.name: ast.dump(t.node) for t in changed.tests() if t.name != chosen.name}
    assert kept == others
    assert edit().count(b"\n") == edit().count(newline.encode())


def repository(root: Path, **files: str) -> Repository:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Repository(root)


GATE = b"""\
gate: T
pythonpath: [src]
criteria:
  - {id: I, uses: imports, with: {module: shop, names: [total, prices]}}
  - {id: P, uses: pytest, with: {paths: [tests]}, expect: {passed: 2}}
  - {id: F, uses: pytest, with: {paths: [tests], collect-only: true}, expect: {collected: ">=1"}}
  - {id: C, uses: collection, with: {paths: [tests]}, expect: {collected: ">=2"}}
  - {id: S, uses: semgrep, with: {rules: [unsafe-torch-load], paths: [src]}}
  - {id: M, uses: checkpoints}
  - {id: X, uses: command, with: {run: [x]}}
"""
FILES = {
    "src/shop/__init__.py": "from shop.prices import total\n",
    "src/shop/prices.py": "def total(x):\n    return sum(x)\n",
    "tests/test_shop.py": "def test_a():\n    pass\n\n\ndef test_b():\n    pass\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = repository(tmp_path / "repository", **FILES)
    return Tree(made.root, tuple(made.files), parse(GATE))


def generic(tree: Tree, criterion: str) -> dict[str, CounterExample]:
    return {
        example.name: example for example in kinds.generic(tree.spec.criterion(criterion), tree)
    }


def test_every_kind_has_the_counter_examples_that_the_documentation_lists(tree: Tree):
    found = {c.id: set(generic(tree, c.id)) for c in tree.spec.criteria}
    assert found == {
        "I": {"name-removed", "module-raises", "init-removed"},
        "P": {
            "test-deleted",
            "test-deselected",
            "module-skipped",
            "syntax-error",
            "test-fails",
            "test-skipped",
            "test-xfailed",
            "test-exits",
            "exit-status-set",
        },
        "F": {"test-deleted", "test-deselected", "module-skipped", "syntax-error", "test-renamed"},
        "C": {
            "import-error-added",
            "test-file-ignored",
            "test-deselected",
            "syntax-error",
            "suite-emptied",
        },
        "S": {
            "call-added",
            "call-suppressed",
            "call-under-alias",
            "file-in-semgrepignore",
            "file-added",
            "tests-folder",
            "vendored",
            "syntax-error",
            "notebook-added",
        },
        "M": {
            "call-added",
            "archive-added",
            "mislabelled",
            "compressed",
            "ignored-by-name",
            "truncated",
            "no-model",
            "pointer",
        },
        "X": set(),
    }
    documentation = (Path(__file__).parents[2] / "docs" / "prove.md").read_text()
    for names in found.values():
        for name in names:
            assert f"`{name}`" in documentation


def test_every_counter_example_changes_a_copy(tree: Tree, tmp_path: Path):
    with copies.copies(Repository(tree.root)) as made:
        for criterion in tree.spec.criteria:
            for example in kinds.generic(criterion, tree):
                with made.copy() as root:
                    copies.apply(root, example.edits, example.patch)
                assert not root.exists()


@pytest.mark.parametrize("rule", sorted(known_rules()))
def test_code_that_a_rule_must_find_can_be_added_to_any_file(tree: Tree, rule: str):
    gate = GATE.replace(b"rules: [unsafe-torch-load]", f"rules: [{rule}]".encode())
    for example in kinds.generic(parse(gate).criterion("S"), tree):
        for file, content in example.edits.items():
            if file.endswith(".py") and example.status == "fail":
                assert content is not None
                compile(content, file, "exec")
                assert content.count(b"# nosemgrep") >= (example.name == "call-suppressed")
    assert set(scans.ALIASES) <= known_rules()


def test_each_rule_of_a_group_is_tried(tree: Tree):
    gate = GATE.replace(b"rules: [unsafe-torch-load]", b"rules: [unsafe-deserialization]")
    examples = kinds.generic(parse(gate).criterion("S"), tree)
    rules = [example.named[0] for example in examples if example.name == "call-added"]
    assert rules == sorted(name for name in known_rules() if name.startswith("unsafe-des"))
    assert len(rules) > 3


@pytest.mark.parametrize(
    ("text", "name", "gone"),
    [
        ("total = 1\n", "total", set()),
        ("def __getattr__(name):\n    return name\n", "total", set()),
        ("from shop import prices\n", "prices", {"src/shop/prices.py"}),
    ],
)
def test_name_is_taken_away_however_it_comes_about(
    tmp_path: Path, text: str, name: str, gone: set[str]
):
    made = repository(
        tmp_path, **{"src/shop/__init__.py": text, "src/shop/prices.py": "total = 1\n"}
    )
    tree = Tree(made.root, tuple(made.files), parse(GATE))
    example = next(
        example
        for example in kinds.generic(tree.spec.criterion("I"), tree)
        if example.named == (f"shop.{name}",)
    )
    assert {path for path, content in example.edits.items() if content is None} == gone
    content = example.edits["src/shop/__init__.py"]
    assert content is not None
    if not gone:
        names = namespace(content)
        assert name not in names
        with pytest.raises(AttributeError):
            names["__getattr__"](name)


def test_module_that_is_a_file_is_removed_itself(tmp_path: Path):
    made = repository(tmp_path, **{"src/shop.py": "total = prices = 1\n"})
    tree = Tree(made.root, tuple(made.files), parse(GATE))
    assert generic(tree, "I")["module-removed"].edits == {"src/shop.py": None}


def test_what_the_expectation_bears_does_not_apply(tree: Tree):
    criterion = tree.spec.criterion("F")
    outcomes = checkers.get("pytest").outcomes(criterion.parameters)
    found = generic(tree, "F")
    applies = {n for n, e in found.items() if e.applies(criterion, outcomes, {"collected": 2})}
    assert set(found) - applies == {"test-deleted", "test-renamed"}
    applies = {n for n, e in found.items() if e.applies(criterion, outcomes, {"collected": 1})}
    assert applies == set(found)


def test_node_ids_narrow_the_choice_of_a_test(tree: Tree):
    gate = GATE.replace(
        b"paths: [tests]}, expect: {passed: 2}",
        b"paths: ['tests/test_shop.py::test_b[x]']}, expect: {passed: 2}",
    )
    narrowed = Tree(tree.root, tree.files, parse(gate))
    assert generic(narrowed, "P")["test-fails"].named == ("tests/test_shop.py::test_b",)


def test_conftest_that_is_there_is_kept(tmp_path: Path):
    text = "import os\n\n\ndef pytest_collection_modifyitems(items):\n    items.sort()\n"
    made = repository(tmp_path, **FILES, **{"tests/conftest.py": text})
    tree = Tree(made.root, tuple(made.files), parse(GATE))
    for example in [generic(tree, "P")["test-deselected"], generic(tree, "C")["test-file-ignored"]]:
        content = example.edits["tests/conftest.py"]
        assert content is not None
        assert content.startswith(text.encode())


def verdict(**values: Any) -> Verdict:
    evidence = {"observed": {"passed": 1, "failed": 1}, "mismatches": ["failed"]}
    evidence |= values.pop("evidence", {})
    return Verdict(
        "P",
        "cpu",
        **{"status": "fail", "summary": "1 failed"} | values,
        evidence=Evidence(**evidence),
    )


@pytest.mark.parametrize(
    ("example", "found", "objection"),
    [
        ({}, {}, ""),
        ({}, {"status": "pass"}, "the verdict is pass, not fail"),
        ({}, {"status": "error"}, "the verdict is error, not fail"),
        ({"status": "error"}, {}, "the verdict is fail, not error"),
        ({"named": ("test_a",)}, {}, "the evidence does not name test_a"),
        ({"named": ("test_a",)}, {"evidence": {"running": "test_a"}}, ""),
        ({"named": ("tests/a", "b")}, {"evidence": {"failures": [Failure("tests/a", "x")]}}, ""),
        ({"named": ("tests/a", "tests/b")}, {}, "does not name tests/a or tests/b"),
        ({"named": ("printed",)}, {"evidence": {"output": "printed"}}, "does not name printed"),
        ({}, {"evidence": {"mismatches": []}}, "the verdict has no evidence"),
    ],
)
def test_only_the_right_verdict_with_evidence_counts(
    example: dict[str, Any], found: dict[str, Any], objection: str
):
    outcomes = checkers.get("pytest").outcomes(parse(GATE).criterion("P").parameters)
    said = CounterExample("x", "x", **example).objection(verdict(**found), outcomes)
    assert said if objection else not said
    assert objection in said


def entry_of(declared: str) -> ProofEntry:
    criterion = "  - {id: X, uses: pytest, with: {paths: [t]}, expect: {passed: 1}, proofs: "
    (entry,) = parse(f"gate: T\ncriteria:\n{criterion}[{declared}]}}\n").criterion("X").proofs
    return entry


@pytest.mark.parametrize(
    ("declared", "changed"),
    [
        (
            "{name: a, replace: {file: src/shop/prices.py, old: sum(x), new: '0'}}",
            {"src/shop/prices.py": "def total(x):\n    return 0\n"},
        ),
        (
            "{name: a, append: {file: src/shop/__init__.py, text: x}}",
            {"src/shop/__init__.py": "from shop.prices import total\nx"},
        ),
        ("{name: a, create: {file: src/new.py, text: x}}", {"src/new.py": "x"}),
        ("{name: a, delete: src/shop/prices.py}", {"src/shop/prices.py": None}),
    ],
)
def test_declared_change_is_made_to_the_byte(
    tree: Tree, declared: str, changed: dict[str, str | None]
):
    expected = {name: text if text is None else text.encode() for name, text in changed.items()}
    assert from_entry(entry_of(declared), tree).edits == expected


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{name: a, replace: {file: tests/test_shop.py, old: pass, new: x}}", "occurs 2 times"),
        ("{name: a, replace: {file: tests/test_shop.py, old: gone, new: x}}", "occurs 0 times"),
        ("{name: a, replace: {file: gone.py, old: x, new: y}}", "gone.py is no file"),
        ("{name: a, append: {file: gone.py, text: y}}", "gone.py is no file"),
        ("{name: a, create: {file: tests/test_shop.py, text: y}}", "is there already"),
        ("{name: a, delete: gone.py}", "gone.py is no file"),
        ("{name: a, patch: gone.patch}", "gone.patch is no file"),
    ],
)
def test_declared_change_that_does_not_fit_says_why(tree: Tree, declared: str, message: str):
    with pytest.raises(CounterExampleError, match=message):
        from_entry(entry_of(declared), tree)


@pytest.mark.parametrize(
    ("proof", "where"),
    [
        ("{name: a}", "5:16: say one of replace, append, create, delete, patch; none is given"),
        (
            "{name: a, delete: x, patch: y}",
            "5:37: say one of replace, append, create, delete, patch; not delete and patch",
        ),
        ("{name: a, replace: {file: a, old: x, new: x}}", "5:28: old and new are the same"),
        (
            "{name: a, delete: x, expect: {pased: 1}}",
            "5:38: pased: unknown outcome 'pased' (did you mean 'passed'?)",
        ),
        ("{name: a, delete: x, expect: {passed: many}}", "5:38: passed: 'many' is neither"),
        (
            "{name: a, delete: x, expect: {passed: '>=base'}}",
            "says nothing about a counter-example",
        ),
        ("{name: a, delete: x, status: error, expect: {failed: 1}}", "an error has no outcomes"),
        ("{name: a, delete: x, status: fails}", "unknown value 'fails' (did you mean 'fail'?)"),
        ("{name: a, delete: ../x}", "outside the repository"),
        ("{name: a, dleete: x}", "unknown key 'dleete' (did you mean 'delete'?)"),
        ("{name: a, delete: x}, {name: a, delete: y}", "duplicate name 'a'"),
    ],
)
def test_wrong_declaration_is_refused_with_its_place(proof: str, where: str):
    criterion = "{id: A, uses: pytest, with: {paths: [t]}, expect: {passed: 1},"
    text = f"gate: T\ncriteria:\n- {criterion}\n   proofs: [\n        {proof}]}}\n"
    found = "\n".join(problems(text))
    assert where in found


def test_copy_has_what_belongs_to_the_repository_and_nothing_else(tmp_path: Path):
    root = tmp_path / "repository"
    made = repository(root, **FILES)
    (root / "link.py").symlink_to(root / "src" / "shop" / "prices.py")
    (root / "dangling").symlink_to("nowhere")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    made = Repository(root)
    with copies.copies(made) as folder:
        assert folder.untouched.files == made.files
        assert folder.untouched.is_git
        assert os.access(folder.untouched.root / "run.sh", os.X_OK)
        with folder.copy() as copy:
            assert root not in (copy / "link.py").resolve().parents
            (copy / "link.py").write_text("")
            assert (root / "src/shop/prices.py").read_text() == FILES["src/shop/prices.py"]
            assert copies.digest(copy) != copies.digest(folder.untouched.root)
        assert root not in folder.untouched.root.parents
    assert not folder.untouched.root.exists()


def test_change_that_changes_nothing_is_an_error(tree: Tree):
    name = "tests/test_shop.py"
    with copies.copies(Repository(tree.root)) as made, made.copy() as root:
        with pytest.raises(CounterExampleError, match="it changes nothing"):
            copies.apply(root, {name: tree.read(name)}, b"")
        copies.apply(root, {name: tree.read(name) + b"\n"}, b"")


def test_patch_is_applied_or_refused(tree: Tree):
    patch = (
        b"--- a/src/shop/prices.py\n+++ b/src/shop/prices.py\n@@ -1,2 +1,2 @@\n"
        b" def total(x):\n-    return sum(x)\n+    return 0\n"
    )
    with copies.copies(Repository(tree.root)) as made, made.copy() as root:
        copies.apply(root, {}, patch)
        assert (root / "src/shop/prices.py").read_text().endswith("return 0\n")
        with pytest.raises(CounterExampleError, match="the patch does not apply"):
            copies.apply(root, {}, patch)


def test_change_behind_a_link_is_refused(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    made = repository(tmp_path / "repository", **FILES)
    (made.root / "out").symlink_to(outside)
    with (
        copies.copies(Repository(made.root)) as folder,
        folder.copy() as root,
        pytest.raises(CounterExampleError, match="behind, a symbolic link"),
    ):
        copies.apply(root, {"out/file": b"x"}, b"")
    assert list(outside.iterdir()) == []


def test_copies_never_lie_in_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = repository(tmp_path, **FILES)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with pytest.raises(UserError, match="set TMPDIR to another one"), copies.copies(made):
        pass
    assert list((tmp_path / "tmp").iterdir()) == []


def test_folders_of_killed_runs_are_removed_and_those_of_running_ones_are_not(tmp_path: Path):
    left, running, foreign = (
        tmp_path / name for name in ("tiergate-prove-a", "tiergate-prove-b", "other")
    )
    for folder in (left, running, foreign):
        (folder / "copy").mkdir(parents=True)
        (folder / "lock").touch()
    (left / "copy").chmod(0)
    with (running / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        copies.remove_stale(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "tiergate-prove-b"]


def test_tree_finds_files_by_path_however_it_is_written(tree: Tree):
    below = [name for name in tree.files if name.startswith("src/")]
    for path in ("src", "./src", "src/"):
        assert list(tree.under(path)) == below
    assert list(tree.under(".")) == list(tree.files)
    assert list(tree.under("sr")) == []


def test_spec_keeps_declared_counter_examples():
    found: Spec = parse(
        GATE.replace(
            b"expect: {passed: 2}}",
            b"expect: {passed: 2}, proofs: [{name: a, delete: x, expect: {failed: 1}}]}",
        )
    )
    (entry,) = found.criterion("P").proofs
    assert (entry.name, entry.delete, entry.expect) == ("a", "x", {"failed": 1})
