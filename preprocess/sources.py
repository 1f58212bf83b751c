"""Where files come from: paths, folders, globs and URLs -> named byte streams in a stable order.

Everything goes through fsspec (local paths, s3://, gs://, https://, ...). `.zip`, `.gz` and `.zst` are read in
place, one inside another too. A source's name is its path relative to what all inputs have in common, in NFC, with
a zip's members as if the zip were a folder; sources are sorted by name, so the order of the file system does not
matter. Names in zips are UTF-8, or cp949 as Korean Windows writes them.

Memory: a stream is read as it is consumed; a zip inside a zip is held whole.
"""

import gzip
import io
import os
import posixpath
import socket
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa

from kogpt.common.errors import UserError

# What a damaged or unreadable file raises while it is opened or read.
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,  # zipfile: encrypted
    NotImplementedError,  # zipfile: unknown compression
    zipfile.BadZipFile,
    zlib.error,
    ValueError,  # names and values that are not Unicode, servers that cannot seek
)


@dataclass(frozen=True)
class Source:
    """A file to read: its stable name, and where it lies."""

    name: str
    path: str
    files: fsspec.AbstractFileSystem

    def members(self) -> Iterator[tuple[str, BinaryIO | Exception]]:
        """(name, stream) of everything inside, archives opened; an exception where a part cannot be opened.

        A stream is valid until the next one is asked for.
        """
        try:
            stream = self.files.open(self.path, "rb")
        except READ_ERRORS as error:
            yield self.name, error
            return
        with stream:
            yield from _members(self.name, stream)


def kind_of(name: str) -> str:
    """What a file holds, by its name: ".json" for `a.json` and for `a.json.gz`."""
    root, kind = posixpath.splitext(name.lower())
    return kind_of(root) if kind in (".gz", ".zst") else kind


def _members(name: str, stream: BinaryIO) -> Iterator[tuple[str, BinaryIO | Exception]]:
    if name.lower().endswith(".gz"):
        stream = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
    elif name.lower().endswith(".zst"):
        # zstandard's own reader ends quietly where a file is cut off; this one raises.
        reader = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
        stream = io.BufferedReader(reader)
    if kind_of(name) == ".zip":
        yield from _zip_members(name, stream)
    else:
        yield name, stream


def _zip_members(name: str, stream: BinaryIO) -> Iterator[tuple[str, BinaryIO | Exception]]:
    try:
        archive = zipfile.ZipFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    except READ_ERRORS as error:
        yield name, error
        return
    with archive:
        infos = [(f"{name}/{_member_name(info)}", info) for info in archive.infolist() if not info.is_dir()]
        infos.sort(key=lambda item: (item[0], item[1].header_offset))
        names = _distinct([member for member, _ in infos])
        for member, (_, info) in zip(names, infos, strict=True):
            try:
                inner = archive.open(info)
                if member.lower().endswith(".zip"):
                    with inner:
                        inner = io.BytesIO(inner.read())
            except READ_ERRORS as error:
                yield member, error
                continue
            with inner:
                yield from _members(member, inner)  # type: ignore[arg-type]


def _member_name(info: zipfile.ZipInfo) -> str:
    """A member's name; without the UTF-8 flag it is UTF-8 from a Mac or cp949 from Korean Windows."""
    name = info.filename
    if not info.flag_bits & 0x800:
        name = _guess_decoded(info.orig_filename.encode("cp437", "replace"))
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _guess_decoded(raw: bytes) -> str:
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode("utf-8", "backslashreplace")


def _stable_name(path: str) -> str:
    """NFC, and valid Unicode even where the file system's name is not."""
    return unicodedata.normalize("NFC", _guess_decoded(path.encode("utf-8", "surrogateescape")))


def _distinct(names: list[str]) -> list[str]:
    """Names made distinct (NFC can make two file names equal): the second `a` becomes `a~2`."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}~{seen[name]}")
    return result


def find_sources(inputs: tuple[str, ...]) -> list[Source]:
    """All files that the inputs name, each once, sorted by stable name."""
    found: dict[str, tuple[Any, str]] = {}
    bases: list[str] = []
    protocols = set()
    for item in inputs:
        files, base, paths = _expand(item)
        bases.append(base)
        protocols.add(files.protocol)
        for path in paths:
            found[files.unstrip_protocol(path)] = (files, path)
    root = posixpath.commonpath(bases) if len(protocols) == 1 else ""
    named = []
    for url, (files, path) in found.items():
        name = posixpath.relpath(path, root) if root else url
        named.append((_stable_name(name), path, files))
    named.sort(key=lambda item: (item[0], item[1].encode("utf-8", "surrogateescape")))
    names = _distinct([name for name, _, _ in named])
    return [Source(name, path, files) for name, (_, path, files) in zip(names, named, strict=True)]


def _expand(item: str) -> tuple[Any, str, list[str]]:
    """(file system, folder that names are relative to, files) of one input."""
    try:
        files, path = fsspec.core.url_to_fs(item if "://" in item else os.path.expanduser(item))
        try:
            folder = files.info(path)["type"] == "directory"
        except FileNotFoundError:
            if not any(character in path for character in "*?["):
                raise
            # Only now a glob: AI Hub's own folder names hold brackets.
            paths = [match for match in files.glob(path) if files.isfile(match)]
            steps = path.split("/")
            magic = next(i for i, step in enumerate(steps) if any(character in step for character in "*?["))
            base = "/".join(steps[:magic]) or "/"
        else:
            base = path if folder else posixpath.dirname(path) or "/"
            paths = files.find(path) if folder else [path]
    except FileNotFoundError:
        paths = []
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"--input {item} cannot be read from {socket.gethostname()}: {error}") from None
    if not paths:
        raise UserError(
            f"--input {item}: no file is there as seen from {socket.gethostname()}, the node that reads for all; "
            "check the path, or put the files where this node sees them"
        )
    return files, base, paths
