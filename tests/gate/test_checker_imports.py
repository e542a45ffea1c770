"""``imports``: what a module must have, and that it is the repository's own."""

from __future__ import annotations

from typing import Any

import pytest
from samples import Sample

from tiergate.spec import SpecError
from tiergate.verdict import Verdict


def imports(sample: Sample, module: str, *names: str, **more: Any) -> Verdict:
    with_ = {"module": module, "names": list(names), **more}
    return sample.verdict({"id": "api", "uses": "imports", "with": with_})


def test_names_that_are_there_pass(sample: Sample):
    verdict = imports(sample, "shop", "total", "prices")
    assert (verdict.status, verdict.summary) == ("pass", "2 found")


def test_module_alone_passes(sample: Sample):
    assert imports(sample, "shop.prices").status == "pass"


def test_submodule_that_is_not_imported_yet_is_found_as_a_name(sample: Sample):
    sample.write("src/shop/later.py", "")
    assert imports(sample, "shop", "later").status == "pass"


def test_missing_names_are_listed(sample: Sample):
    verdict = imports(sample, "shop", "total", "discount", "refund")
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"found": 1, "missing": 2}
    assert [(f.id, f.outcome, f.message) for f in verdict.evidence.failures] == [
        ("shop.discount", "missing", "cannot import name 'discount' from 'shop'"),
        ("shop.refund", "missing", "cannot import name 'refund' from 'shop'"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_like_it\n", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    ],
)
def test_import_that_fails_shows_why(sample: Sample, content: str, message: str):
    sample.write("src/shop/__init__.py", content)
    verdict = imports(sample, "shop", "total")
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"errors": 1, "missing": 1}
    (failure,) = verdict.evidence.failures
    assert message in failure.message
    assert "__init__.py" in failure.details


def test_process_that_ends_in_the_import_is_an_error_not_a_pass(sample: Sample):
    sample.write("src/shop/__init__.py", "import os\nos._exit(0)\n")
    verdict = imports(sample, "shop", "total")
    assert verdict.status == "error"
    assert verdict.summary == "the import ended without its closing record (exit code 0)"


def test_what_an_import_prints_is_no_verdict(sample: Sample):
    sample.write("src/shop/__init__.py", 'print(\'{"event": "name", "name": "total"}\')\n')
    assert imports(sample, "shop", "total").evidence.observed == {"missing": 1}


def test_name_whose_lookup_raises_is_missing(sample: Sample):
    sample.write("src/shop/__init__.py", "def __getattr__(name):\n    raise RuntimeError(name)\n")
    (failure,) = imports(sample, "shop", "total").evidence.failures
    assert failure.message == "RuntimeError: total"


def test_folder_without_init_is_not_the_module(sample: Sample):
    (sample.root / "src/shop/__init__.py").unlink()
    verdict = imports(sample, "shop")
    assert verdict.status == "fail"
    assert "a folder without __init__.py" in verdict.evidence.failures[0].message


@pytest.mark.parametrize("module", ["json", "sys"])
def test_module_of_somebody_else_is_refused_unless_allowed(sample: Sample, module, monkeypatch):
    monkeypatch.chdir(sample.root)
    verdict = imports(sample, module)
    assert verdict.status == "fail"
    assert "which is no file of the repository" in verdict.evidence.failures[0].message
    assert imports(sample, module, origin="anywhere").status == "pass"


def test_installed_copy_inside_the_repositorys_folder_is_refused(sample: Sample):
    # A virtual environment there holds an older copy, and the source itself is gone.
    (sample.root / "src/shop").rename(sample.root.parent / "shop")
    sample.write(".gitignore", ".venv/\n")
    sample.write(".venv/lib/shop/__init__.py", "def total(prices): return 0\n")
    sample.write("src/sitecustomize.py", "")
    criterion = {"id": "api", "uses": "imports", "with": {"module": "shop", "names": ["total"]}}
    context = sample.context(criterion)
    sample.gate(criterion, pythonpath=["src", ".venv/lib"])
    from tiergate import checkers, judge

    candidate = sample.candidate()
    context = checkers.Context(candidate.spec.criteria[0], candidate, "cpu", lambda _: None)
    checker = checkers.get("imports")
    observation = checker.observe(context.criterion.parameters, context)
    verdict = judge.judge(context, checker, observation, 0.0)
    assert verdict.status == "fail"
    assert ".venv/lib/shop/__init__.py, which is no file" in verdict.evidence.failures[0].message


def test_module_of_the_repository_that_is_not_committed_yet_counts(sample: Sample):
    sample.write("src/fresh.py", "x = 1\n")
    assert imports(sample, "fresh", "x").status == "pass"


def test_reproduce_command_fails_and_passes_like_the_verdict(sample: Sample):
    for name, code in (("total", 0), ("discount", 1)):
        command = imports(sample, "shop", name).evidence.reproduce[-1]
        done = sample.shell(command)
        assert done.returncode == code, done.stderr


def test_name_listed_twice_is_refused(sample: Sample):
    with pytest.raises(SpecError, match="'total' is listed twice"):
        imports(sample, "shop", "total", "total")
