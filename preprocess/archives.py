"""Archives: zip, tar, gz, bz2, xz, and zst opened in place, also nested.

`members(name, stream)` yields (name, stream) for every file in a stream. Archives appear as folders, as in
`TL1.zip/라벨/1.json`. Names are in NFC. Names in a zip are UTF-8, or cp949 if Korean Windows wrote them. The members
of a zip are sorted by name; those of a tar keep their order. The parts of a split archive (`TL1.zip.part0`,
`TL1.zip.part1073741824` from AI Hub, `TL1.zip.001`) are read as one file.

If a member cannot be opened, an exception is yielded instead of its stream, and the other members are still read.
Limits: `MAX_NESTING` nested archives, and the unpacked size (preprocess.streams).

Memory: streams. A nested archive that must be read from its end (a zip) may go through a temporary file.
"""

import bz2
import gzip
import io
import lzma
import posixpath
import re
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import pyarrow as pa

from preprocess.streams import READ_ERRORS, Broken, Budget, Counted, Joined, KeptOpen, limited, seekable

MAX_NESTING = 8

Member = tuple[str, BinaryIO | Exception]


# ---- names

SYSTEM_FILE = Broken("system file", "hidden, or left there by macOS, Windows or an office program")
_SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
_AGAIN = r"((?:~(?:[2-9]|[1-9]\d+))*)"
"""What `distinct` adds. A name that ends so by itself cannot be told from it."""
_PART = re.compile(rf"(.+\.(?:zip|tar|tgz|gz|zst))\.(?:part)?(\d+){_AGAIN}", re.IGNORECASE)


def is_system_file(path: str) -> bool:
    """Whether a file is hidden, or one that macOS, Windows, or an office program leaves beside others."""
    steps = [step for step in path.split("/") if step not in ("", ".", "..")]
    return any(step.startswith((".", "~$")) or step.lower() in _SYSTEM_FILES for step in steps)


def kind_of(name: str) -> str:
    """The kind of a file by its name: ".json" for `a.json`, `a.json.gz`, and `a.json~2`."""
    root, kind = posixpath.splitext(file_name(name).lower())
    while kind in _PACKED:
        root, kind = posixpath.splitext(root)
    return kind


def stable_name(path: str) -> str:
    """The path in NFC, as valid Unicode even if the file system's name is not."""
    return unicodedata.normalize("NFC", _guess_decoded(path.encode("utf-8", "surrogateescape")))


def _guess_decoded(raw: bytes) -> str:
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode("utf-8", "backslashreplace")


def distinct(names: Iterable[str]) -> list[str]:
    """Names made distinct (NFC can make two file names equal): the second `a` becomes `a~2`."""
    seen: Counter[str] = Counter()
    return [_distinct(name, seen) for name in names]


def _distinct(name: str, seen: Counter[str]) -> str:
    """The name, or the first of `name~2`, `name~3`, ... that no other file has."""
    seen[name] += 1
    if seen[name] == 1:
        return name
    while (again := f"{name}~{seen[name]}") in seen:
        seen[name] += 1
    seen[again] = 1
    return again


ITS_PARTS = " (its parts)"
"""Added to the name of a split archive that lies beside a file of its name."""
_ADDED = re.compile(rf"{_AGAIN}({re.escape(ITS_PARTS)})?\Z")


def file_name(name: str) -> str:
    """The name that the file has in its folder: `a.json` for `b/a.json~2`."""
    return _ADDED.sub("", posixpath.basename(name))


# ---- split archives


def part_of(name: str) -> tuple[str, int] | None:
    """(name of the whole, number) if this is the name of a part of a split archive.

    `a.zip.001~2` is a part of `a.zip~2`.
    """
    match = _PART.fullmatch(name)
    return (match[1] + match[3], int(match[2])) if match else None


def is_complete(numbers: Sequence[int]) -> bool:
    """Whether these sorted part numbers have no gap: they count from 0 or 1, or by a fixed size."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    return numbers[0] <= 1 and list(numbers) == [numbers[0] + i * step for i in range(len(numbers))]


# ---- members

_PACKED: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    # zstandard's own reader ends silently at a truncated file; this one raises.
    ".zst": lambda stream: pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"),
}


def members(name: str, stream: BinaryIO) -> Iterator[Member]:
    """(name, stream) of every file in a stream, which may be an archive.

    If a file cannot be opened, its stream is an exception. A stream is valid until the next one is requested.
    """
    return _members(name, stream, None, 0)


def _members(name: str, stream: BinaryIO, budget: Budget | None, depth: int) -> Iterator[Member]:
    return _unpacked(name, file_name(name).lower(), stream, budget, depth)


def _unpacked(name: str, rest: str, stream: BinaryIO, budget: Budget | None, depth: int) -> Iterator[Member]:
    """`rest` is the part of the name that is still to be unpacked: `a.tar` of `a.tar.gz`."""
    root, kind = posixpath.splitext(rest)
    if kind == ".tgz":
        root, kind = f"{root}.tar", ".gz"
    if kind not in (*_PACKED, ".zip", ".tar"):
        yield name, stream
    elif depth == MAX_NESTING:
        yield name, Broken("nested too deep", f"more than {MAX_NESTING} archives inside one another",
                           "unpack it and give the files to --input")  # fmt: skip
    elif kind == ".zip":
        yield from _zip_members(name, stream, budget, depth + 1)
    elif kind == ".tar":
        yield from _tar_members(name, stream, budget, depth + 1)
    else:
        if budget is None:
            counted = Counted(stream)
            stream, budget = cast(BinaryIO, io.BufferedReader(counted)), Budget(lambda: counted.count)
        try:
            unpacked = _PACKED[kind](stream)
        except READ_ERRORS as error:
            yield name, error
            return
        with limited(unpacked, budget) as inner:
            yield from _unpacked(name, root, inner, budget, depth + 1)


def _zip_members(name: str, stream: BinaryIO, budget: Budget | None, depth: int) -> Iterator[Member]:
    try:
        stream = seekable(stream)
        size = stream.seek(0, io.SEEK_END)
        archive = zipfile.ZipFile(stream)
    except (*READ_ERRORS, Broken) as error:
        yield name, error
        return
    with archive:
        found = [(_member_name(info), info) for info in archive.infolist() if not info.is_dir()]
        found.sort(key=lambda item: (item[0], item[1].header_offset))
        names = distinct(f"{name}/{path}" for path, _ in found)
        infos = [info for _, info in found]
        locked = Broken("encrypted", "it is locked with a password", "unpack it and give the folder to --input")
        if infos and all(info.flag_bits & 1 for info in infos):
            yield name, locked
            return
        if sum(info.compress_size for info in infos) > size:
            yield name, Broken("unreadable file", "its members overlap, as in a zip bomb")
            return
        for member, (path, info) in zip(names, found, strict=True):
            if info.flag_bits & 1 or is_system_file(path):
                yield member, locked if info.flag_bits & 1 else SYSTEM_FILE
                continue
            try:
                inner = archive.open(info)
            except READ_ERRORS as error:
                yield member, error
                continue
            own = budget or Budget(lambda packed=info.compress_size: packed)  # type: ignore[misc]
            with limited(inner, own) as content:
                yield from _members(member, content, own, depth)


def _member_name(info: zipfile.ZipInfo) -> str:
    """The name of a member. Without the UTF-8 flag it is UTF-8 (from a Mac) or cp949 (from Korean Windows)."""
    name = info.filename
    if not info.flag_bits & 0x800:
        name = _guess_decoded(info.orig_filename.encode("cp437", "replace"))
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


class _TarInfo(tarfile.TarInfo):
    """A header that raises an error if it is damaged. tarfile itself would take it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"damaged in the middle, what follows is lost: {error}") from None


def _tar_members(name: str, stream: BinaryIO, budget: Budget | None, depth: int) -> Iterator[Member]:
    seen: Counter[str] = Counter()
    parts: dict[str, list[tuple[int, BinaryIO, int]]] = {}
    try:
        mode = "r:" if stream.seekable() else "r|"
        with tarfile.open(  # type: ignore[call-overload]
            fileobj=stream, mode=mode, tarinfo=_TarInfo, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for info in archive:
                path = stable_name(posixpath.normpath(info.name))
                if not info.isfile():
                    continue
                if is_system_file(path):
                    yield _distinct(f"{name}/{path}", seen), SYSTEM_FILE
                    continue
                inner = archive.extractfile(info)
                if not stream.seekable():
                    # tarfile's own stream would claim to be seekable.
                    inner = cast(BinaryIO, io.BufferedReader(Counted(inner)))
                if part := part_of(path):
                    parts.setdefault(part[0], []).append((part[1], seekable(inner), info.size))
                    continue
                member = _distinct(f"{name}/{path}", seen)
                yield from _members(member, inner, budget, depth)
                archive.members = []  # otherwise every header stays in memory
            for whole, found in sorted(parts.items()):
                member = _distinct(f"{name}/{whole}", seen)
                yield from _joined_members(member, sorted(found, key=lambda part: part[0]), budget, depth)
    except (*READ_ERRORS, Broken) as error:
        yield name, error


def _joined_members(
    name: str, parts: list[tuple[int, BinaryIO, int]], budget: Budget | None, depth: int
) -> Iterator[Member]:
    if not is_complete([number for number, _, _ in parts]):
        yield name, missing_part([number for number, _, _ in parts])
        return
    # A part in a tar is read through the tar: when Joined closes it, the tar must stay open.
    whole = Joined([(lambda stream=stream: KeptOpen(stream), size) for _, stream, size in parts])  # type: ignore[misc]
    yield from _members(name, cast(BinaryIO, io.BufferedReader(whole)), budget, depth)


def missing_part(numbers: Sequence[int]) -> Broken:
    """The error for an incomplete split archive."""
    shown = ", ".join(map(str, numbers[:8]))
    return Broken("unreadable file", f"a part of it is missing; there are {shown}", "put the other parts beside it")
