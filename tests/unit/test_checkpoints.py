"""Checkpoints: what is saved comes back exactly, and all of it or nothing is loaded."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from cross_phase.utils import (
    SAFETENSORS_AVAILABLE,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    tensor_files,
)

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.uint8, torch.int8),
    *(torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64),
]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def tied_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=8, n_layer=1, n_head=2))


class Holder(nn.Module):
    """A module of one buffer, named ``tensor``."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("tensor", tensor)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def raw_bytes(tensor: torch.Tensor) -> torch.Tensor:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    return flat.copy_(tensor.reshape(-1)).view(torch.uint8)


def assert_same(expected: Any, actual: Any) -> None:
    """Equal in value and type, tensors bit for bit, all the way down."""
    assert type(expected) is type(actual)
    if isinstance(expected, torch.Tensor):
        assert expected.dtype == actual.dtype
        assert expected.shape == actual.shape
        assert torch.equal(raw_bytes(expected), raw_bytes(actual))
    elif isinstance(expected, dict):
        assert list(expected) == list(actual)
        assert [type(key) for key in expected] == [type(key) for key in actual]
        for key in expected:
            assert_same(expected[key], actual[key])
    elif isinstance(expected, (list, tuple)):
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual, strict=True):
            assert_same(one, other)
    else:
        assert expected == actual


def data_file(folder: Path, role: str) -> Path:
    (path,) = folder.glob(f"{role}-*.safetensors")
    return path


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Change a manifest and give it the right checksum again."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    del body["sha256"]
    body.update(changes)
    canonical = json.dumps(body, separators=(",", ":"))
    body["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(body))


def file_entry(**changes: Any) -> dict[str, Any]:
    name = f"model-{'0' * 32}-00001.safetensors"
    entry = {"name": name, "bytes": 1, "header_bytes": 1, "header": "", "tensors": {}}
    return {**entry, **changes}


def test_safetensors_is_available() -> None:
    assert SAFETENSORS_AVAILABLE is True


def test_without_safetensors_saving_and_loading_say_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "SAFETENSORS_AVAILABLE", False)

    with pytest.raises(ImportError, match="pip install safetensors"):
        save_checkpoint(network(), tmp_path / "run")
    with pytest.raises(ImportError, match="pip install safetensors"):
        load_checkpoint(network(), tmp_path / "run")


def test_weights_and_buffers_come_back_bit_for_bit(tmp_path: Path, device: torch.device) -> None:
    model = network(0).to(device)
    model(torch.randn(4, 6, device=device))
    other = network(1).to(device)

    path = save_checkpoint(model, tmp_path / "run")
    result = load_checkpoint(other, path)

    assert_same(dict(model.state_dict()), dict(other.state_dict()))
    assert all(parameter.device.type == device.type for parameter in other.parameters())
    assert result == {
        "config": {},
        "metadata": {},
        "extra_tensors": {},
        "optimizer_state_dict": None,
        "training_state": None,
        "missing_keys": [],
        "unexpected_keys": [],
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_storable_dtype_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    raw = torch.randint(0, 2, (48,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tensor = raw.view(dtype)

    save_checkpoint(Holder(tensor), tmp_path / "run", extra_tensors={"x": tensor})
    model = Holder(torch.zeros_like(tensor))
    extra = load_checkpoint(model, tmp_path / "run")["extra_tensors"]

    assert_same(tensor, model.tensor)
    assert_same(tensor, extra["x"])


def test_shapes_and_strides_of_every_kind_come_back(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "transposed": base.t(),
        "sliced": base[1:3, ::2],
        "first_half": base[:2],
        "second_half": base[2:],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "negated": torch.tensor([1 + 2j]).conj().imag,
    }

    save_checkpoint(nn.ReLU(), tmp_path / "run", extra_tensors=tensors)

    restored = load_checkpoint(nn.ReLU(), tmp_path / "run")["extra_tensors"]
    assert sorted(restored) == sorted(tensors)
    for name, tensor in tensors.items():
        assert_same(tensor.clone().resolve_conj().resolve_neg(), restored[name])


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    model, other = tied_gpt2(0), tied_gpt2(1)
    path = save_checkpoint(model, tmp_path / "run")

    load_checkpoint(other, path)

    stored = load_file(data_file(path, "model"))
    assert len({"lm_head.weight", "transformer.wte.weight"} & set(stored)) == 1
    assert other.lm_head.weight is other.transformer.wte.weight
    assert_same(dict(model.state_dict()), dict(other.state_dict()))


def test_a_tied_checkpoint_fills_both_weights_of_an_untied_model(tmp_path: Path) -> None:
    path = save_checkpoint(tied_gpt2(0), tmp_path / "run")
    untied = tied_gpt2(1)
    untied.lm_head.weight = nn.Parameter(torch.zeros_like(untied.lm_head.weight))

    load_checkpoint(untied, path)

    assert_same(untied.lm_head.weight.data, untied.transformer.wte.weight.data)
    assert untied.lm_head.weight.abs().sum() > 0


def test_different_weights_are_not_forced_into_a_tied_model(tmp_path: Path) -> None:
    untied = tied_gpt2(0)
    untied.lm_head.weight = nn.Parameter(torch.zeros_like(untied.lm_head.weight))
    path = save_checkpoint(untied, tmp_path / "run")
    model = tied_gpt2(1)
    before = snapshot(model)

    with pytest.raises(CheckpointError, match="tied in the model and differ here"):
        load_checkpoint(model, path)
    assert_same(before, snapshot(model))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, betas=(0.8, 0.95), amsgrad=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.LBFGS(p, max_iter=2),
        lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-3)),
        torch.optim.Adafactor,
        torch.optim.Rprop,
    ],
    ids=["adamw", "sgd", "lbfgs", "adam-tensor-lr", "adafactor", "rprop"],
)
def test_optimizer_state_comes_back_with_its_types(tmp_path: Path, make: Any) -> None:
    model = network()
    optimizer = make(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.linspace(-1, 1, 24).reshape(4, 6)).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    state = optimizer.state_dict()
    path = save_checkpoint(model, tmp_path / "run", optimizer_state=state)

    restored = load_checkpoint(model, path, load_optimizer=True)["optimizer_state_dict"]

    assert_same(state, restored)
    make(model.parameters()).load_state_dict(restored)


def test_tensors_under_keys_that_read_alike_stay_apart(tmp_path: Path) -> None:
    state = {0: torch.zeros(2), "0": torch.ones(2), "a/b": torch.ones(1), "a": {"b": torch.ones(3)}}

    path = save_checkpoint(network(), tmp_path / "run", optimizer_state=state)

    assert_same(
        state, load_checkpoint(network(), path, load_optimizer=True)["optimizer_state_dict"]
    )


def test_training_resumes_as_if_it_had_not_stopped(tmp_path: Path, device: torch.device) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    first, second = torch.randn(2, 4, 6).to(device)
    model = network(0).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer, first)
    path = save_checkpoint(model, tmp_path / "run", optimizer_state=optimizer.state_dict())
    step(model, optimizer, second)

    resumed = network(1).to(device)
    result = load_checkpoint(resumed, path, device=device, load_optimizer=True)
    resumed_optimizer = torch.optim.AdamW(resumed.parameters(), lr=9.0)
    resumed_optimizer.load_state_dict(result["optimizer_state_dict"])
    step(resumed, resumed_optimizer, second)

    assert_same(snapshot(model), snapshot(resumed))


def test_configurations_come_back_with_tuples_and_keys_of_any_kind(tmp_path: Path) -> None:
    config = {
        "betas": (0.9, (0.95, [1, (2,)])),
        1: "int key",
        "1": "str key",
        (2, "x"): None,
        "$tuple": ["not a tag"],
        "look": {"$tuple": ["like", "a tag"]},
        "flags": {True: False, None: -0.0},
        "large": 2**200,
        "limits": [float("inf"), float("-inf"), 1e-323, 0.1],
        "dtype": torch.bfloat16,
        "device": torch.device("cuda:1"),
        "path": Path("data") / "set",
        "text": "naïve \ud800 \x00",
    }

    save_checkpoint(network(), tmp_path / "run", config, {"nested": {"deep": config}})

    result = load_checkpoint(network(), tmp_path / "run")
    assert_same(config, result["config"])
    assert_same({"nested": {"deep": config}}, result["metadata"])
    assert str(result["config"]["flags"][None]) == "-0.0"


def test_dots_in_the_name_are_kept_and_versions_stay_apart(tmp_path: Path) -> None:
    first = save_checkpoint(network(), tmp_path / "run.v1.0", {"version": "1.0"})
    second = save_checkpoint(network(), str(tmp_path / "run.v1.1"), {"version": "1.1"})

    assert first == tmp_path / "run.v1.0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.v1.0", "run.v1.1"]
    assert load_checkpoint(network(), first)["config"] == {"version": "1.0"}
    assert load_checkpoint(network(), second)["config"] == {"version": "1.1"}


def test_extra_tensors_do_not_meet_parameters_of_the_same_name(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_parameter("extra_x", nn.Parameter(torch.ones(2)))
    model.register_parameter("x", nn.Parameter(torch.zeros(2)))
    extra = {"x": torch.full((2,), 7.0), "extra_x": torch.full((3,), 8.0)}

    path = save_checkpoint(model, tmp_path / "run", extra_tensors=extra)

    restored = load_checkpoint(model, path)["extra_tensors"]
    assert_same(extra, {name: restored[name] for name in extra})
    assert model.extra_x.tolist() == [1, 1]


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path: Path) -> None:
    path = save_checkpoint(network(), tmp_path / "run", extra_tensors={"x": torch.ones(1000)})
    extra = load_checkpoint(network(), path)["extra_tensors"]

    file = data_file(path, "extra")
    file.write_bytes(bytes(file.stat().st_size))

    assert extra["x"].sum() == 1000


def test_the_weights_are_a_plain_safetensors_file_readable_like_its_folder(tmp_path: Path) -> None:
    model = network()
    path = save_checkpoint(model, tmp_path / "run")

    assert_same(
        snapshot(model), {k: load_file(data_file(path, "model"))[k] for k in snapshot(model)}
    )
    assert data_file(path, "model").stat().st_mode & 0o666 == path.stat().st_mode & 0o666


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": {"a": {"b": [{1, 2}]}}}, r"config\[a/b/0\] is a builtins\.set"),
        ({"metadata": {"f": open}}, r"metadata\[f\] is a .*builtin_function"),
        ({"config": {"x": torch.ones(1)}}, r"config\[x\] is a tensor.*extra_tensors"),
        ({"config": {"o": defaultdict(int)}}, r"config\[o\] is a collections\.defaultdict"),
        ({"config": {"n": np.ones(2)}}, r"config\[n\] is a NumPy array.*training_state"),
        ({"training_state": {"n": np.array(["a"])}}, r"training_state\[n\] is an array of <U1"),
        ({"config": {b"key": 1}}, r"a key of config is a builtins\.bytes"),
        ({"optimizer_state": {"g": {"m": nn.ReLU()}}}, r"optimizer_state\[g/m\] is a torch"),
        (
            {"optimizer_state": {"g": torch.ones(1, dtype=torch.complex128)}},
            r"optimizer_state\[g\] is torch\.complex128",
        ),
        ({"extra_tensors": {"e": [1.0]}}, r"extra_tensors\[e\] is a list"),
        ({"extra_tensors": {"e": torch.ones(1, device="meta")}}, r"extra_tensors\[e\].*meta"),
        ({"extra_tensors": {"e": torch.eye(2).to_sparse()}}, r"extra_tensors\[e\] is sparse"),
        ({"extra_tensors": {"__metadata__": torch.ones(1)}}, "__metadata__"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(network(), tmp_path / "run", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.LazyLinear(3), r"model\[weight\] is not initialized"),
        (nn.Linear(2, 2, device="meta"), r"model\[weight\] is on the meta device"),
        (Holder(torch.ones(1, 3).expand(4, 3)), r"model\[tensor\] is an expanded tensor"),
    ],
    ids=["lazy", "meta", "expanded"],
)
def test_models_that_could_not_be_restored_are_refused(
    tmp_path: Path, model: nn.Module, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(model, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_cycle_in_the_configuration_is_refused(tmp_path: Path) -> None:
    config: dict[str, Any] = {}
    config["self"] = config

    with pytest.raises(CheckpointError, match="cycle"):
        save_checkpoint(network(), tmp_path / "run", config)


def test_what_is_no_module_is_refused(tmp_path: Path) -> None:
    for call in (save_checkpoint, load_checkpoint):
        with pytest.raises(TypeError, match="dict"):
            call({}, tmp_path / "run")  # type: ignore[operator]


def test_a_missing_checkpoint_is_file_not_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    for name, why in (("none", "no such folder"), ("empty", "manifest.json"), ("file", "a file")):
        with pytest.raises(FileNotFoundError, match=why):
            load_checkpoint(network(), tmp_path / name)


def test_a_file_in_the_way_is_an_error_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")

    with pytest.raises(CheckpointError, match="could not be written"):
        save_checkpoint(network(), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(6, 4)), r"0\.weight is \(4, 6\) in the model and \(5, 6\) here"),
        (network().double(), r"0\.weight is torch\.float64 in the model.*model\.to\(torch\.float"),
        (nn.Sequential(nn.Linear(6, 5)), r"1\.weight is in the checkpoint but not in the model"),
        (nn.Sequential(*network(), nn.Linear(3, 3)), r"3\.weight is in the model but not in the c"),
        (nn.Sequential(nn.LazyLinear(5)), r"0\.weight is not initialized"),
        (nn.Sequential(nn.Linear(6, 5, device="meta")), r"0\.weight is on the meta device"),
    ],
    ids=["shape", "dtype", "fewer", "more", "lazy", "meta"],
)
def test_a_checkpoint_of_another_model_changes_nothing(
    tmp_path: Path, model: nn.Module, message: str
) -> None:
    path = save_checkpoint(network(5), tmp_path / "run")
    concrete = [p for p in model.parameters() if not p.is_meta and hasattr(p, "data")]
    before = [p.detach().clone() for p in concrete if not nn.parameter.is_lazy(p)]

    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, path)
    after = [p.detach() for p in concrete if not nn.parameter.is_lazy(p)]
    assert_same(before, [p.clone() for p in after])


def test_not_strict_loads_the_names_in_common_and_reports_the_rest(tmp_path: Path) -> None:
    path = save_checkpoint(network(0), tmp_path / "run")
    model = nn.Sequential(nn.Linear(6, 5), nn.Identity(), nn.Identity(), nn.Linear(3, 3))

    result = load_checkpoint(model, path, strict=False)

    assert_same(network(0)[0].weight.data, model[0].weight.data)
    assert result["missing_keys"] == ["3.weight", "3.bias"]
    assert "1.running_mean" in result["unexpected_keys"]


def test_not_strict_still_needs_matching_shapes_and_a_name_in_common(tmp_path: Path) -> None:
    path = save_checkpoint(network(), tmp_path / "run")

    with pytest.raises(CheckpointError, match=r"\(4, 6\)"):
        load_checkpoint(nn.Sequential(nn.Linear(6, 4)), path, strict=False)
    with pytest.raises(CheckpointError, match="no name in common"):
        load_checkpoint(nn.Linear(6, 5), path, strict=False)


def test_optimizer_state_that_was_not_saved_is_an_error_when_asked_for(tmp_path: Path) -> None:
    path = save_checkpoint(network(), tmp_path / "run")

    with pytest.raises(CheckpointError, match="no optimizer state"):
        load_checkpoint(network(), path, load_optimizer=True)


def full_checkpoint(folder: Path) -> Path:
    model = network(0)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(torch.randn(4, 6)).sum().backward()
    optimizer.step()
    return save_checkpoint(
        model,
        folder,
        config={"lr": 0.1},
        optimizer_state=optimizer.state_dict(),
        extra_tensors={"x": torch.ones(4)},
    )


@pytest.mark.parametrize("role", ["model", "optimizer", "extra"])
@pytest.mark.parametrize("damage", ["bit", "truncated", "longer", "missing", "swapped"])
def test_a_damaged_data_file_is_named_and_nothing_is_loaded(
    tmp_path: Path, role: str, damage: str
) -> None:
    path = full_checkpoint(tmp_path / "run")
    file = data_file(path, role)
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncated":
        file.write_bytes(content[:-1])
    elif damage == "longer":
        file.write_bytes(content + b"\0")
    elif damage == "missing":
        file.unlink()
    else:
        other = full_checkpoint(tmp_path / "other")
        file.write_bytes(data_file(other, "model" if role != "model" else "extra").read_bytes())
    model = network(1)
    before = snapshot(model)

    with pytest.raises(CheckpointError, match=file.name):
        load_checkpoint(model, path, load_optimizer=True)
    assert_same(before, snapshot(model))


def test_every_flipped_bit_of_the_manifest_is_noticed(tmp_path: Path) -> None:
    path = full_checkpoint(tmp_path / "run") / "manifest.json"
    content = path.read_bytes()
    expected = load_checkpoint(network(), path.parent)["config"]

    for position in range(0, len(content), 23):
        path.write_bytes(
            content[:position]
            + bytes([content[position] ^ (1 << position % 8)])
            + content[position + 1 :]
        )
        try:
            result = load_checkpoint(network(1), path.parent)
        except CheckpointError:
            continue
        # Only white space between the tokens means the same either way.
        assert content[position : position + 1].isspace()
        assert result["config"] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "another"}, "not the manifest of a checkpoint"),
        ({"version": 2}, "format version 2"),
        ({"more": 1}, "unknown"),
        ({"files": []}, "'files'"),
        ({"files": {}}, "'files'"),
        ({"files": {"model": {}}}, "list"),
        ({"files": {"model": [{"name": "x"}]}}, "header_bytes"),
        ({"files": {"model": [file_entry(name="../../etc/passwd")]}}, "not the name of a data f"),
        ({"files": {"model": [file_entry(tensors={"0.weight": 1})]}}, "'tensors'"),
        ({"checksum": "crc32"}, "unknown checksum 'crc32'"),
        ({"checksum": ["sha256"]}, "unknown checksum"),
        ({"tied": {"a": 1}}, "'tied'"),
        ({"tied": {"a": "nowhere"}}, "nowhere"),
        ({"config": {"$tensor": "x"}}, "not stored"),
        ({"config": {"$python": "os.system"}}, r"\$python"),
        ({"config": {"$enum": ["os:system"]}}, r"malformed \$enum"),
        ({"config": {"$dataclass": ["os:system", 3]}}, r"malformed \$dataclass"),
        ({"config": {"$scalar": ["O", "00" * 8]}}, "cannot be read"),
        ({"config": {"$dict": [[["list"], 1]]}}, r"malformed \$dict"),
        ({"config": {"$dtype": "load"}}, "no dtype"),
        ({"config": {"$device": "nowhere"}}, "no device"),
        ({"config": {"$int": "0xg"}}, "manifest cannot be read"),
    ],
)
def test_a_manifest_that_was_made_up_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = full_checkpoint(tmp_path / "run")
    edit_manifest(path, **changes)
    model = network(1)
    before = snapshot(model)

    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, path)
    assert_same(before, snapshot(model))


def test_a_manifest_of_arbitrary_nesting_is_refused(tmp_path: Path) -> None:
    path = full_checkpoint(tmp_path / "run")
    (path / "manifest.json").write_text("[" * 100_000)

    with pytest.raises(CheckpointError, match="not JSON"):
        load_checkpoint(network(), path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(network(), tmp_path / "run")
    data_file(path, "model").write_bytes(b"not tensors")

    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_checkpoint(network(), path)


def test_modules_keep_their_extra_state(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        count = 0

        def get_extra_state(self) -> torch.Tensor:
            return torch.tensor([1] * self.count)

        def set_extra_state(self, state: torch.Tensor) -> None:
            self.count = len(state)

    model, other = Counting(2, 2), Counting(2, 2)
    model.count = 3

    load_checkpoint(other, save_checkpoint(model, tmp_path / "run"))

    assert other.count == 3


def test_files_that_are_not_the_checkpoints_own_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    foreign = ["model.safetensors", "model-00001-of-00002.safetensors", "manifest.json.bak"]
    for name in foreign:
        save_file({"x": torch.ones(1)}, path / name)

    save_checkpoint(network(), path)
    save_checkpoint(network(), path)

    assert set(foreign) <= {file.name for file in path.iterdir()}
    assert len(list(path.glob("model-*.safetensors"))) == 2
