"""The quick paths import only what they need."""

import json
import subprocess
import sys

import pytest
from builders import ROOT

_LIST = """
import json, sys
from tiergate.cli import run
before = sys.stdout
sys.stdout = sys.stderr
code = run(sys.argv[1:])
assert code == 0, code
print(json.dumps(sorted(sys.modules)), file=before)
"""

# Third-party packages that the quick paths may pay for.
PACKAGES = {"click", "msgspec", "yaml", "_yaml", "typing_extensions"}

SLOW = {
    "asyncio", "concurrent", "http", "jinja2", "jsonschema", "multiprocessing", "numpy", "pytest",
    "rich", "semgrep", "sqlite3", "ssl", "torch", "unittest", "xml",
}  # fmt: skip

# What judging needs, and planning does not.
JUDGING = {
    "tiergate.base", "tiergate.commands.decide", "tiergate.commands.run", "tiergate.decide",
    "tiergate.judge", "tiergate.leg", "tiergate.runner",
}  # fmt: skip


def imported(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _LIST, *words],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return set(json.loads(done.stdout))


def bare() -> set[str]:
    """Return what the interpreter imports by itself: editable installs have hooks."""
    done = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def third_party(modules: set[str]) -> set[str]:
    names = {module.split(".")[0] for module in modules - bare()}
    known = sys.stdlib_module_names | {"tiergate", "cython_runtime"}
    return {name for name in names - known if not name.startswith("_cython")}


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] == "tiergate"}


def test_help_imports_click_and_no_command():
    modules = imported("--help")
    assert ours(modules) == {"tiergate", "tiergate.cli", "tiergate.errors"}
    assert third_party(modules) == {"click"}


@pytest.mark.parametrize(
    "words", [("--help",), ("plan",), ("schema",), ("run", "--help"), ("report", "--help")]
)
def test_the_quick_paths_import_nothing_slow(words):
    modules = imported(*words)
    assert third_party(modules) <= PACKAGES
    assert not {module.split(".")[0] for module in modules - bare()} & SLOW


def test_planning_does_not_import_what_judges():
    modules = imported("plan")
    assert "tiergate.plan" in modules
    assert not modules & JUDGING
    assert not any(module.startswith("tiergate.render") for module in modules)


def test_the_help_of_a_command_does_not_import_what_it_does():
    modules = imported("run", "--help")
    assert ours(modules) <= {
        "tiergate", "tiergate.cli", "tiergate.commands", "tiergate.commands.options",
        "tiergate.commands.run", "tiergate.errors",
    }  # fmt: skip
