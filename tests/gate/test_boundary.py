"""The judge and the judged do not import each other; the probe runs anywhere."""

import ast
import sys
from pathlib import Path

import pytest
from builders import ROOT

SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROBE = sorted((ROOT / "scripts" / "tiergate" / "probe").glob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, wherever in it; relative ones left out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_files_to_look_at():
    assert {"scripts/tiergate/decide.py", "scripts/tiergate/probe/start.py"} <= {
        named(path) for path in SCRIPTS
    }
    assert "src/cross_phase/utils/__init__.py" in {named(path) for path in SOURCES}
    assert len(PROBE) > 5


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_the_judge_never_imports_the_judged(path):
    assert not imports(path) & {"cross_phase", "phase3_quietstar", "src"}


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_the_judged_never_imports_the_judge(path):
    assert not imports(path) & {"tiergate", "scripts"}


@pytest.mark.parametrize("path", PROBE, ids=named)
def test_the_probe_imports_nothing_that_must_be_installed(path):
    allowed = set(sys.stdlib_module_names) | {"pytest", "_pytest"}
    if path.name == "cuda.py":
        allowed.add("torch")
    assert imports(path) <= allowed


@pytest.mark.parametrize("path", PROBE, ids=named)
def test_the_probe_is_written_for_python_3_9(path):
    ast.parse(path.read_bytes(), str(path), feature_version=(3, 9))


def test_only_the_judges_own_package_is_imported_from_the_probe_never_the_other_way():
    for path in PROBE:
        assert "tiergate" not in imports(path), named(path)
