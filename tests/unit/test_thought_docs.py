"""The snippets of docs/thoughts.md run as they stand."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "thoughts.md"


def test_every_snippet_runs_after_those_before_it(capsys):
    snippets = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(snippets) == 6
    names: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        for number, snippet in enumerate(snippets):
            exec(compile(snippet, f"{PAGE.name}, snippet {number}", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("[0, 3, 6, 9, 12, 15] 12 ")
    assert [line.split()[0] for line in printed[1:4]] == ["0", "1", "2"]
    assert printed[4].startswith("torch.Size([2, 4]) ")


def test_every_image_of_the_page_is_there():
    images = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE.read_text("utf-8"))
    assert images
    assert all((PAGE.parent / image).is_file() for image in images)
