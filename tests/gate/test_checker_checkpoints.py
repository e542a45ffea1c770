"""``checkpoints``: what a model file would run is found by its content, and nothing is run."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from samples import Sample

from tiergate.models import allowed, policy
from tiergate.verdict import Verdict

MARK = "TIERGATE_WAS_RUN"


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


def payload(protocol: int = 2) -> bytes:
    return pickle.dumps({"state": Runs()}, protocol=protocol)


def weights() -> bytes:
    return pickle.dumps(OrderedDict(bias=1.5, step=3), protocol=2)


def zipped(content: bytes, name: str = "archive/data.pkl") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("archive/data/0", b"\x80\x02raw bytes of a tensor")
        archive.writestr("archive/version", b"3\n")
    return stream.getvalue()


def tarred(content: bytes, name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def array(content: bytes, description: str) -> bytes:
    header = f"{{'descr': '{description}', 'fortran_order': False, 'shape': (1,), }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def safetensors(extra: bytes = b"", length: int | None = None) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 4 + extra


def look(sample: Sample, **with_: Any) -> Verdict:
    return sample.verdict(
        {"id": "models", "uses": "checkpoints", "with": {"paths": ["."], **with_}}
    )


DANGEROUS = {
    "plain.pkl": payload(),
    "protocol-0.pkl": payload(0),
    "protocol-4.pkl": payload(4),
    "model.pt": zipped(payload()),
    "nested.pt": zipped(zipped(payload()), "inner.pt"),
    "renamed.txt": payload(),
    "renamed-zip.dat": zipped(payload()),
    "renamed-text.cfg": payload(0),
    "second.pkl": weights() + payload(),
    "legacy.pth": b"".join(
        [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), weights(), payload()]
    )
    + pickle.dumps([], 2)
    + b"\0raw",
    "compressed.pkl.gz": gzip.compress(payload()),
    "compressed.pkl.xz": lzma.compress(payload()),
    "compressed.pkl.bz2": bz2.compress(payload()),
    "compressed.joblib": zlib.compress(payload()),
    "old.tar": tarred(payload(), "pickle"),
    "objects.npy": array(payload(), "|O"),
    "arrays.npz": zipped(array(payload(), "|O"), "x.npy"),
    "truncated.pkl": payload()[:-1],
    "hidden-name.pt": zipped(payload(), "archive/notes.md"),
    "junk-in-front.pt": b"#!/bin/sh\n" * 10 + zipped(payload()),
    "dotted.pkl": b"\x80\x04\x8c\x08builtins\x8c\x0beval.__call__\x93(\x8c\x011tR.",
    "posix.pkl": b"cposix\nsystem\n(S'true'\ntR.",
    "instance.pkl": b"(S'true'\nios\nsystem\n.",
    "python-2.pkl": b"c__builtin__\neval\n(S'1'\ntR.",
    "computed.pkl": b"\x80\x04\x95"
    + b"\0" * 8
    + b"\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.",
}

UNREADABLE = {
    "truncated.pt": zipped(payload())[:120],
    "garbage.pt": b"\x01\x02\x03 no model at all",
    "empty.pth": b"",
    "pointer.ckpt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "short.safetensors": safetensors()[:-2],
    "long.safetensors": safetensors(b"more"),
    "header.safetensors": safetensors(length=10**12),
    "zstd.pt": b"\x28\xb5\x2f\xfd" + b"\0" * 20,
    "numpy.npy": b"\x93NUMPY\x01\x00\xff\xff{",
    "deep.pt": zipped(
        zipped(zipped(zipped(zipped(zipped(weights()), "a.pt"), "b.pt"), "c.pt"), "d.pt"), "e.pt"
    ),
}

HARMLESS = {
    "weights.pt": zipped(weights()),
    "weights.pkl": weights(),
    "tensors.safetensors": safetensors(),
    "numbers.npy": array(b"\0" * 8, "<f8"),
    "numbers.npz": zipped(array(b"\0" * 8, "<f8"), "x.npy"),
    "tokens.bin": b"\x01\x02\x03 of some other program",
    "model.gguf": b"GGUF\x03\0\0\0",
    "letters.txt": b"costs are high\nthey say\n",
    "picture.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "archive.tar.gz": gzip.compress(tarred(b"text", "readme.md")),
    "sheet.xlsx": zipped(b"<xml/>", "xl/workbook.xml"),
}


@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.parametrize("asked", ["none", "weights-only", "scan"])
def test_what_would_run_is_found_whatever_the_file_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, asked: policy.Policy
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(DANGEROUS[name])
    matters, breaches = policy.examine(path, name, asked)
    assert matters
    assert breaches
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("name", UNREADABLE)
def test_model_that_cannot_be_read_is_a_breach(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(UNREADABLE[name])
    _, breaches = policy.examine(path, name, "weights-only")
    assert [breach.rule for breach in breaches] == ["unreadable-model-file"]


def test_dangerous_files_of_a_repository_are_findings_with_their_paths(sample: Sample):
    for name, content in DANGEROUS.items():
        sample.write(f"models/{name}", content)
    verdict = look(sample, policy="scan")
    assert verdict.status == "fail"
    assert {f.path for f in verdict.evidence.findings} == {f"models/{name}" for name in DANGEROUS}
    assert verdict.evidence.observed["examined"] == len(DANGEROUS)


def test_harmless_files_pass_and_only_models_are_counted(sample: Sample):
    for name, content in HARMLESS.items():
        sample.write(f"models/{name}", content)
    for asked in ("weights-only", "scan"):
        verdict = look(sample, policy=asked)
        assert verdict.status == "pass", verdict.evidence.findings
        assert verdict.evidence.observed == {"examined": 7}


def test_policy_none_takes_no_pickle_and_any_tensor(sample: Sample):
    for name, content in HARMLESS.items():
        sample.write(f"models/{name}", content)
    verdict = look(sample, policy="none")
    assert sorted(finding.path for finding in verdict.evidence.findings) == [
        "models/weights.pkl",
        "models/weights.pt",
    ]


def test_scan_takes_known_harmless_imports_that_weights_only_refuses(sample: Sample):
    sample.write("dates.pkl", b"\x80\x02cdatetime\ntimedelta\nK\x01K\x02K\x03\x87R.")
    sample.write("ours.pkl", b"\x80\x02cour_package\nConfig\n)R.")
    strict = look(sample)
    assert {f.path: f.rule for f in strict.evidence.findings} == {
        "dates.pkl": "not-weights-only",
        "ours.pkl": "not-weights-only",
    }
    scanned = look(sample, policy="scan")
    assert [f.path for f in scanned.evidence.findings if "our_package.Config" in f.message] == [
        "ours.pkl"
    ]


def test_finding_says_where_and_what(sample: Sample):
    sample.write("model.pt", zipped(payload()))
    (finding,) = look(sample).evidence.findings
    assert finding.rule == "dangerous-import"
    assert finding.code == "archive/data.pkl"
    assert "posix.system" in finding.message


def test_encrypted_member_is_a_finding(sample: Sample):
    data = bytearray(zipped(payload()))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    sample.write("model.pt", bytes(data))
    assert look(sample).status == "fail"


def test_link_that_leaves_and_missing_path_are_errors(sample: Sample, tmp_path: Path):
    (tmp_path / "model.pt").write_bytes(weights())
    (sample.root / "model.pt").symlink_to(tmp_path / "model.pt")
    assert look(sample).status == "error"
    (sample.root / "model.pt").unlink()
    assert look(sample, paths=["nowhere"]).status == "error"


def test_nothing_to_examine_can_be_told_from_a_pass(sample: Sample):
    criterion = {
        "id": "m",
        "uses": "checkpoints",
        "expect": {"findings": 0, "examined": ">=1"},
    }
    assert sample.verdict(criterion).status == "fail"


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
