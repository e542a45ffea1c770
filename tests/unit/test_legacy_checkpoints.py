"""Files of torch.save become checkpoints, and nothing that is in them runs."""

import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cross_phase.utils import CheckpointError, convert_legacy_checkpoint, load_checkpoint

SRC = Path(__file__).parents[2] / "src"


class Leaves:
    """When it is unpickled, a file appears: harmless, and proof that code ran."""

    def __init__(self, call: Any, argument: str) -> None:
        self.call, self.argument = call, argument

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self.call, (self.argument,)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def weights_of(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def test_a_training_checkpoint_is_converted_with_its_optimizer(tmp_path: Path) -> None:
    model = network(0)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.8, 0.9))
    model(torch.randn(4, 4)).sum().backward()
    optimizer.step()
    torch.save(
        {
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "epoch": 7,
            "config": {"hidden": (4, 3)},
            "losses": [0.5, 0.25],
        },
        tmp_path / "run.v1.pt",
    )

    converted = convert_legacy_checkpoint(tmp_path / "run.v1.pt")

    other = network(1)
    result = load_checkpoint(other, converted.path, load_optimizer=True)
    assert converted.path == tmp_path / "run.v1.pt.checkpoint"
    assert converted.left_out == []
    assert weights_of(other) == weights_of(model)
    assert result["config"] == {"hidden": (4, 3)}
    assert result["metadata"] == {"converted_from": "run.v1.pt"}
    assert result["training_state"] == {"epoch": 7, "losses": [0.5, 0.25]}
    torch.optim.AdamW(other.parameters()).load_state_dict(result["optimizer_state_dict"])
    groups = result["optimizer_state_dict"]["param_groups"]
    assert groups == optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
def test_a_bare_state_dict_is_converted(tmp_path: Path, zipped: bool) -> None:
    model, other = network(0), network(1)
    torch.save(model.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)

    converted = convert_legacy_checkpoint(tmp_path / "w.pt", tmp_path / "out")

    load_checkpoint(other, converted.path)
    assert (converted.path, converted.left_out) == (tmp_path / "out", [])
    assert weights_of(other) == weights_of(model)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pt")

    path = convert_legacy_checkpoint(tmp_path / "w.pt").path

    (file,) = path.glob("model-*")
    assert file.stat().st_size < 2 * 64 + 150
    model[1].weight = model[0].weight = nn.Parameter(torch.zeros(4, 4))
    load_checkpoint(model, path)
    assert model[0].weight.abs().sum() > 0


def test_what_cannot_be_stored_is_left_out_and_listed(tmp_path: Path) -> None:
    torch.save(
        {
            "model": {**network(0).state_dict(), "sparse": torch.eye(2).to_sparse(), "step": 3},
            "config": {"ok": 1, "names": {"a", "b"}, "tensor": torch.ones(1)},
            "extra": OrderedDict(kept=torch.ones(2), raw=b"bytes", mixed=[1, {2}]),
            "wide": torch.ones(1, dtype=torch.complex128),
        },
        tmp_path / "w.pt",
    )

    converted = convert_legacy_checkpoint(tmp_path / "w.pt")

    places = [line.split(" ")[0] for line in converted.left_out]
    assert places == [
        "model[sparse]",
        "model[step]",
        "config[names]",
        "config[tensor]",
        "training_state[extra][raw]",
        "training_state[extra][mixed][1]",
        "training_state[wide]",
    ]
    result = load_checkpoint(network(1), converted.path)
    assert result["config"] == {"ok": 1}
    assert list(result["training_state"]["extra"]) == ["kept"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, subprocess.Popen], ids=str)
def test_code_in_a_file_is_not_run_and_nothing_is_written(
    tmp_path: Path, call: Any, zipped: bool
) -> None:
    sign = tmp_path / "sign"
    argument = str(sign) if call is os.mkdir else f"__import__('os').mkdir({str(sign)!r})"
    if call in (os.system, subprocess.Popen):
        argument = f"mkdir {sign}"
    content = {"model": network(0).state_dict(), "more": Leaves(call, argument)}
    path = tmp_path / "w.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(CheckpointError, match="nothing in it was run"):
        convert_legacy_checkpoint(path)

    assert [file.name for file in tmp_path.iterdir()] == ["w.pt"]


def test_the_refusal_names_what_the_file_would_have_imported(tmp_path: Path) -> None:
    torch.save({"model": network(0)}, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules.*Save only state_dict"):
        convert_legacy_checkpoint(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Leaves(os.mkdir, str(sign))))

    with pytest.raises(CheckpointError):
        convert_legacy_checkpoint(tmp_path / "w.pt")
    assert not sign.exists()


def test_the_callers_permissions_do_not_let_code_in(tmp_path: Path) -> None:
    """A process that switched torch's protection off elsewhere is still protected here."""
    sign = tmp_path / "sign"
    torch.save({"model": Leaves(os.mkdir, str(sign))}, tmp_path / "w.pt")
    code = (
        "from cross_phase.utils import convert_legacy_checkpoint, CheckpointError\n"
        "try:\n    convert_legacy_checkpoint('w.pt')\n"
        "except CheckpointError as error:\n    print('refused')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SRC), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not sign.exists()
    assert result.stdout.strip() == "refused", result.stderr


def damaged(content: bytes, how: str) -> bytes:
    return {"cut": content[: len(content) // 2], "empty": b"", "text": b"no file of torch"}[how]


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, how: str) -> None:
    buffer = io.BytesIO()
    torch.save(network(0).state_dict(), buffer)
    path = tmp_path / "w.pt"
    path.write_bytes(damaged(buffer.getvalue(), how))

    with pytest.raises(CheckpointError, match=r"w\.pt"):
        convert_legacy_checkpoint(path)
    assert [file.name for file in tmp_path.iterdir()] == ["w.pt"]


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"step": 3}}], ids=str)
def test_a_file_without_a_model_is_an_error(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="holds"):
        convert_legacy_checkpoint(tmp_path / "w.pt")


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        convert_legacy_checkpoint(tmp_path / "w.pt")
