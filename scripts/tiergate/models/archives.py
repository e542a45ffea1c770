"""Looks into zip and tar archives: what their members hold, and whether readers agree on them."""

from __future__ import annotations

import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Literal

from tiergate.models import pickles, streams
from tiergate.models.pickles import Stream
from tiergate.models.streams import Budget

_MOST_MEMBERS = 100_000
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_SIZE, _LOCATOR_SIZE = 22, 20
_MOST_COMMENT = 1 << 16
_LOCAL_SIZE = 30
_ENCRYPTED = 1
_STORED = 0
_DAMAGED = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
# The format of torch before 0.1.10: pickles, with raw bytes between and behind them.
_OLD_TORCH = frozenset({"sys_info", "pickle", "storages", "tensors"})


@dataclass(frozen=True)
class Found:
    """Something in a file that matters.

    Attributes:
        kind: ``pickle``; ``unreadable``; ``program``, which ``weights_only=True`` refuses whatever
            is in it; ``absent``, what stands for a file that is not here.
        where: its place in the file: names of archive members, from the outside in.
    """

    kind: Literal["pickle", "unreadable", "program", "absent"]
    where: str
    message: str = ""
    stream: Stream | None = None


Look = Callable[[IO[bytes], str, str], Iterator[Found]]
"""Looks at a member: its content, its name, its place."""


def zip_members(stream: IO[bytes], where: str, budget: Budget, look: Look) -> Iterator[Found]:
    """Yield what is in the members of a zip archive."""
    # Imported only for an archive; it has no types.
    from picklescan.relaxed_zipfile import (  # type: ignore[import-untyped]  # noqa: PLC0415
        RelaxedZipFile,
    )

    try:
        if problem := _two_readings(stream):
            yield Found("unreadable", where, problem)
        # Headers that contradict the directory do not keep torch from reading a member.
        with RelaxedZipFile(stream, "r") as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > _MOST_MEMBERS:
                yield Found("unreadable", where, f"{len(members)} members, more than are read")
                return
            names = {member.filename for member in members}
            if script := next((n for n in names if _is_torch_script(n, names)), ""):
                message = "TorchScript: a program, which torch.load(weights_only=True) refuses"
                yield Found("program", f"{where}/{script}" if where else script, message)
            raw = _raw_tensors(names)
            for member in members:
                if raw is None or not raw.fullmatch(member.filename):
                    yield from _member(archive, member, stream, where, budget, look)
    except _DAMAGED as error:
        yield Found("unreadable", where, f"a zip archive that cannot be read: {str(error)[:120]}")


def _is_torch_script(name: str, names: set[str]) -> bool:
    path = PurePosixPath(name)
    code = f"{path.parent}/code/" if str(path.parent) != "." else "code/"
    return path.name == "constants.pkl" and any(other.startswith(code) for other in names)


def _raw_tensors(names: set[str]) -> re.Pattern[str] | None:
    """Match the members of torch's own format that are the bytes of tensors."""
    folders = {n.removesuffix("data.pkl") for n in names if PurePosixPath(n).name == "data.pkl"}
    if not folders:
        return None
    return re.compile(f"(?:{'|'.join(map(re.escape, sorted(folders)))})data/\\d+")


def _two_readings(stream: IO[bytes]) -> str:
    """Say why another reader may see other members: torch's trusts offsets, Python's positions."""
    size = stream.seek(0, 2)
    tail_at = max(0, size - _END_SIZE - _MOST_COMMENT)
    stream.seek(tail_at)
    tail = stream.read(size - tail_at)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        return ""  # zipfile says what is wrong
    entries, length, begin, comment = struct.unpack("<10xHIIH", tail[at : at + _END_SIZE])
    end = tail_at + at
    if end + _END_SIZE + comment != size:
        return "an ambiguous zip archive: bytes behind its end, which not all readers bear"
    if end >= _LOCATOR_SIZE:
        stream.seek(end - _LOCATOR_SIZE)
        locator = stream.read(_LOCATOR_SIZE)
        if locator.startswith(_LOCATOR64):
            end = struct.unpack("<8xQ4x", locator)[0]
            stream.seek(min(end, size))
            record = stream.read(56)
            if len(record) != 56 or not record.startswith(_END64):
                return "an ambiguous zip archive: its end record is not where it says"
            entries64, length64, begin64 = struct.unpack("<32xQQQ", record)
            pairs = ((entries, entries64), (length, length64), (begin, begin64))
            if any(short not in {long, 0xFFFF, 0xFFFFFFFF} for short, long in pairs):
                return "an ambiguous zip archive: its two end records disagree"
            length, begin = length64, begin64
    if begin + length != end:
        return (
            "an ambiguous zip archive: its directory is not where its end record says, and readers "
            "disagree about what is in it"
        )
    return ""


def _member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    stream: IO[bytes],
    where: str,
    budget: Budget,
    look: Look,
) -> Iterator[Found]:
    name = member.filename
    place = f"{where}/{name}" if where else name
    if member.flag_bits & _ENCRYPTED:
        yield Found("unreadable", place, "marked as encrypted")
    try:
        if member.compress_type == _STORED:
            yield from look(_stored(stream, member), name, place)
        else:
            with (
                archive.open(member) as opened,
                streams.rewindable(opened, budget, member.file_size) as content,
            ):
                yield from look(content, name, place)
    except _DAMAGED as error:
        yield Found("unreadable", place, f"a member that cannot be read: {str(error)[:120]}")


def _stored(stream: IO[bytes], member: zipfile.ZipInfo) -> IO[bytes]:
    """Return a member that is not compressed, where it lies in its archive."""
    stream.seek(member.header_offset)
    header = stream.read(_LOCAL_SIZE)
    if len(header) != _LOCAL_SIZE or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("no header where the directory says")
    name, extra = struct.unpack("<26xHH", header)
    return streams.window(
        stream, member.header_offset + _LOCAL_SIZE + name + extra, member.compress_size
    )


def tar_members(stream: IO[bytes], where: str, look: Look, *, model: bool) -> Iterator[Found]:
    """Yield what is in the members of a tar archive.

    Args:
        stream: the archive, seekable.
        where: its place.
        look: looks at a member.
        model: whether damage is told.
    """
    old = False
    try:
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count > _MOST_MEMBERS:
                    yield Found("unreadable", where, "more members than are read")
                    return
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                base = PurePosixPath(member.name).name
                place = f"{where}/{member.name}" if where else member.name
                if base in _OLD_TORCH:
                    seen = pickles.read(content)
                    old = old or seen.whole
                    if seen.evident or seen.whole:
                        yield Found("pickle", place, stream=seen)
                else:
                    yield from look(content, member.name, place)
    except (tarfile.TarError, *_DAMAGED) as error:
        if model:
            yield Found("unreadable", where, f"a tar archive that cannot be read: {error}")
    if old:
        message = (
            "torch's format before 0.1.10, which torch.load(weights_only=True) refuses: pickles "
            "with raw bytes between them"
        )
        yield Found("program", where, message)
