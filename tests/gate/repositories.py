"""Repositories of different shapes, as people have them before they have a gate."""

from __future__ import annotations

import json

PRICES = "def total(prices):\n    return sum(prices)\n"
PRICE_TESTS = (
    "import pytest\n\nfrom {module} import total\n\n\n"
    '@pytest.mark.parametrize("prices", [[1, 2], [3], [2, 1]])\n'
    "def test_total(prices):\n    assert total(prices) == 3\n\n\n"
    "def test_nothing_costs_nothing():\n    assert total([]) == 0\n"
)
UNITTESTS = (
    "import unittest\n\nfrom shop import prices\n\n\n"
    "class TestPrices(unittest.TestCase):\n"
    "    def test_total(self):\n        self.assertEqual(prices.total([1, 2]), 3)\n\n"
    "    def test_nothing(self):\n        self.assertEqual(prices.total([]), 0)\n"
)
NOTEBOOK = json.dumps(
    {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": ["import torch\n", "state = torch.load('m.pt', weights_only=True)\n"],
            }
        ],
        "metadata": {"kernelspec": {"language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
)

SHAPES: dict[str, dict[str, str]] = {
    "src layout": {
        "pyproject.toml": "[project]\nname = 'shop'\nversion = '1'\n\n"
        "[tool.pytest.ini_options]\ntestpaths = ['tests']\naddopts = '-q -m \"not slow\"'\n",
        "src/shop/__init__.py": "from shop.prices import total\n\n__all__ = ['total']\n",
        "src/shop/prices.py": PRICES,
        "tests/test_prices.py": PRICE_TESTS.format(module="shop"),
    },
    "flat": {
        "setup.py": "raise SystemExit('never run')\n",
        "train.py": "raise SystemExit('never run: a script')\n",
        "shop/__init__.py": "",
        "shop/prices.py": PRICES,
        "shop/tests/__init__.py": "",
        "shop/tests/test_prices.py": PRICE_TESTS.format(module="shop.prices"),
    },
    "single modules": {
        "prices.py": PRICES,
        "test_prices.py": PRICE_TESTS.format(module="prices"),
        "run.py": "raise SystemExit('never run: a script')\n",
    },
    "namespace package": {
        "src/acme/shop/prices.py": PRICES,
        "src/acme/store/__init__.py": "from acme.shop.prices import total\n",
        "tests/test_prices.py": PRICE_TESTS.format(module="acme.store"),
    },
    "no tests": {
        "shop/__init__.py": "",
        "shop/model.py": "import torch\n\n\ndef load(path):\n"
        "    return torch.load(path, weights_only=True)\n",
    },
    "scripts alone": {"train.py": "import torch\n\nraise SystemExit('never run')\n"},
    "unittest style": {
        "shop/__init__.py": "",
        "shop/prices.py": PRICES,
        "tests/__init__.py": "",
        "tests/test_prices.py": UNITTESTS,
        "tests/testmore.py": UNITTESTS,
    },
    "doctests": {
        "src/shop/__init__.py": "",
        "src/shop/prices.py": "def total(prices):\n"
        '    """Sum.\n\n    >>> total([1, 2])\n    3\n    """\n    return sum(prices)\n',
    },
    "notebooks": {
        "notebooks/explore.ipynb": NOTEBOOK,
        "shop/__init__.py": "",
        "shop/prices.py": PRICES,
        "test/test_prices.py": PRICE_TESTS.format(module="shop.prices"),
    },
    "monorepo": {
        "pyproject.toml": "[tool.ruff]\nline-length = 100\n",
        "packages/shop/pyproject.toml": "[project]\nname = 'shop'\nversion = '1'\n",
        "packages/shop/src/shop/__init__.py": PRICES,
        "packages/shop/tests/test_prices.py": PRICE_TESTS.format(module="shop"),
        "packages/bank/pyproject.toml": "[project]\nname = 'bank'\nversion = '1'\n\n"
        "[tool.pytest.ini_options]\npython_files = ['check_*.py']\n",
        "packages/bank/bank/__init__.py": PRICES,
        "packages/bank/tests/check_prices.py": PRICE_TESTS.format(module="bank"),
    },
    "test files of one name": {
        "src/shop/__init__.py": PRICES,
        "tests/a/test_prices.py": PRICE_TESTS.format(module="shop"),
        "tests/b/test_prices.py": PRICE_TESTS.format(module="shop"),
    },
    "skipped tests": {
        "src/shop/__init__.py": PRICES,
        "tests/test_prices.py": PRICE_TESTS.format(module="shop")
        + "\n\n@pytest.mark.skip(reason='no device')\ndef test_later():\n    raise AssertionError\n"
        + "\n\n@pytest.mark.xfail(reason='known')\ndef test_known():\n    raise AssertionError\n",
    },
}
"""By their names; each of them passes the gate that ``tiergate init`` writes for it."""
