"""Attacks on what imports: from nowhere, from elsewhere, or only in name."""

from __future__ import annotations

from pathlib import Path

from attack_case import Attack, Control
from attack_sample import BROKEN, FILES, bytecode, code

PACKAGE = "src/shop/__init__.py"
MODULE = "src/shop/prices.py"
TRIED = "try:\n    from .prices import discount, total\nexcept ImportError:\n"
SUBMODULE = Control(
    "a package whose names are submodules",
    {
        "src/shop/bulk.py": "SIZE = 10\n",
        "gate.yaml": ("names: [total, discount]", "names: [total, discount, bulk]"),
    },
)
OPTIONAL = Control(
    "an optional dependency that the names do not need",
    {PACKAGE: FILES[PACKAGE] + "try:\n    import absent\nexcept ImportError:\n    absent = None\n"},
)
LAZY = Control(
    "a package that imports its names when they are asked for",
    {
        PACKAGE: code("""
            import importlib


            def __getattr__(name):
                if name in ("total", "discount"):
                    return getattr(importlib.import_module("shop.prices"), name)
                raise AttributeError(name)
        """)
    },
)
PRINTS = Control(
    "a package that prints when it is imported", {PACKAGE: FILES[PACKAGE] + "print('imported')\n"}
)


def _sourceless(path: Path) -> None:
    """Move the module's bytecode to where its source was."""
    bytecode(path.parent / "__pycache__")
    next((path.parent / "__pycache__").glob("prices.*.pyc")).replace(path)
    path.with_name("prices.py").unlink()


ATTACKS = [
    Attack(
        "no-init",
        "`__init__.py` is deleted, the folder imports as a namespace",
        "imports",
        {PACKAGE: None, "gate.yaml": (", names: [total, discount]", "")},
        "a folder without __init__.py",
        Control("only the import is asked for", {"gate.yaml": (", names: [total, discount]", "")}),
    ),
    Attack(
        "emptied-package",
        "the package is an empty folder",
        "imports",
        {
            PACKAGE: None,
            MODULE: None,
            "src/shop/weights.py": None,
            "src/shop/README": "soon\n",
            "gate.yaml": (", names: [total, discount]", ""),
        },
        "a folder without __init__.py",
        Control("only the import is asked for", {"gate.yaml": (", names: [total, discount]", "")}),
    ),
    Attack(
        "another-copy",
        "a path file of the package leads to a copy outside of the repository",
        "imports",
        {
            PACKAGE: code("""
                import importlib.util
                import pathlib
                import sys
                import tempfile

                folder = pathlib.Path(tempfile.mkdtemp())
                (folder / "shop.py").write_text("total = discount = print")
                spec = importlib.util.spec_from_file_location("shop", folder / "shop.py")
                sys.modules["shop"] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules["shop"])
            """)
        },
        "which is no file of the repository",
        SUBMODULE,
    ),
    Attack(
        "module-replaced",
        "the module puts a stub in its own place",
        "imports",
        {
            PACKAGE: code("""
                import sys
                import types

                sys.modules[__name__] = types.SimpleNamespace(total=print, discount=print)
            """)
        },
        "put something else in its place",
        LAZY,
    ),
    Attack(
        "swallowed",
        "`except ImportError: pass` around what is exported",
        "imports",
        {
            MODULE: "import absent\n",
            PACKAGE: TRIED + "    pass\n",
        },
        "cannot import name 'total' from 'shop'",
        OPTIONAL,
    ),
    Attack(
        "placeholder",
        "`except ImportError:` sets the names to None",
        "imports",
        {
            MODULE: "import absent\n",
            PACKAGE: TRIED + "    discount = total = None\n",
        },
        "'total' is None",
        OPTIONAL,
    ),
    Attack(
        "ellipsis",
        "the names are `...`",
        "imports",
        {PACKAGE: "total = discount = ...\n"},
        "'total' is Ellipsis",
        LAZY,
    ),
    Attack(
        "getattr",
        "a module-level `__getattr__` answers None for every name",
        "imports",
        {PACKAGE: "def __getattr__(name):\n    return None\n"},
        "'total' is None",
        LAZY,
    ),
    Attack(
        "stale-bytecode-imported",
        "the source is broken, bytecode of the former one has its size and time",
        "imports",
        {MODULE: ("sum(prices)", "sum(prices]"), "src/shop/__pycache__": bytecode},
        "SyntaxError",
        Control("bytecode of the same code", {"src/shop/__pycache__": bytecode}),
    ),
    Attack(
        "sourceless",
        "the source is deleted, its bytecode still imports",
        "imports",
        {"src/shop/prices.pyc": _sourceless},
        "No module named 'shop.prices'",
        Control("bytecode of the same code", {"src/shop/__pycache__": bytecode}),
    ),
    Attack(
        "exit-at-package",
        "`os._exit(0)` when the package is imported",
        "imports",
        {**BROKEN, PACKAGE: "import os\n\nos._exit(0)\n"},
        "ended without its closing record",
        PRINTS,
    ),
    Attack(
        "system-exit-at-package",
        "`sys.exit(0)` when the package is imported",
        "imports",
        {PACKAGE: "import sys\n\nsys.exit(0)\n"},
        "SystemExit: 0",
        PRINTS,
    ),
]
