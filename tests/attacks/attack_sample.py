"""The repository that is attacked: a few tests, a package and a gate; and changes to it."""

from __future__ import annotations

import importlib.util
import marshal
import struct
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path


def code(text: str) -> str:
    """Return an indented block as a file's content."""
    return textwrap.dedent(text).lstrip("\n")


FILES = {
    "pyproject.toml": code("""
        [tool.pytest.ini_options]
        testpaths = ["tests"]
        pythonpath = ["src"]
    """),
    "src/shop/__init__.py": code('''
        """Prices."""
        from .prices import discount, total
    '''),
    "src/shop/prices.py": code("""
        def total(prices):
            return sum(prices)


        def discount(price, percent):
            if not 0 <= percent <= 100:
                raise ValueError(f"no discount of {percent} percent")
            return price * (100 - percent) / 100
    """),
    "src/shop/weights.py": code("""
        def load_weights(path):
            import torch

            return torch.load(path, weights_only=True)
    """),
    "tests/test_prices.py": code("""
        import pytest

        from shop import discount, total


        def test_total():
            assert total([1, 2]) == 3


        def test_discount():
            assert discount(200, 25) == 150


        def test_discount_is_bounded():
            with pytest.raises(ValueError, match="101"):
                discount(1, 101)
    """),
    "tests/test_import.py": code("""
        def test_the_package_imports():
            import shop.prices
    """),
    "gate.yaml": code("""
        gate: SAMPLE
        pythonpath: [src]
        timeout: 60
        criteria:
          - id: imports
            uses: imports
            with: {module: shop, names: [total, discount]}
          - id: tests
            uses: pytest
            with: {paths: [tests/test_prices.py]}
            expect: {passed: 3}
          - id: some
            uses: pytest
            with: {paths: [tests/test_prices.py]}
            expect: {passed: ">=1"}
          - id: suite
            uses: pytest
            with: {paths: [tests]}
            expect: {passed: ">=1"}
          - id: collection
            uses: collection
            expect: {collected: ">=1"}
          - id: semgrep
            uses: semgrep
            with: {rules: [unsafe-torch-load], paths: [src]}
          - id: models
            uses: checkpoints
    """),
}
"""Two of the pytest criteria set no exact count: what is red there is red by itself."""

Edit = tuple[str, str]
"""A text that stands in the sample, and what replaces it."""

Change = str | bytes | Edit | Callable[[Path], None] | None
"""A whole file, a replacement in one, something that is done to a path, or a removal."""

Changes = Mapping[str, Change]

BUG = ("return sum(prices)", "return sum(prices) + 1")
"""Makes test_total fail, and nothing else."""

BROKEN: Changes = {"src/shop/prices.py": BUG}

UNSAFE = "import torch\n\n\ndef read(path):\n    return torch.load(path)\n"


def bytecode(folder: Path) -> None:
    """Leave bytecode of the sample's prices beside the source that is there now."""
    source = folder.parent / "prices.py"
    about = source.stat()
    compiled = marshal.dumps(compile(FILES["src/shop/prices.py"], str(source), "exec"))
    header = struct.pack("<III", 0, int(about.st_mtime), about.st_size)
    folder.mkdir()
    cached = folder / f"prices.{sys.implementation.cache_tag}.pyc"
    cached.write_bytes(importlib.util.MAGIC_NUMBER + header + compiled)


def make(root: Path, changes: Changes) -> None:
    """Write the sample, changed, into an empty folder.

    Raises:
        ValueError: an edit whose text is not there.
    """
    for name, content in FILES.items():
        _write(root / name, content)
    apply(root, changes)


def apply(root: Path, changes: Changes) -> None:
    """Change a folder that holds the sample.

    Raises:
        ValueError: an edit whose text is not there.
    """
    for name, change in changes.items():
        path = root / name
        if change is None:
            path.unlink()
        elif isinstance(change, tuple):
            before = path.read_text(encoding="utf-8")
            if change[0] not in before:
                raise ValueError(f"{name} has no {change[0]!r}")
            _write(path, before.replace(change[0], change[1], 1))
        elif isinstance(change, (str, bytes)):
            _write(path, change)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            change(path)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
