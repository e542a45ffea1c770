"""Finds the pickles in a file by its content: archives, compressed streams, old torch formats.

Of large files only headers and pickles are read. What claims to be a model and cannot be read is
told as well.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import json
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Literal

from tiergate.models import pickles
from tiergate.models.pickles import Stream

SUFFIXES = frozenset(
    {
        ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz",
        ".safetensors", ".gguf", ".pt2", ".ptl", ".pth.tar", ".p", ".model", ".mar", ".nemo",
    }
)  # fmt: skip
"""Files with such a name are models: what is in them must be known."""

_TARS = frozenset({".tar", ".nemo", ".mar"})
_VAGUE = frozenset({".bin", ".model", ".p"})
_DEEPEST = 4
_MOST_MEMBERS = 100_000
_MOST_DECOMPRESSED = 2 * 1024**3
_NUMPY = b"\x93NUMPY"
_RAW_MEMBER = re.compile(r"(?:^|/)data/\d+$")
_PICKLE_NAME = re.compile(r"\.(?:pkl|pickle|p|dill|joblib|pt|pth|ckpt)$")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_LFS = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Found:
    """Something in a file that matters."""

    kind: Literal["pickle", "unreadable"]
    where: str
    """Its place in the file: names of archive members, from the outside in."""
    message: str = ""
    stream: Stream | None = None
    data: IO[bytes] | None = None
    """The stream again, from its start, as long as the file is open."""


def is_model(name: str) -> bool:
    """Tell whether a file's name says that it is a model."""
    return PurePosixPath(name.lower()).suffix in SUFFIXES or name.lower().endswith(".pth.tar")


def examine(stream: IO[bytes], name: str) -> Iterator[Found]:
    """Yield every pickle in a file, and what cannot be read of it; nothing for other files.

    Args:
        stream: the open file, seekable.
        name: its name, which decides only whether unknown content is told.
    """
    yield from _examine(stream, name, "", 0)


def _examine(stream: IO[bytes], name: str, where: str, depth: int) -> Iterator[Found]:
    start = stream.read(512)
    stream.seek(0)
    if depth > _DEEPEST:
        yield Found("unreadable", where, "archives within archives, deeper than is looked")
    elif start.startswith(_LFS):
        if is_model(name):
            yield Found("unreadable", where, "a Git LFS pointer: its content is not here")
    elif _is_zip(stream, start, name):
        yield from _zip(stream, where, depth)
    elif kind := next((k for magic, k in _COMPRESSED.items() if start.startswith(magic)), ""):
        found = _compressed(stream, kind, name, where, depth)
        yield from found if is_model(name) or depth else _pickles_only(found)
    elif start.startswith(_NUMPY):
        yield from _numpy(stream, where)
    elif start[257:262] == b"ustar" or PurePosixPath(name.lower()).suffix in _TARS:
        yield from _tar(stream, name, where, depth)
    elif pickles.looks_like_pickle(start):
        yield from _pickle(stream, where, certain=is_model(name) or bool(depth))
    elif is_model(name) and not start.startswith(b"GGUF"):
        yield from _unknown(stream, start, name, where, depth)


def _is_zip(stream: IO[bytes], start: bytes, name: str) -> bool:
    """Tell whether a file is a zip: Python reads it as one, whatever stands in front."""
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return True
    found = is_model(name) and zipfile.is_zipfile(stream)
    stream.seek(0)
    return found


def _unknown(stream: IO[bytes], start: bytes, name: str, where: str, depth: int) -> Iterator[Found]:
    """A model by its name, and nothing known by its first bytes."""
    suffix = PurePosixPath(name.lower()).suffix
    if not start:
        yield Found("unreadable", where, "empty")
        return
    if start[0] & 0x0F == 8 and len(start) > 1 and (start[0] << 8 | start[1]) % 31 == 0:
        found = list(_compressed(stream, "zlib", name, where, depth))
        if suffix not in _VAGUE or any(one.kind == "pickle" for one in found):
            yield from found
            return
    stream.seek(0)
    problem = _safetensors(stream)
    if not problem:
        return  # tensors only, whatever its name
    if suffix == ".safetensors":
        yield Found("unreadable", where, problem)
        return
    stream.seek(0)
    seen = pickles.read(stream)
    stream.seek(0)
    if seen.pickles and seen.pickles[0].complete:
        yield Found("pickle", where, stream=seen, data=stream)
    elif suffix not in _VAGUE:
        if tarfile.is_tarfile(stream):
            stream.seek(0)
            yield from _tar(stream, name, where, depth)
        else:
            yield Found("unreadable", where, "neither a model format that is known nor a pickle")


def _pickle(stream: IO[bytes], where: str, *, certain: bool) -> Iterator[Found]:
    binary = stream.read(1) == b"\x80"
    stream.seek(0)
    seen = pickles.read(stream)
    complete = bool(seen.pickles) and seen.pickles[0].complete
    if not certain and not complete and not (binary and seen.imports):
        return  # some other file that begins like one
    stream.seek(0)
    yield Found("pickle", where, stream=seen, data=stream)
    if seen.problem:
        yield Found("unreadable", where, f"a pickle that cannot be read to its end: {seen.problem}")


def _pickles_only(found: Iterator[Found]) -> Iterator[Found]:
    """Of a file that is no model by its name, tell only what could be loaded all the same."""
    return (one for one in found if one.kind == "pickle")


def _zip(stream: IO[bytes], where: str, depth: int) -> Iterator[Found]:
    # Imported only for an archive; it has no types.
    from picklescan.relaxed_zipfile import (  # type: ignore[import-untyped]  # noqa: PLC0415
        RelaxedZipFile,
    )

    try:
        # Headers that contradict the directory do not keep torch from reading a member.
        with RelaxedZipFile(stream, "r") as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                yield Found("unreadable", where, f"{len(members)} members, more than are read")
                return
            for member in members:
                if not member.is_dir():
                    yield from _member(archive, member, where, depth)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, struct.error) as error:
        yield Found("unreadable", where, f"a zip archive that cannot be read: {str(error)[:120]}")


def _member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, depth: int
) -> Iterator[Found]:
    name = member.filename
    place = f"{where}/{name}" if where else name
    try:
        with archive.open(member) as opened:
            start = opened.read(16)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        yield Found("unreadable", place, f"a member that cannot be read: {str(error)[:120]}")
        return
    if _RAW_MEMBER.search(name):
        return  # the bytes of a tensor
    nested = start.startswith((b"PK\x03\x04", _NUMPY, *_COMPRESSED))
    if not (nested or _PICKLE_NAME.search(name.lower()) or pickles.looks_like_pickle(start)):
        return
    if member.file_size > _MOST_DECOMPRESSED:
        yield Found("unreadable", place, f"{member.file_size} bytes, more than are read")
        return
    try:
        with archive.open(member) as opened:
            content = io.BytesIO(opened.read(_MOST_DECOMPRESSED))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, zlib.error) as error:
        yield Found("unreadable", place, f"a member that cannot be read: {str(error)[:120]}")
        return
    inner = name if nested or _PICKLE_NAME.search(name.lower()) else f"{name}.pkl"
    yield from _examine(content, inner, place, depth + 1)


def _compressed(stream: IO[bytes], kind: str, name: str, where: str, depth: int) -> Iterator[Found]:
    place = f"{where}/({kind})" if where else f"({kind})"
    try:
        if kind == "gzip":
            with gzip.GzipFile(fileobj=stream) as opened:
                data = opened.read(_MOST_DECOMPRESSED)
        elif kind == "bzip2":
            with bz2.BZ2File(stream) as opened_bz2:
                data = opened_bz2.read(_MOST_DECOMPRESSED)
        elif kind == "xz":
            with lzma.LZMAFile(stream) as opened_xz:
                data = opened_xz.read(_MOST_DECOMPRESSED)
        elif kind == "zlib":
            data = zlib.decompressobj().decompress(stream.read(), _MOST_DECOMPRESSED)
        else:
            yield Found("unreadable", where, f"compressed with {kind}, which is not looked into")
            return
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        yield Found("unreadable", where, f"{kind} that cannot be read: {str(error)[:120]}")
        return
    if len(data) >= _MOST_DECOMPRESSED:
        yield Found("unreadable", where, "more bytes than are read, when it is decompressed")
        return
    inner = PurePosixPath(name).stem
    inner = inner if is_model(inner) else f"{inner}.bin"
    yield from _examine(
        io.BytesIO(data), inner if depth or is_model(name) else "x.bin", place, depth + 1
    )


def _tar(stream: IO[bytes], name: str, where: str, depth: int) -> Iterator[Found]:
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count > _MOST_MEMBERS:
                    yield Found("unreadable", where, "more members than are read")
                    return
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                place = f"{where}/{member.name}" if where else member.name
                base = PurePosixPath(member.name).name
                # The format of torch before 0.1.10 has pickles without a suffix.
                legacy = base in {"sys_info", "pickle", "storages", "tensors"}
                start = content.read(16)
                content.seek(0)
                if legacy:
                    yield from _legacy_member(content, base, place)
                elif is_model(base) or pickles.looks_like_pickle(start):
                    inner = base if is_model(base) else f"{base}.pkl"
                    yield from _examine(content, inner, place, depth + 1)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if is_model(name) or depth:
            yield Found("unreadable", where, f"a tar archive that cannot be read: {error}")


def _legacy_member(content: IO[bytes], base: str, place: str) -> Iterator[Found]:
    """``storages`` and ``tensors`` have raw bytes between and behind their pickles."""
    seen = pickles.read(content)
    content.seek(0)
    yield Found("pickle", place, stream=seen, data=content)
    if seen.problem and base in {"pickle", "sys_info"}:
        yield Found("unreadable", place, f"a pickle that cannot be read: {seen.problem}")


def _numpy(stream: IO[bytes], where: str) -> Iterator[Found]:
    try:
        stream.seek(len(_NUMPY))
        major = stream.read(2)[0]
        length = struct.unpack("<H" if major == 1 else "<I", stream.read(2 if major == 1 else 4))[0]
        header = ast.literal_eval(stream.read(min(length, 1_000_000)).decode("latin-1").strip())
        has_objects = "O" in str(header["descr"])
    except (IndexError, KeyError, TypeError, ValueError, SyntaxError, struct.error) as error:
        yield Found("unreadable", where, f"a numpy file that cannot be read: {error}")
        return
    if has_objects:
        content = io.BytesIO(stream.read(_MOST_DECOMPRESSED))
        yield from _pickle(content, f"{where}/(objects)" if where else "(objects)", certain=True)


def _safetensors(stream: IO[bytes]) -> str:
    """Say why a file is not a whole safetensors file, or return an empty string."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    start = stream.read(8)
    if len(start) < 8:
        return "shorter than a safetensors header"
    length = struct.unpack("<Q", start)[0]
    if length > min(size - 8, 100_000_000):
        return "its safetensors header is longer than the file"
    try:
        header = json.loads(stream.read(length))
        ends = [t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"]
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError):
        return "its safetensors header cannot be read"
    if 8 + length + max(ends, default=0) != size:
        return "truncated, or with bytes behind its tensors"
    return ""
