"""The training script in docs/optimizer.md runs as it stands, and learns."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from cross_phase.mugrokfast import MuGrokConfig

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "optimizer.md"


def test_the_training_script_runs_and_learns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = re.findall(
        r"^```python\n(.*?)^```", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    path = tmp_path / "train.py"
    path.write_text(script)
    found = runpy.run_path(str(path))
    found["optimizer"].qk_clip.remove()
    assert found["losses"][-1] < found["losses"][0] - 0.5
    assert "model.layers.0.self_attn.q_proj.weight" in capsys.readouterr().out
    assert len(found["optimizer"].qk_clip.max_logits) == 0
    assert len(found["checkpoint"]["optimizer"]["param_groups"]) == 2


def test_every_option_in_the_guide_is_one() -> None:
    options = {field.name for field in fields(MuGrokConfig)}
    (table,) = re.findall(
        r"## Choosing options\n(.*?)^##", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    named = re.findall(r"^\| `(\w+)", table, flags=re.MULTILINE)
    assert len(named) == 6
    assert set(named) <= options
