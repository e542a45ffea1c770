"""Proofs are made again when what they rest on changed, and only then."""

from __future__ import annotations

import pytest
from builders import parse
from samples import PASSES, Sample

from tiergate import prove_scope

SPEC = parse("""\
gate: T
pythonpath: [src]
criteria:
  - id: NAMES
    uses: imports
    with: {module: shop.prices, names: [total]}
  - id: TESTS
    uses: pytest
    with: {paths: ["tests/a.py::test_b", tests/folder/]}
    expect: {passed: 1}
    remedy: {files: [src/made.py]}
    proofs:
      - name: broken
        replace: {file: src/broken.py, old: a, new: b}
        expect: {failed: 1}
      - {name: longer, append: {file: src/longer.py, text: x}}
      - {name: another, create: {file: src/another.py, text: x}}
      - {name: gone, delete: src/gone.py}
      - {name: patched, patch: proofs/patched.patch}
""")


@pytest.mark.parametrize(
    ("changed", "touched"),
    [
        ([], set()),
        (["README.md", "tests/ab.py", "src/shop/other.py"], set()),
        (["src/shop/prices.py"], {"NAMES"}),
        (["src/shop/prices/__init__.py"], {"NAMES"}),
        (["tests/a.py"], {"TESTS"}),
        (["tests/folder/deep/c.py"], {"TESTS"}),
        (["src/made.py"], {"TESTS"}),
        (["src/broken.py"], {"TESTS"}),
        (["src/longer.py"], {"TESTS"}),
        (["src/another.py"], {"TESTS"}),
        (["src/gone.py"], {"TESTS"}),
        (["proofs/patched.patch"], {"TESTS"}),
        (["tests/a.py", "src/shop/prices.py"], {"NAMES", "TESTS"}),
        (["gate.yaml"], {"NAMES", "TESTS"}),
        (["scripts/tiergate/judge.py"], {"NAMES", "TESTS"}),
        (["tests/other/conftest.py"], {"NAMES", "TESTS"}),
        (["pyproject.toml"], {"NAMES", "TESTS"}),
        (["src/evil-1.0.dist-info/entry_points.txt"], {"NAMES", "TESTS"}),
    ],
)
def test_which_criteria_are_proven_again(changed, touched):
    assert prove_scope.touched(SPEC, changed) == touched


def test_prove_since_lists_and_proves_what_changed(sample: Sample):
    other = {"id": "other", "uses": "imports", "with": {"module": "shop", "names": ["total"]}}
    sample.gate(PASSES, other)
    sample.commit()
    sample.git("tag", "base")
    unchanged = sample.tiergate("prove", "--since", "base", "--list")
    assert (unchanged.returncode, unchanged.stdout) == (0, "")
    sample.write("tests/test_prices.py", "def test_a():\n    pass\n\ndef test_b():\n    pass\n")
    sample.commit()
    assert sample.tiergate("prove", "--since", "base", "--list").stdout == "prices\n"
    sample.write("gate.yaml", (sample.root / "gate.yaml").read_text() + "\n")
    assert sample.tiergate("prove", "--since", "base", "--list").stdout == "prices\nother\n"
