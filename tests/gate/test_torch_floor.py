"""The torch versions that a project allows, wherever it declares them."""

from __future__ import annotations

import pytest

from tiergate import torch_floor


def floors(name: str, text: str) -> list[tuple[int, str, bool]]:
    found = torch_floor.declared([name, "src/a.py"], {name: text.encode()}.__getitem__)
    assert {floor.path for floor in found} <= {name}
    return [(floor.line, floor.text, floor.protects) for floor in found]


@pytest.mark.parametrize(
    ("requirement", "protects"),
    [
        ("torch>=2.6", True),
        ("torch >= 2.6.0", True),
        ("Torch==2.10", True),
        ("torch~=2.6", True),
        ("torch>=3", True),
        ("torch>=2.5.1", False),
        ("torch>=2", False),
        ("torch>2.5", False),
        ("torch", False),
        ("torch<3", False),
        ("torch!=2.7", False),
        ("torch>=2.6,<3", True),
        ("torch>=2.0,!=2.1", False),
        ("torch==2.6.*", True),
        ("torch===2.6", True),
        ("torch>=2.6rc1", False),
        ("torch[opt]>=2.9; python_version >= '3.11'", True),
        ("torch==2.6+cpu", True),
    ],
)
def test_floor_protects_only_from_2_6(requirement: str, protects: bool):
    assert floors("requirements.txt", f"numpy\n{requirement}\n") == [(2, requirement, protects)]


@pytest.mark.parametrize(
    "requirement", ["torchvision>=0.1", "numpy>=2", "torch>=,", "-r torch.txt"]
)
def test_what_is_no_requirement_of_torch_is_none(requirement: str):
    assert floors("requirements.txt", f"{requirement}\n") == []


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("pyproject.toml", '[project]\ndependencies = [\n "torch>=2.9",\n]\n', 3),
        ("pyproject.toml", '[dependency-groups]\ntest = ["torch>=2.9"]\n', 2),
        ("pyproject.toml", '[tool.poetry.dependencies]\nnumpy = "^2"\ntorch = "^2.9"\n', 3),
        ("pyproject.toml", '[tool.poetry.dependencies]\ntorch = {version = ">=2.9"}\n', 2),
        ("setup.cfg", "[options]\ninstall_requires =\n  torch>=2.9\n", 3),
        ("setup.py", "setup(\n  install_requires=['torch>=2.9'],\n)\n", 2),
        ("requirements/dev-requirements.in", "torch>=2.9\n", 1),
    ],
)
def test_floor_is_read_wherever_projects_declare_it(name: str, text: str, line: int):
    ((found, _, protects),) = floors(name, text)
    assert (found, protects) == (line, True)
    ((_, _, protects),) = floors(name, text.replace("2.9", "2.5"))
    assert not protects
