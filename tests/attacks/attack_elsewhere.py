"""Attacks that bring something else into a session: other tests, other plugins, other packages."""

from __future__ import annotations

from attack_case import Attack, Control
from attack_collection import CONFIGURATION, HELPER, OPTIONS
from attack_outcomes import ASSERTION, CONFTEST, MARKED, PRICES, RAISED, TOTAL
from attack_process import UNCLOSED
from attack_sample import BROKEN, FILES, Changes, code

DELETED: Changes = {**BROKEN, PRICES: (TOTAL + "\n" + ASSERTION, "")}
DECOY = "".join(f"def test_{name}():\n    assert 1 < 2\n\n\n" for name in "abc")
ONE = (
    "  - id: some\n",
    code("""
        #
          - id: one
            uses: pytest
            with: {paths: ["tests/test_prices.py::test_total"]}
            expect: {passed: 1}
          - id: some
    """),
)
METADATA = "Metadata-Version: 2.1\nName: quick\nVersion: 1.0\n"
ENTRY_POINTS = "[pytest11]\nquick = quick\n"
TWIN = "differ only in case"


def _installed(plugin: str) -> Changes:
    """A plugin beside the package, with what makes pytest load it by itself."""
    return {
        "src/quick.py": code(plugin),
        "src/quick-1.0.dist-info/METADATA": METADATA,
        "src/quick-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
    }


NODE_ID = Control("a criterion on one test", {"gate.yaml": ONE})
PARAMETRIZED = Control(
    "a criterion on one test with parameters",
    {
        "gate.yaml": (ONE[0], ONE[1].replace("passed: 1", "passed: 2")),
        PRICES: (TOTAL, '@pytest.mark.parametrize("n", [1, 2])\ndef test_total(n):'),
    },
)
FIXTURE_PLUGIN = Control(
    "a plugin of the repository with an entry point, which gives a fixture",
    _installed("""
        import pytest


        @pytest.fixture(autouse=True)
        def prices():
            return [1, 2]
    """),
)
PACKAGES = Control(
    "folders of tests that are packages", {"tests/__init__.py": "", "tests/more/__init__.py": ""}
)

ATTACKS = [
    Attack(
        "paths-added",
        "a conftest has tests of another file collected, in the place of a deleted one",
        "tests",
        {
            **DELETED,
            CONFTEST: code("""
                def pytest_configure(config):
                    config.args.append("tests/test_import.py")
            """),
        },
        "tests/test_import.py::test_the_package_imports",
        RAISED,
    ),
    Attack(
        "paths-swapped",
        "a conftest has as many tests of another file collected",
        "tests",
        {
            **BROKEN,
            "tests/decoy.py": DECOY,
            CONFTEST: code("""
                def pytest_configure(config):
                    config.args[:] = ["tests/decoy.py"]
            """),
        },
        "collected from outside of tests/test_prices.py",
        RAISED,
    ),
    Attack(
        "test-swapped",
        "the criterion names one test, and a conftest has another one collected",
        "one",
        {
            **BROKEN,
            "gate.yaml": ONE,
            CONFTEST: code("""
                def pytest_configure(config):
                    config.args[:] = ["tests/test_prices.py::test_discount"]
            """),
        },
        "collected from outside of tests/test_prices.py::test_total",
        NODE_ID,
    ),
    Attack(
        "one-parameter-skipped",
        "the criterion names one test, whose failing parameter a conftest drops",
        "one",
        {
            **PARAMETRIZED.changes,
            **BROKEN,
            "gate.yaml": ONE,
            CONFTEST: code("""
                def pytest_collection_modifyitems(items):
                    del items[0]
            """),
        },
        "deselected: expected 0, observed 1",
        PARAMETRIZED,
    ),
    Attack(
        "items-added",
        "a conftest adds tests that were never collected",
        "tests",
        {
            **DELETED,
            "tests/decoy.py": DECOY,
            CONFTEST: code("""
                import pytest


                @pytest.hookimpl(trylast=True)
                def pytest_collection_modifyitems(session, items):
                    decoy = pytest.Module.from_parent(
                        items[0].parent.parent, path=session.path / "tests" / "decoy.py"
                    )
                    items.append(next(iter(decoy.collect())))
            """),
        },
        "run, but never collected",
        MARKED,
    ),
    Attack(
        "items-doubled",
        "a conftest has a test run twice, in the place of a deleted one",
        "tests",
        {
            **DELETED,
            CONFTEST: code("""
                def pytest_collection_modifyitems(items):
                    items.append(items[0])
            """),
        },
        "rerun: expected 0, observed 1",
        MARKED,
    ),
    Attack(
        "entry-point",
        "the repository ships the metadata of an installed plugin, which answers for test bodies",
        "some",
        {
            **BROKEN,
            **_installed("""
                def pytest_pyfunc_call(pyfuncitem):
                    return True
            """),
        },
        "src/quick.py:1",
        FIXTURE_PLUGIN,
    ),
    Attack(
        "entry-point-arguments",
        "such a plugin changes the command line before a conftest is read",
        "some",
        {
            **BROKEN,
            **_installed("""
                def pytest_load_initial_conftests(args):
                    args.insert(0, "--deselect=tests/test_prices.py::test_total")
            """),
        },
        "deselected: expected 0, observed 1",
        FIXTURE_PLUGIN,
    ),
    Attack(
        "path-file",
        "a `.pth` file beside the package ends the process with 0",
        "some",
        {**BROKEN, "src/quick.pth": "import os; os._exit(0)\n"},
        "failed: expected 0, observed 1",
        Control("a `.pth` file that does nothing", {"src/quick.pth": "import sys\n"}),
    ),
    Attack(
        "path-file-read",
        "a conftest reads a `.pth` file that leads to another copy of the package",
        "some",
        {
            **BROKEN,
            "sites/copy.pth": "import sys; sys.path.insert(0, 'copy')\n",
            "copy/shop/__init__.py": FILES["src/shop/__init__.py"],
            "copy/shop/prices.py": FILES["src/shop/prices.py"],
            CONFTEST: "import site\n\nsite.addsitedir('sites')\n",
        },
        "copy/shop/prices.py stands in for src/shop/prices.py",
        Control(
            "a conftest reads a `.pth` file that adds a folder",
            {
                "sites/more.pth": "../more\n",
                "more/helpers.py": "",
                CONFTEST: "import site\n\nsite.addsitedir('sites')\n",
            },
        ),
    ),
    Attack(
        "path-configured",
        "`pythonpath` in a new pytest.toml puts another copy of the package in front",
        "some",
        {
            **BROKEN,
            "pytest.toml": "[pytest]\npythonpath = ['copy', 'src']\n",
            "copy/shop/__init__.py": FILES["src/shop/__init__.py"],
            "copy/shop/prices.py": FILES["src/shop/prices.py"],
        },
        "copy/shop/prices.py stands in for src/shop/prices.py",
        Control(
            "a new pytest.toml with a folder of helpers",
            {"pytest.toml": "[pytest]\npythonpath = ['more', 'src']\n", "more/helpers.py": ""},
        ),
    ),
    Attack(
        "path-environment",
        "PYTHONPATH puts another copy of the package in front",
        "some",
        {
            **BROKEN,
            "copy/shop/__init__.py": FILES["src/shop/__init__.py"],
            "copy/shop/prices.py": FILES["src/shop/prices.py"],
        },
        "failed: expected 0, observed 1",
        Control(
            "PYTHONPATH names a folder of helpers", {"more/helpers.py": ""}, {"PYTHONPATH": "more"}
        ),
        {"PYTHONPATH": "copy"},
    ),
    Attack(
        "plugin-environment",
        "PYTEST_PLUGINS loads a plugin that the repository ships",
        "some",
        {
            **BROKEN,
            "src/quick.py": "def pytest_pyfunc_call(pyfuncitem):\n    return True\n",
        },
        "failed: expected 0, observed 1",
        Control(
            "PYTEST_PLUGINS loads a plugin that gives a fixture",
            {"src/quick.py": FIXTURE_PLUGIN.changes["src/quick.py"]},
            {"PYTEST_PLUGINS": "quick"},
        ),
        {"PYTEST_PLUGINS": "quick", "PYTHONPATH": "src"},
    ),
    Attack(
        "pytest-shadowed",
        "a module of the repository takes the place of pytest itself",
        "some",
        {**BROKEN, "src/pytest.py": "def main(*_, **__):\n    return 0\n"},
        "pytest never started a session",
        Control("a module beside the package", {"src/tools.py": "import argparse\n"}),
    ),
    Attack(
        "package-skips",
        "the `__init__.py` of the tests skips all of them",
        "suite",
        {
            **BROKEN,
            "tests/__init__.py": "import pytest\n\npytest.skip('slow', allow_module_level=True)\n",
        },
        "skipped: expected 0, observed 2",
        PACKAGES,
    ),
    Attack(
        "package-exits",
        "the `__init__.py` of the tests ends the process with 0",
        "suite",
        {**BROKEN, "tests/__init__.py": "import os\n\nos._exit(0)\n"},
        UNCLOSED,
        PACKAGES,
    ),
    Attack(
        "collector-replaced",
        "a conftest collects test files with a class of its own, which leaves tests out",
        "some",
        {
            **BROKEN,
            CONFTEST: code("""
                import pytest


                class Quick(pytest.Module):
                    def collect(self):
                        return [item for item in super().collect() if item.name != "test_total"]


                def pytest_pycollect_makemodule(module_path, parent):
                    return Quick.from_parent(parent, path=module_path)
            """),
        },
        "test_total was never collected",
        HELPER,
    ),
    Attack(
        "tests-generated",
        "`pytest_generate_tests` in a conftest gives a test no parameters",
        "some",
        {
            **BROKEN,
            PRICES: (TOTAL, "def test_total(n):"),
            CONFTEST: code("""
                def pytest_generate_tests(metafunc):
                    if "n" in metafunc.fixturenames:
                        metafunc.parametrize("n", [])
            """),
        },
        "skipped: expected 0, observed 1",
        OPTIONS,
    ),
    Attack(
        "case-twin",
        "a second test file whose name differs only in case: some file systems keep one of them",
        "some",
        {**BROKEN, "tests/Test_Prices.py": DECOY},
        TWIN,
        Control("test files with names that differ", {"tests/test_pricing.py": DECOY}),
    ),
    Attack(
        "case-twin-scanned",
        "a second module whose name differs only in case",
        "semgrep",
        {"src/shop/Prices.py": "total = discount = print\n"},
        TWIN,
        Control("a module with a name that differs", {"src/shop/pricing.py": "total = sum\n"}),
    ),
    Attack(
        "strictness-configured",
        "a new .pytest.ini takes the place of a configuration with `xfail_strict`",
        "some",
        {
            **BROKEN,
            "pyproject.toml": (CONFIGURATION, f"{CONFIGURATION}\nxfail_strict = true"),
            ".pytest.ini": "[pytest]\nxfail_strict = false\n",
            PRICES: (TOTAL, "@pytest.mark.xfail\n" + TOTAL),
        },
        "xfailed: expected 0, observed 1",
        Control("a new, empty .pytest.ini", {".pytest.ini": "[pytest]\n"}),
    ),
]
