"""Checkpoints and the formats of others: shards, Hugging Face, mapped files, checksums."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from cross_phase.utils import (
    CheckpointError,
    load_checkpoint,
    load_safetensors,
    save_checkpoint,
    tensor_files,
    verify_checkpoint,
)
from cross_phase.utils.checkpoints import parse_size
from cross_phase.utils.tensor_headers import DTYPES, header_of, parse_header

INDEX = "model.safetensors.index.json"


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=50,
        n_positions=8,
        n_embd=8,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def assert_equal_weights(a: nn.Module, b: nn.Module) -> None:
    expected, actual = a.state_dict(), b.state_dict()
    assert list(expected) == list(actual)
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name


def test_large_models_are_spread_over_files_and_come_back(tmp_path: Path) -> None:
    model, other = gpt2(0), gpt2(1)

    path = save_checkpoint(model, tmp_path / "run", max_shard_size="2KB")
    load_checkpoint(other, path)

    files = list(path.glob("model-*.safetensors"))
    assert len(files) > 3
    for file in files:
        tensors = load_file(file)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 2000 or len(tensors) == 1
    assert_equal_weights(model, other)


def test_transformers_reads_a_checkpoint_of_several_files(tmp_path: Path) -> None:
    model = gpt2()
    path = save_checkpoint(model, tmp_path / "run", max_shard_size=2000)
    model.config.save_pretrained(path)

    loaded, info = GPT2LMHeadModel.from_pretrained(path, output_loading_info=True)

    assert not any(info.values())
    assert_equal_weights(model, loaded)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight


def test_the_index_names_every_tensor_and_is_replaced_with_the_checkpoint(tmp_path: Path) -> None:
    model = gpt2()
    path = save_checkpoint(model, tmp_path / "run", max_shard_size=2000)
    first = json.loads((path / INDEX).read_text())

    save_checkpoint(model, path)

    second = json.loads((path / INDEX).read_text())
    assert set(first["weight_map"]) == set(second["weight_map"])
    assert set(first["weight_map"]) == set(model.state_dict()) - {"lm_head.weight"}
    unique = {id(p): p.nbytes for p in model.parameters()}
    assert first["metadata"]["total_size"] == sum(unique.values())
    assert {path.name for path in path.glob("model-*")} == set(second["weight_map"].values())


@pytest.mark.parametrize("max_shard_size", ["5GB", "3KB"])
@pytest.mark.parametrize("mmap", [False, True])
def test_what_transformers_saved_is_read(tmp_path: Path, max_shard_size: str, mmap: bool) -> None:
    model, other = gpt2(0), gpt2(1)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)

    differences = load_safetensors(other, tmp_path, mmap=mmap)

    assert (differences.missing, differences.unexpected) == ([], [])
    assert_equal_weights(model, other)
    assert other.lm_head.weight is other.transformer.wte.weight


def test_a_single_safetensors_file_is_read(tmp_path: Path, device: torch.device) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2).to(device)
    save_file(dict(model.state_dict()), tmp_path / "weights.safetensors")

    load_safetensors(other, tmp_path / "weights.safetensors")

    assert torch.equal(model.weight, other.weight.cpu())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing shard", "names a file that is missing"),
        ("cut off", "cut off|its header says"),
        ("outside", "not the name of a file beside it"),
        ("wrong shard", "which lacks it"),
        ("no map", "no 'weight_map'"),
        ("no json", "not JSON"),
    ],
)
def test_a_broken_hugging_face_folder_changes_nothing(
    tmp_path: Path, damage: str, message: str
) -> None:
    gpt2(0).save_pretrained(tmp_path, max_shard_size="3KB")
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    name = next(iter(index["weight_map"]))
    if damage == "missing shard":
        shards[-1].unlink()
    elif damage == "cut off":
        shards[-1].write_bytes(shards[-1].read_bytes()[:-1])
    elif damage == "outside":
        index["weight_map"][name] = "../secret.safetensors"
    elif damage == "wrong shard":
        here = index["weight_map"][name]
        index["weight_map"][name] = next(s.name for s in shards if s.name != here)
    else:
        index = {} if damage == "no map" else index
    text = "{" if damage == "no json" else json.dumps(index)
    (tmp_path / INDEX).write_text(text)
    model = gpt2(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(CheckpointError, match=message):
        load_safetensors(model, tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_errors_point_to_the_function_that_reads_what_is_there(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)

    with pytest.raises(FileNotFoundError, match="load_safetensors"):
        load_checkpoint(gpt2(), tmp_path)
    with pytest.raises(FileNotFoundError, match=INDEX):
        load_safetensors(gpt2(), tmp_path.parent)


def test_another_programs_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    gpt2(0).save_pretrained(tmp_path, max_shard_size="3KB")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(CheckpointError, match="another program's checkpoint"):
        save_checkpoint(gpt2(1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_transformers_saving_into_the_folder_leaves_our_checkpoint_whole(tmp_path: Path) -> None:
    model = gpt2(0)
    path = save_checkpoint(model, tmp_path / "run", max_shard_size=2000)

    gpt2(1).save_pretrained(path)

    verify_checkpoint(path)
    other = gpt2(2)
    load_checkpoint(other, path)
    assert_equal_weights(model, other)


def mapped_files(tensors: Any) -> bool:
    """Whether the kernel says that all of these tensors lie in a mapped checkpoint file."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if ".safetensors" in line:
            begin, _, end = line.split()[0].partition("-")
            spans.append(range(int(begin, 16), int(end, 16)))
    return all(any(tensor.data_ptr() in span for span in spans) for tensor in tensors)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_mapped_load_shows_the_file_and_keeps_parameters_and_ties(tmp_path: Path) -> None:
    model, other = gpt2(0), gpt2(1)
    path = save_checkpoint(model, tmp_path / "run", max_shard_size="5KB")
    parameters = list(other.parameters())
    assert not mapped_files(parameters)

    load_checkpoint(other, path, mmap=True)

    assert all(a is b for a, b in zip(parameters, other.parameters(), strict=True))
    assert mapped_files(parameters)
    assert other.lm_head.weight is other.transformer.wte.weight
    assert_equal_weights(model, other)


def test_training_a_mapped_model_does_not_reach_the_file(tmp_path: Path) -> None:
    model = nn.Linear(64, 64)
    path = save_checkpoint(model, tmp_path / "run")
    load_checkpoint(model, path, mmap=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()

    verify_checkpoint(path)
    other = nn.Linear(64, 64)
    load_checkpoint(other, path)
    assert not torch.equal(model.weight, other.weight)


def test_a_mapped_model_outlives_its_file(tmp_path: Path) -> None:
    model = nn.Linear(64, 64)
    expected = model.weight.detach().clone()
    path = save_checkpoint(model, tmp_path / "run")
    load_checkpoint(model, path, mmap=True)

    save_checkpoint(nn.Linear(64, 64), path)
    shutil.rmtree(path)

    assert torch.equal(model.weight, expected)


def test_a_model_on_the_meta_device_is_filled_by_a_mapped_load(tmp_path: Path) -> None:
    model = gpt2(0)
    path = save_checkpoint(model, tmp_path / "run")
    with torch.device("meta"):
        empty = gpt2(1)
    empty.transformer.wte.weight.requires_grad_(False)

    load_checkpoint(empty, path, mmap=True)

    assert_equal_weights(model, empty)
    assert empty.lm_head.weight is empty.transformer.wte.weight
    assert empty.lm_head.weight.requires_grad is False
    assert isinstance(empty.lm_head.weight, nn.Parameter)


def test_a_mapped_load_of_a_model_on_a_device_copies(tmp_path: Path, device: torch.device) -> None:
    model = nn.Linear(8, 8).to(device)
    path = save_checkpoint(model, tmp_path / "run")
    other = nn.Linear(8, 8).to(device)

    load_checkpoint(other, path, mmap=True)

    assert other.weight.device.type == device.type
    assert torch.equal(model.weight, other.weight)


def test_mapping_skips_the_checksums_of_the_weights_unless_they_are_asked_for(
    tmp_path: Path,
) -> None:
    path = save_checkpoint(nn.Linear(8, 8), tmp_path / "run")
    (file,) = path.glob("model-*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    load_checkpoint(nn.Linear(8, 8), path, mmap=True)
    with pytest.raises(CheckpointError, match=r"'weight'|'bias'"):
        load_checkpoint(nn.Linear(8, 8), path, mmap=True, verify=True)


def test_modules_that_load_in_their_own_way_are_not_mapped(tmp_path: Path) -> None:
    class Doubling(nn.Linear):
        def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
            state[f"{prefix}weight"] = 2 * state[f"{prefix}weight"]
            super()._load_from_state_dict(state, prefix, *rest)

    model = nn.Sequential(Doubling(2, 2))
    expected = 2 * model[0].weight.detach()
    path = save_checkpoint(model, tmp_path / "run")

    with pytest.raises(CheckpointError, match="Doubling loads its state in its own way"):
        load_checkpoint(model, path, mmap=True)
    load_checkpoint(model, path)
    assert torch.equal(model[0].weight, expected)


@pytest.mark.parametrize("checksum", ["xxh3_128", "sha256"])
def test_verify_names_the_tensor_whose_bit_flipped(tmp_path: Path, checksum: str) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    state = {"moment": torch.ones(7), "scale": torch.ones(3)}
    path = save_checkpoint(model, tmp_path / "run", training_state=state, checksum=checksum)
    summary = verify_checkpoint(path)
    assert (summary.files, summary.tensors, summary.checksum) == (2, 6, checksum)
    assert summary.bytes == sum(f.stat().st_size for f in path.glob("*-*.safetensors"))

    named = set()
    for file in path.glob("*-*.safetensors"):
        content = file.read_bytes()
        with safe_open(file, framework="pt") as opened:
            names = set(opened.keys())
        for position in range(len(content) - 1, 8, -4):
            file.write_bytes(
                content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
            )
            with pytest.raises(CheckpointError, match=file.name) as caught:
                verify_checkpoint(path)
            named |= {name for name in names if f"tensor {name!r} is not" in str(caught.value)}
        file.write_bytes(content)
    verify_checkpoint(path)
    assert named == {"0.weight", "0.bias", "1.weight", "1.bias", "moment", "scale"}


def test_verify_names_a_missing_shard_and_a_file_of_another_save(tmp_path: Path) -> None:
    path = save_checkpoint(gpt2(0), tmp_path / "a", max_shard_size=2000)
    other = save_checkpoint(gpt2(1), tmp_path / "b", max_shard_size=2000)
    first, second = sorted(path.glob("model-*.safetensors"))[:2]
    other_first = min(other.glob("model-*.safetensors"))

    content = first.read_bytes()
    first.write_bytes(other_first.read_bytes())
    with pytest.raises(CheckpointError, match=f"{first.name} is damaged: .*tensor 'transformer"):
        verify_checkpoint(path)
    first.write_bytes(second.read_bytes())
    with pytest.raises(CheckpointError, match=f"{first.name} is damaged or another file"):
        verify_checkpoint(path)
    first.write_bytes(content)
    verify_checkpoint(path)
    second.unlink()
    with pytest.raises(CheckpointError, match=f"missing: .*{second.name}"):
        verify_checkpoint(path)


@pytest.mark.parametrize("harm", ["missing", "cut", "empty", "swapped"])
def test_a_file_that_cannot_be_used_is_named_with_the_tensors_it_holds(
    tmp_path: Path, harm: str
) -> None:
    model = nn.Linear(6, 5)
    moments = {"first": torch.ones(9), "second": torch.ones(3)}
    path = save_checkpoint(model, tmp_path / "run", optimizer_state=moments)
    other = save_checkpoint(model, tmp_path / "other", optimizer_state={"x": torch.ones(2)})
    (file,) = path.glob("optimizer-*.safetensors")
    (foreign,) = other.glob("optimizer-*.safetensors")
    content = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        damaged = {"cut": content[:-1], "empty": b"", "swapped": foreign.read_bytes()}
        file.write_bytes(damaged[harm])

    before = model.weight.clone()
    with pytest.raises(CheckpointError, match=rf"{file.name}.*'first' and 1 more"):
        load_checkpoint(model, path, load_optimizer=True)
    assert torch.equal(model.weight, before)


def test_verify_finds_an_index_that_misleads_other_programs(tmp_path: Path) -> None:
    path = save_checkpoint(nn.Linear(6, 5), tmp_path / "run", max_shard_size=100)
    index = path / INDEX
    content = index.read_bytes()
    body = json.loads(content)
    for position in range(len(content)):
        flipped = content[position] ^ 1
        index.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
        with pytest.raises(CheckpointError, match=INDEX):
            verify_checkpoint(path)
    first = min(body["weight_map"])
    for weight_map in ({first: body["weight_map"][first]}, {first: "model-gone.safetensors"}):
        index.write_text(json.dumps({**body, "weight_map": weight_map}))
        with pytest.raises(CheckpointError, match=f"{INDEX}.*save it again"):
            verify_checkpoint(path)
    index.write_text(json.dumps(body))
    verify_checkpoint(path)


def test_verify_takes_an_index_that_an_interrupted_save_left_behind(tmp_path: Path) -> None:
    model = nn.Linear(6, 5)
    path = save_checkpoint(model, tmp_path / "run")
    old = {file.name: file.read_bytes() for file in path.iterdir()}
    save_checkpoint(model, path)
    for name, content in old.items():
        if name != "manifest.json":
            (path / name).write_bytes(content)

    verify_checkpoint(path)
    (path / INDEX).unlink()
    verify_checkpoint(path)


def test_verify_takes_a_model_without_tensors(tmp_path: Path) -> None:
    assert verify_checkpoint(save_checkpoint(nn.ReLU(), tmp_path / "run")).tensors == 0


def test_an_unknown_checksum_or_size_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="xxh3_128, sha256"):
        save_checkpoint(nn.Linear(1, 1), tmp_path / "run", checksum="md5")
    for size in ("5 gibibytes", "-1GB", 0, True, "0.1B"):
        with pytest.raises(ValueError, match="'500MB'"):
            save_checkpoint(nn.Linear(1, 1), tmp_path / "run", max_shard_size=size)
    assert list(tmp_path.iterdir()) == []
    assert [parse_size(size) for size in ("5GB", "1.5 kb", 7)] == [5_000_000_000, 1500, 7]


def test_bytes_that_the_disk_takes_only_in_parts_are_all_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "CHUNK_BYTES", 100)
    monkeypatch.setattr(tensor_files, "WRITE_BYTES", 100)
    monkeypatch.setattr(tensor_files, "SYNC_BYTES", 1000)
    model, other = gpt2(0), gpt2(1)

    path = save_checkpoint(model, tmp_path / "run")
    load_checkpoint(other, path)

    assert_equal_weights(model, other)
    (file,) = path.glob("model-*")
    assert set(load_file(file)) == set(model.state_dict()) - {"lm_head.weight"}


def test_an_error_of_the_disk_in_the_background_fails_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tensor_files, "SYNC_BYTES", 1000)
    monkeypatch.setattr("os.fdatasync", broken)

    with pytest.raises(CheckpointError, match="Input/output error"):
        save_checkpoint(nn.Linear(64, 64), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


shapes = st.lists(st.integers(0, 3), max_size=3)
tensors = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(
        lambda name: name != "__metadata__"
    ),
    st.builds(
        lambda dtype, shape: torch.zeros(shape, dtype=torch.uint8).to(dtype),
        st.sampled_from([torch.float32, torch.int64, torch.bfloat16, torch.bool]),
        shapes,
    ),
    max_size=5,
)


@settings(max_examples=50, deadline=None)
@given(named=tensors)
def test_headers_agree_with_the_safetensors_package(named: dict[str, torch.Tensor]) -> None:
    ours, entries = header_of(named)
    theirs = save(named, metadata={"format": "pt"})
    size = len(ours) + sum(tensor.nbytes for tensor in named.values())

    parsed = parse_header(theirs[: 8 + int.from_bytes(theirs[:8], "little")], len(theirs))

    assert parse_header(ours, size) == entries
    assert {n: (e.dtype, e.shape) for n, e in parsed.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in named.items()
    }


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_header_is_read_that_the_safetensors_package_refuses(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    fields = json.loads(
        header_of({"a": torch.zeros(2, 3), "b": torch.zeros(3, dtype=torch.int8)})[0][8:]
    )
    number = st.integers(-1, 30)
    name = data.draw(st.sampled_from(["a", "b"]))
    key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "other"]))
    value = data.draw(
        st.one_of(st.sampled_from(sorted(DTYPES)), st.lists(number, max_size=3), number, st.none())
    )
    fields[name][key] = value
    text = json.dumps(fields).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(data.draw(st.sampled_from([26, 27])))
    path = tmp_path_factory.mktemp("headers") / "x.safetensors"
    path.write_bytes(content)
    try:
        entries = parse_header(content[: 8 + len(text)], len(content))
    except ValueError:
        return
    try:
        with safe_open(path, framework="pt") as file:
            assert set(file.keys()) == set(entries)
    except SafetensorError:
        pytest.fail(f"only we read {fields}")


@pytest.mark.parametrize(("begin", "size"), [(21, 24), (30, 33), (0, 24)], ids=str)
def test_tensors_that_overlap_or_leave_a_gap_are_refused(begin: int, size: int) -> None:
    fields = {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "I8", "shape": [3], "data_offsets": [begin, begin + 3]},
    }
    text = json.dumps(fields).encode()
    header = len(text).to_bytes(8, "little") + text

    with pytest.raises(ValueError, match="gap, or overlaps"):
        parse_header(header, len(header) + size)


def test_a_header_that_names_a_tensor_twice_is_refused() -> None:
    field = b'"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}'
    text = b"{" + field + b", " + field + b"}"

    with pytest.raises(ValueError, match="twice"):
        parse_header(len(text).to_bytes(8, "little") + text, 8 + len(text) + 1)
