"""Parts of files as files of their own, within a budget of decompressed bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from typing import IO, Any, cast

MOST_DECOMPRESSED = 2 * 1024**3
_IN_MEMORY = 32 * 1024**2
_CHUNK = 1 << 16


class DamagedError(OSError):
    """What is compressed cannot be decompressed any further."""


class TooMuchError(DamagedError):
    """More bytes come out of a file than are read."""


class Budget:
    """How many bytes may still be decompressed out of one file, nested archives included."""

    def __init__(self, left: int = MOST_DECOMPRESSED) -> None:
        self.left = left

    def take(self, count: int) -> None:
        """Count bytes that were decompressed.

        Raises:
            TooMuchError: they are too many by now.
        """
        self.left -= count
        if self.left < 0:
            raise TooMuchError(f"more than {MOST_DECOMPRESSED} bytes when decompressed")


class Window(io.RawIOBase):
    """A part of a file: ``size`` bytes from ``start`` on."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also behind the end, as in a file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a position in front of the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        count = max(0, min(len(buffer), self._size - self._at))
        self._stream.seek(self._start + self._at)
        data = self._stream.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class Rewindable(io.RawIOBase):
    """What a decompressor gives, only as far as it is read, and kept for being read again.

    Args:
        inner: gives bytes forwards, by ``read1``.
        budget: what may come out of it.
        size: how many bytes it will give, where that is known.
    """

    def __init__(self, inner: Any, budget: Budget, size: int | None) -> None:
        self._inner, self._budget, self._size = inner, budget, size
        self._kept = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - see close
        self._have = self._at = 0
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; to move from an end that is not known is to read all."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        if base is None:
            while self._size is None:
                self._fill(self._have + _CHUNK)
            base = self._size
        if base + offset < 0:
            raise OSError("a position in front of the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; what is damaged is a DamagedError, whatever the format."""
        self._fill(self._at + 1)  # no further than is needed: damage may follow
        self._kept.seek(self._at)
        data = self._kept.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Forget what was kept."""
        self._kept.close()
        super().close()

    def _fill(self, wanted: int) -> None:
        while self._have < wanted and not self._ended:
            try:
                data = self._inner.read1(_CHUNK)  # what comes before damage is given
            except (
                EOFError,
                ValueError,
                RuntimeError,
                zipfile.BadZipFile,
                zlib.error,
                lzma.LZMAError,
            ) as error:
                raise DamagedError(str(error)) from error
            except OSError as error:
                if error.errno is not None:
                    raise  # the disk's, not the format's
                raise DamagedError(str(error)) from error
            self._budget.take(len(data))
            self._kept.seek(self._have)
            self._kept.write(data)
            self._have += len(data)
            if not data:
                self._ended, self._size = True, self._have


class _Zlib:
    """A zlib stream to read from."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._work = stream, zlib.decompressobj()

    def read1(self, count: int) -> bytes:
        while not self._work.eof:
            data = self._work.unconsumed_tail or self._stream.read(_CHUNK)
            if not data:
                raise EOFError("ends before its end")
            if out := self._work.decompress(data, count):
                return out
        return b""


def start_of(stream: IO[bytes], count: int) -> bytes:
    """Read the first bytes, as many as there are in front of what is damaged."""
    reader = cast(io.BufferedReader, stream)
    start = reader.read1(count)
    try:
        while len(start) < count and (more := reader.read1(count - len(start))):
            start += more
    except DamagedError:
        pass  # whoever needs more than these will meet it again
    return start


def window(stream: IO[bytes], start: int, size: int) -> IO[bytes]:
    """Return a part of a file as a file."""
    return cast(IO[bytes], io.BufferedReader(Window(stream, start, size)))


def rewindable(stream: Any, budget: Budget, size: int | None = None) -> IO[bytes]:
    """Return a stream of decompressed bytes, read within the budget, that can be read again."""
    return cast(IO[bytes], io.BufferedReader(Rewindable(stream, budget, size), _CHUNK))


def decompressed(stream: IO[bytes], kind: str, budget: Budget) -> IO[bytes]:
    """Return a stream, from its beginning on, without its compression.

    Args:
        stream: seekable.
        kind: ``gzip``, ``bzip2``, ``xz`` (or the older lzma), or ``zlib``.
        budget: what may come out of it.
    """
    stream.seek(0)
    opened: Any
    if kind == "gzip":
        opened = gzip.GzipFile(fileobj=stream)
    elif kind == "bzip2":
        opened = bz2.BZ2File(stream)
    elif kind == "xz":
        opened = lzma.LZMAFile(stream)  # noqa: SIM115 - leaves the stream open
    else:
        opened = _Zlib(stream)
    return rewindable(opened, budget)
