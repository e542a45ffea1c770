"""Finds the pickles in a file by its content: archives, compressed streams, old torch formats.

Every format that a file could be read as is tried, so that nothing hides behind another one. Of
large files only headers and pickles are read. What claims to be a model and cannot be read is told
as well.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from tiergate.models import archives, pickles, streams, tensors
from tiergate.models.archives import Found
from tiergate.models.streams import Budget

SUFFIXES = frozenset(
    {
        ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz",
        ".safetensors", ".gguf", ".pt2", ".ptl", ".p", ".model", ".mar", ".nemo",
    }
)  # fmt: skip
"""Files with such a name are models: what is in them must be known."""

_VAGUE = frozenset({".bin", ".model", ".p"})
_COMPRESSED_SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".lzma", ".z", ".zst", ".lz4", ".7z"})
_DEEPEST = 4
_START = 512
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00\x00": "xz",
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
}
_OPAQUE = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"7z\xbc\xaf\x27\x1c": "7z",
           b"Rar!\x1a\x07": "rar"}  # fmt: skip
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GGUF_VERSIONS = (b"\2\0\0\0", b"\3\0\0\0")
_LFS = b"version https://git-lfs.github.com/spec/"


def is_model(name: str) -> bool:
    """Tell whether a file's name says that it is a model, compressed or not."""
    path = PurePosixPath(name.lower())
    if path.suffix in _COMPRESSED_SUFFIXES or path.suffix == ".tar":
        path = path.with_suffix("")
    return path.suffix in SUFFIXES


def examine(stream: IO[bytes], name: str) -> Iterator[Found]:
    """Yield every pickle in a file, and what cannot be read of it; nothing for other files.

    Args:
        stream: the open file, seekable.
        name: its name, which decides only whether unknown content is told.
    """
    budget = Budget()
    yield from _Look(budget).at(stream, name, "", 0)
    if budget.left < 0:
        message = f"more than {streams.MOST_DECOMPRESSED} bytes when decompressed"
        yield Found("unreadable", "", message)


class _Look:
    """Looks at one file, and at what is packed into it."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def at(self, stream: IO[bytes], name: str, where: str, depth: int) -> Iterator[Found]:
        if depth > _DEEPEST:
            yield Found("unreadable", where, "archives within archives, deeper than is looked")
            return
        start = streams.start_of(stream, _START)
        if start.startswith(_LFS):
            yield Found("absent", where)
            return
        stream.seek(0)
        # First, as a damaged end must not hide it. What begins as a zip does not load as a pickle.
        seen = pickles.Stream() if start.startswith(_ZIP) else pickles.read(stream)
        known = False
        for format_ in self._formats(stream, start, name, where, depth):
            known = True
            yield from format_
        if seen.evident or (seen.whole and is_model(name) and not known):
            yield Found("pickle", where, stream=seen)
            if seen.problem and not known:
                message = f"a pickle that cannot be read to its end: {seen.problem}"
                yield Found("unreadable", where, message)
        elif is_model(name) and not known:
            yield from _unknown(stream, start, name, where)

    def _formats(
        self, stream: IO[bytes], start: bytes, name: str, where: str, depth: int
    ) -> Iterator[Iterator[Found]]:
        """Yield what each format that a file has, apart from a pickle, finds in it."""
        model = is_model(name)

        def inside(content: IO[bytes], inner: str, place: str) -> Iterator[Found]:
            return self.at(content, inner, place, depth + 1)

        if start.startswith(_ZIP) or (model and _ends_as_zip(stream, start)):
            yield archives.zip_members(stream, where, self.budget, inside)
        if start[257:262] == b"ustar" or (model and _is_old_tar(start)):
            yield archives.tar_members(stream, where, inside, model=model or depth > 0)
        if start.startswith(tensors.NUMPY):
            yield self._numpy(stream, name, where, depth)
        if start.startswith(tensors.GGUF) and (model or start[4:8] in _GGUF_VERSIONS):
            yield _told(tensors.problem(tensors.check_gguf, stream), where)
        for magic, kind in _COMPRESSED.items():
            if start.startswith(magic) and self._begins(stream, kind, certain=model):
                yield self._compressed(stream, kind, name, where, depth)
        for magic, kind in _OPAQUE.items():
            if model and start.startswith(magic):
                yield _told(f"compressed with {kind}, which is not looked into", where)

    def _numpy(self, stream: IO[bytes], name: str, where: str, depth: int) -> Iterator[Found]:
        """Look at arrays, one behind the other as ``numpy.save`` writes them to an open file."""
        size = tensors.size_of(stream)
        at = 0
        while at < size:
            rest = streams.window(stream, at, size - at) if at else stream
            if not streams.start_of(rest, len(tensors.NUMPY)).startswith(tensors.NUMPY):
                yield from self.at(rest, name, f"{where}/(behind the array)".lstrip("/"), depth + 1)
                return
            rest.seek(0)
            try:
                length = tensors.read_numpy_header(rest, size - at)
            except tensors.WrongError as error:
                yield Found("unreadable", where, str(error))
                return
            if length is None:
                place = f"{where}/(objects)".lstrip("/")
                seen = pickles.read(rest)
                yield Found("pickle", place, stream=seen)
                if seen.problem:
                    yield Found(
                        "unreadable", place, f"a pickle that cannot be read: {seen.problem}"
                    )
                return
            at += length

    def _begins(self, stream: IO[bytes], kind: str, *, certain: bool) -> bool:
        """Tell whether something can be decompressed; two bytes are no evidence of zlib."""
        if certain and kind != "zlib":
            return True
        try:
            return bool(streams.decompressed(stream, kind, self.budget).read(1))
        except streams.DamagedError:
            return False

    def _compressed(
        self, stream: IO[bytes], kind: str, name: str, where: str, depth: int
    ) -> Iterator[Found]:
        path = PurePosixPath(name)
        inner = path.stem if path.suffix.lower() in _COMPRESSED_SUFFIXES else name
        try:
            content = streams.decompressed(stream, kind, self.budget)
            yield from self.at(content, inner, f"{where}/({kind})".lstrip("/"), depth + 1)
        except streams.DamagedError as error:
            if is_model(name):
                yield Found("unreadable", where, f"{kind} that cannot be read: {error}")


def _unknown(stream: IO[bytes], start: bytes, name: str, where: str) -> Iterator[Found]:
    """A model by its name that is neither a pickle nor an archive: it may be safetensors."""
    suffix = PurePosixPath(name.lower()).suffix
    problem = tensors.problem(tensors.check_safetensors, stream)
    if not start:
        yield Found("unreadable", where, "empty")
    elif problem and suffix == ".safetensors":
        yield Found("unreadable", where, problem)
    elif problem and suffix not in _VAGUE and not (suffix == ".pth" and _is_text(start)):
        yield Found("unreadable", where, "neither a model format that is known nor a pickle")


def _is_text(start: bytes) -> bool:
    """Tell a list of import paths, which Python calls .pth as well."""
    return start.isascii() and all(byte >= 0x20 or byte in b"\t\r\n" for byte in start)


def _told(problem: str, where: str) -> Iterator[Found]:
    if problem:
        yield Found("unreadable", where, problem)


def _ends_as_zip(stream: IO[bytes], start: bytes) -> bool:
    """Tell whether Python reads a file as a zip, whatever stands in front; numpy does not."""
    return not start.startswith(tensors.NUMPY) and zipfile.is_zipfile(stream)


def _is_old_tar(header: bytes) -> bool:
    """Tell a tar without a magic, by the checksum of its first header."""
    if len(header) < 512 or not header[0]:
        return False
    try:
        written = int(header[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return sum(header[:148]) + 8 * 32 + sum(header[156:]) == written
