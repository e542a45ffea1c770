"""``checkpoints``: what a model file would run is found by its content, and nothing is run."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import ModelFile, array, call, corpus, weights, zipped
from samples import Sample

from tiergate import judge
from tiergate.checkers import checkpoints
from tiergate.models import allowed, machine, pickles, policy, streams
from tiergate.prove import copies, kinds
from tiergate.prove.counter_examples import Tree
from tiergate.verdict import Verdict


def look(sample: Sample, **with_: Any) -> Verdict:
    return sample.verdict(
        {"id": "models", "uses": "checkpoints", "with": {"paths": ["."], **with_}}
    )


FILES = corpus()
POLICIES: tuple[policy.Policy, ...] = ("none", "weights-only", "scan")


def examined(file: ModelFile, asked: policy.Policy) -> policy.Examined:
    return policy.examine_stream(io.BytesIO(file.content), file.name, asked)


@pytest.mark.parametrize("file", [f for f in FILES if f.kind == "dangerous"], ids=lambda f: f.name)
def test_what_would_run_is_found_whatever_the_file_is_called(file: ModelFile):
    for asked in POLICIES:
        seen = examined(file, asked)
        assert seen.model
        rules = {breach.rule for breach in seen.breaches}
        if file.name == "two-directories.pt":  # torch sees the call in it, and Python does not
            assert "unreadable-model-file" in rules
        else:
            assert rules - {"unreadable-model-file"}
        if file.group == "names that are computed" and asked != "none":
            messages = " ".join(breach.message for breach in seen.breaches)
            assert "os.system" in messages or "?" in messages


@pytest.mark.parametrize("file", [f for f in FILES if f.kind == "damaged"], ids=lambda f: f.name)
def test_model_that_cannot_be_read_is_a_breach(file: ModelFile):
    seen = examined(file, "weights-only")
    assert {breach.rule for breach in seen.breaches} == {"unreadable-model-file"}


@pytest.mark.parametrize("file", [f for f in FILES if f.kind == "harmless"], ids=lambda f: f.name)
def test_what_runs_nothing_is_no_breach(file: ModelFile):
    assert not examined(file, "weights-only").breaches
    assert not examined(file, "scan").breaches


def test_dangerous_files_of_a_repository_are_findings_with_their_paths(sample: Sample):
    names = {"plain.pkl": call(), "model.pt": zipped(call()), "notes.txt": call(protocol=0)}
    for name, content in names.items():
        sample.write(f"models/{name}", content)
    sample.git("init", "-q")
    sample.git("add", "models/model.pt")  # the others are neither tracked nor ignored
    verdict = look(sample, policy="scan")
    assert verdict.status == "fail"
    assert {f.path for f in verdict.evidence.findings} == {f"models/{name}" for name in names}
    assert verdict.evidence.observed == {"findings": 3, "examined": 3}


def test_harmless_files_pass_and_only_models_are_counted(sample: Sample):
    for file in FILES:
        if file.kind == "harmless":
            sample.write(f"models/{file.name}", file.content)
    verdict = look(sample)
    assert verdict.status == "pass", verdict.evidence.findings
    assert verdict.evidence.observed == {"examined": 16}


def test_policy_none_takes_no_pickle_and_any_tensor(sample: Sample):
    for name in ("weights.pkl", "weights.pt", "tensors.safetensors", "numbers.npy", "model.gguf"):
        sample.write(name, next(file.content for file in FILES if file.name == name))
    verdict = look(sample, policy="none")
    assert [(f.path, f.rule) for f in verdict.evidence.findings] == [
        ("weights.pkl", "pickle"),
        ("weights.pt", "pickle"),
    ]


def test_scan_takes_known_harmless_imports_that_weights_only_refuses(sample: Sample):
    sample.write("dates.pkl", b"\x80\x02cdatetime\ntimedelta\nK\x01K\x02K\x03\x87R.")
    sample.write("ours.pkl", b"\x80\x02cour_package\nConfig\n)R.")
    strict = look(sample)
    assert {f.path: f.rule for f in strict.evidence.findings} == {
        "dates.pkl": "not-weights-only",
        "ours.pkl": "not-weights-only",
    }
    (finding,) = look(sample, policy="scan").evidence.findings
    assert (finding.path, finding.rule) == ("ours.pkl", "unknown-import")
    assert "our_package.Config" in finding.message


def test_finding_says_where_and_what(sample: Sample):
    sample.write("model.pt", zipped(call("posix")))
    (finding,) = look(sample).evidence.findings
    assert finding.rule == "dangerous-import"
    assert finding.code == "archive/data.pkl"
    assert "posix.system" in finding.message


def test_name_that_is_no_text_is_an_error_that_says_so(sample: Sample):
    name = os.fsdecode(b"mod\xff.pt")
    sample.write(name, zipped(call("posix")))
    verdict = look(sample)
    assert verdict.status == "error"
    assert f"{name!a}: its name is no UTF-8" in verdict.summary


def test_git_lfs_pointer_is_an_error_that_says_how_to_fetch_it(sample: Sample):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    sample.write("weights.ckpt", pointer)
    verdict = look(sample)
    assert verdict.status == "error"
    assert "weights.ckpt: a Git LFS pointer" in verdict.summary
    assert "`git lfs pull`" in verdict.summary


def test_examination_that_overlooks_its_canary_is_an_error(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pickles, "read", lambda _: pickles.Stream())
    verdict = look(sample)
    assert verdict.status == "error"
    assert "not alive: it overlooks canary.pkl" in verdict.summary


def test_what_decompresses_without_end_is_a_breach_and_is_read_within_a_budget(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(streams, "MOST_DECOMPRESSED", 1 << 20)
    monkeypatch.setattr(streams.Budget.__init__, "__defaults__", (1 << 20,))
    skipped = b"\x80\x04\x8e" + (1 << 24).to_bytes(8, "little") + b"\0" * (1 << 24) + b"."
    for name in ("bomb.pkl.gz", "bomb.txt"):
        seen = examined(ModelFile("", name, gzip.compress(skipped, 1), ""), "weights-only")
        assert any("when decompressed" in breach.message for breach in seen.breaches), name


class Recorded(io.BytesIO):
    """Counts the bytes that are read of a file."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data

    def read1(self, size: int = -1) -> bytes:
        return self.read(size)


def test_of_large_files_only_headers_and_pickles_are_read():
    tensor = b"\1" * (8 << 20)
    entry = {"w": {"dtype": "U8", "shape": [len(tensor)], "data_offsets": [0, len(tensor)]}}
    header = json.dumps(entry).encode()
    for name, content in {
        "model.pt": zipped(weights(), **{f"archive/data/{n}": tensor for n in (1, 2)}),
        "arrays.npz": zipped(array(tensor, "'|u1'", len(tensor)), "x.npy"),
        "model.safetensors": len(header).to_bytes(8, "little") + header + tensor,
        "bytes.pkl": b"\x80\x02B" + len(tensor).to_bytes(4, "little") + tensor + b".",
    }.items():
        stream = Recorded(content)
        seen = policy.examine_stream(stream, name, "weights-only")
        assert seen.model
        assert {b.rule for b in seen.breaches} <= {"not-weights-only"}  # BINBYTES is none of its
        assert stream.count < 300_000, name


class Recording(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Python's own unpickler, in which every import is recorded and stands for nothing."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.imported: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.imported.add(machine.named(module, name))
        return mock.MagicMock()

    def persistent_load(self, _: object) -> object:
        return object()


_OPCODES = st.sampled_from(
    [
        b"(", b"0", b"1", b"2", b"N", b"R", b"b", b"t", b")", b"\x85", b"\x86", b"o", b"\x81",
        b"\x93", b"\x94", b"h\0", b"h\1", b"q\0", b"q\1", b"q\5", b"h\5", b"g1\n", b"p2\n", b"]",
        b"a", b"e", b"}", b"s", b"u", b"\x8c\2os", b"\x8c\6system", b"U\4eval", b"S'os'\n",
        b"Vcollections\n", b"cposix\nsystem\n", b"ios\npopen\n", b"K\7", b"I01\n", b"F1.5\n",
        b"Pid\n", b"Q", b"\x95\3\0\0\0\0\0\0\0", b"\x80\4", b".", b"\xff",
    ]
)  # fmt: skip
_TOGETHER = st.sampled_from(
    [
        b"\x8c\2os\x94", b"\x8c\6system\x94", b"]\x94", b"\x8c\5posix\x8c\5popen\x93",
        b"h\0h\1\x93", b"h\1h\2\x93", b"h\1h\3\x93", b"\x8c\6shutil0", b"(\x8c\2nt1", b")R\x94",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(_OPCODES | _TOGETHER, min_size=3, max_size=16))
def test_whatever_python_imports_was_seen_before(opcodes: list[bytes]):
    content = b"".join(opcodes)
    unpickler = Recording(content)
    with contextlib.suppress(Exception):
        unpickler.load()
    seen, _ = machine.run(io.BytesIO(content))
    assert unpickler.imported <= seen.imports or machine.UNKNOWN in seen.imports


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(_VALUES, st.integers(0, 5))
def test_pickles_are_read_to_their_end(value: object, protocol: int):
    content = pickle.dumps(value, protocol)
    stream = io.BytesIO(content + b"more")
    seen, problem = machine.run(stream)
    assert (problem, seen.complete, stream.tell()) == ("", True, len(content))
    # What is no plain value in protocol 0 to 2 is made by these.
    assert seen.imports <= {"_codecs.encode", "builtins.bytearray", "builtins.bytes"}


def test_what_is_no_file_of_the_repository_is_an_error(sample: Sample, tmp_path: Path):
    link = sample.root / "model.pt"
    (tmp_path / "model.pt").write_bytes(weights())
    for target, why in {
        tmp_path / "model.pt": "leaves the repository",
        Path("nowhere.pt"): "a symbolic link to nothing",
        Path("model.pt"): "a symbolic link to nothing",
        Path("src"): "a linked folder",
        Path("ignored/pipe"): "no ordinary file",
    }.items():
        (sample.root / "ignored").mkdir(exist_ok=True)
        if not (sample.root / "ignored/pipe").exists():
            os.mkfifo(sample.root / "ignored/pipe")
        link.symlink_to(target)
        verdict = look(sample)
        assert verdict.status == "error"
        assert why in verdict.summary, target
        link.unlink()
    assert look(sample, paths=["nowhere"]).status == "error"


def test_file_that_may_not_be_read_is_an_error(sample: Sample, monkeypatch: pytest.MonkeyPatch):
    sample.write("model.pt", zipped(weights()))
    sample.write("other.pt", zipped(call()))
    opened = Path.open

    def refused(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.name == "model.pt":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refused)
    verdict = look(sample)
    assert verdict.status == "error"
    assert "model.pt: cannot be read: Permission denied" in verdict.summary
    assert [finding.path for finding in verdict.evidence.findings] == ["other.pt"]


def test_nothing_to_examine_can_be_told_from_a_pass(sample: Sample):
    criterion = {
        "id": "m",
        "uses": "checkpoints",
        "expect": {"findings": 0, "examined": ">=1"},
    }
    assert sample.verdict(criterion).status == "fail"


@pytest.mark.parametrize("paths", [["."], ["models"], ["src/shop/prices.py"]])
def test_counter_examples_are_caught_also_where_git_ignores_such_files(
    sample: Sample, paths: list[str]
):
    sample.write(".gitignore", "*.p*\n*.bin\n*.ckpt\n*.dat\n*.md\n*.safetensors\n")
    sample.write("models/readme", "no model\n")
    sample.commit()
    context = sample.context({"id": "models", "uses": "checkpoints", "with": {"paths": paths}})
    repository = context.candidate.repository
    tree = Tree(sample.root, tuple(repository.files), context.candidate.spec)
    examples = kinds.generic(context.criterion, tree)
    assert len(examples) == (8 if len(paths[0]) < 9 else 1)
    with copies.copies(repository) as made:
        for example in examples:
            with made.copy() as root:
                copies.apply(root, example.edits, example.patch)
                there = Sample(root, sample.python).context(
                    {"id": "models", "uses": "checkpoints", "with": {"paths": paths}}
                )
                observed = checkpoints.observe(there.criterion.parameters, there)
                verdict = judge.judge(there, checkpoints, observed, 0.0)
                assert not example.objection(verdict, checkpoints.outcomes(checkpoints.With()))


_SAVE = """
import sys, torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(4, 3)).sum().backward()
optimizer.step()
folder = sys.argv[1]
state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
state["half"] = torch.ones(2).half()
torch.save(state, folder + "/state.pt")
torch.save(state, folder + "/legacy.pth", _use_new_zipfile_serialization=False)
torch.save(model, folder + "/module.pt")
from torch._weights_only_unpickler import _get_allowed_globals
print("\\n".join(sorted(_get_allowed_globals())))
"""


def test_files_that_torch_writes_are_read_as_torch_reads_them(
    sample: Sample, candidate_python: Path
):
    saved = subprocess.run(
        [candidate_python, "-c", _SAVE, str(sample.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    verdict = look(sample)
    assert {f.path for f in verdict.evidence.findings} == {"module.pt"}
    assert verdict.evidence.observed["examined"] == 3
    names = set(saved.stdout.split())
    assert len(names) > 140
    # Fail closed: a name that torch takes and we do not know is a finding, never the reverse.
    assert {n for n in allowed.GLOBALS if n not in names} <= {
        f"torch.{sign}int{bits}"
        for sign in ("", "u")
        for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
    }
    assert names <= allowed.GLOBALS
