"""The snippets of docs/checkpoints.md and docs/tracking.md run as they are printed."""

import re
import warnings
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def snippets(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("name", "count"), [("checkpoints.md", 7), ("tracking.md", 3)])
def test_the_snippets_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    for needed in ("transformers", "matplotlib", "tensorboard", "wandb"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    namespace: dict[str, object] = {"__name__": "snippets"}

    found = snippets(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for snippet in found:
            exec(compile(snippet, name, "exec", dont_inherit=True), namespace)

    assert len(found) == count
    assert {path.name for path in tmp_path.iterdir()} >= (
        {"checkpoints", "old.pt"} if name == "checkpoints.md" else {"runs", "continuity.svg"}
    )
