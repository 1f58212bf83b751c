"""Byte streams: joined, counted, limited, made seekable, some lines of one; and the exception for unusable files.

Limit: a packed file, with everything nested in it, may unpack to `MAX_RATIO` times its size, or to `MIN_INFLATED`
bytes if that is more. Text compresses to a tenth of its size, a zip bomb to a thousandth.

Memory: streams. `seekable` uses a temporary file above 16 MiB.
"""

import io
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, BinaryIO, cast

from kogpt.common.errors import DISK_FULL, UserError

MAX_RATIO = 200
MIN_INFLATED = 64 << 20

# Exceptions that a damaged or unreadable file raises while it is opened or read.
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,  # zipfile: encrypted
    NotImplementedError,  # zipfile: unknown compression
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    ValueError,  # names and values that are not Unicode, servers without seek
)


class Broken(Exception):
    """A file, or part of one, that cannot be used: the reason, a detail, and advice."""

    def __init__(self, reason: str, detail: str, mend: str = ""):
        super().__init__(reason, detail, mend)
        self.reason, self.detail, self.mend = reason, detail, mend


class Joined(io.RawIOBase):
    """The parts of a file as one seekable stream. Only one part is open at a time."""

    def __init__(self, parts: Sequence[tuple[Callable[[], BinaryIO], int]]):
        """`parts` are (function that opens the part, its size in bytes)."""
        self._parts = parts
        self._ends = list(accumulate(size for _, size in parts))
        self._at, self._open, self._current = 0, -1, cast(BinaryIO, io.BytesIO())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        if start + offset < 0:
            raise ValueError("a place before the first part")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        index = bisect_right(self._ends, self._at)
        if index == len(self._ends):
            return 0
        if index != self._open:
            self._current.close()
            self._open, self._current = index, self._parts[index][0]()
        start = self._ends[index - 1] if index else 0
        self._current.seek(self._at - start)
        content = self._current.read(min(len(buffer), self._ends[index] - self._at))
        if not content:
            raise EOFError("a part is shorter than it was")
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._current.close()
        super().close()


class LinesFrom(io.RawIOBase):
    """The lines of a seekable stream that begin at the bytes `start` to `end`, the last one excluded."""

    def __init__(self, stream: BinaryIO, start: int, end: int):
        self._stream, self._at, self._end = stream, start, end
        if start:
            stream.seek(start - 1)
            begun = stream.readline(end - start)  # of a line that belongs to the range before
            self._at = start - 1 + len(begun) if begun.endswith(b"\n") else end

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1) -> bytes:
        line = self._stream.readline() if self._at < self._end else b""
        self._at += len(line)
        return line

    def close(self) -> None:
        self._stream.close()
        super().close()


class KeptOpen(io.RawIOBase):
    """A stream whose `close` leaves the underlying stream open."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


class Counted(io.RawIOBase):
    """A stream that counts the bytes read from it."""

    def __init__(self, stream: BinaryIO):
        self._stream, self.count = stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self.count += len(content)
        buffer[: len(content)] = content
        return len(content)


class Budget:
    """How much one packed file, with everything nested in it, may unpack to."""

    def __init__(self, packed: Callable[[], int]):
        self._packed, self._inflated = packed, 0

    def spend(self, count: int) -> None:
        self._inflated += count
        if self._inflated > MIN_INFLATED and self._inflated > MAX_RATIO * self._packed():
            raise Broken(
                "inflates without end",
                f"more than {MAX_RATIO} times the packed size, and more than {MIN_INFLATED >> 20} MiB",
                "if this is intended, unpack it and give the files to --input",
            )


class Limited(io.RawIOBase):
    """An unpacked stream that spends a budget."""

    def __init__(self, stream: Any, budget: Budget):
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self._budget.spend(len(content))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def limited(stream: Any, budget: Budget) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(Limited(stream, budget), 1 << 16))


def seekable(stream: BinaryIO) -> BinaryIO:
    """The stream, or a seekable copy, which is in memory while it is small."""
    if stream.seekable():
        return stream
    copy = tempfile.SpooledTemporaryFile(max_size=16 << 20)  # noqa: SIM115 - it lives as long as its archive
    try:
        shutil.copyfileobj(stream, copy, 1 << 20)
    except OSError as error:
        copy.close()
        if error.errno in DISK_FULL:
            raise UserError(
                f"no space is left in {tempfile.gettempdir()} to unpack archives; free some, or name another folder "
                "with TMPDIR, and repeat the same command"
            ) from None
        raise
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return cast(BinaryIO, copy)
