"""Input files: paths, folders, globs, and URLs -> named byte streams in a stable order.

Everything goes through fsspec (local paths, s3://, gs://, https://, ...). Archives are opened in place
(preprocess.archives), and links to folders are followed (preprocess.folders). The name of a source is its path relative
to the common parent of all inputs, in NFC, with an archive as if it were a folder. Sources are sorted by name, so the
order of the file system does not matter. A file that cannot be read is a source as well, with the reason.

Memory: streams are read as they are consumed.
"""

import io
import os
import posixpath
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from kogpt.common.errors import UserError
from preprocess.archives import (
    SYSTEM_FILE,
    Member,
    distinct,
    is_complete,
    is_system_file,
    members,
    missing_part,
    part_of,
    stable_name,
)
from preprocess.folders import EVERYTHING, NO_FILE, walk
from preprocess.streams import READ_ERRORS, Broken, Joined


@dataclass(frozen=True)
class Source:
    """A file to read: its stable name, its location, and the --input that named it."""

    name: str
    item: str
    files: fsspec.AbstractFileSystem
    paths: tuple[str, ...]
    """The file, or the parts of a split archive in order."""
    problem: Broken | None = field(default=None, compare=False)

    def members(self) -> Iterator[Member]:
        """(name, stream) of every file in it, with archives opened; an exception instead of a stream that fails.

        A stream is valid until the next one is requested.
        """
        if self.problem is not None:
            yield self.name, self.problem
            return
        try:
            stream = self._open()
        except READ_ERRORS as error:
            yield self.name, error
            return
        with stream:
            yield from members(self.name, stream)

    def _open(self) -> BinaryIO:
        if len(self.paths) == 1:
            return _open(self.files, self.paths[0])
        parts = [(lambda path=path: _open(self.files, path), self.files.size(path)) for path in self.paths]
        return cast(BinaryIO, io.BufferedReader(Joined(parts)))


def _open(files: Any, path: str) -> BinaryIO:
    if isinstance(files, LocalFileSystem):
        return files.open(path, "rb")
    return cast(BinaryIO, io.BufferedReader(_Remote(files, path), 1 << 20))


class _Remote(io.RawIOBase):
    """A remote file. Every exception of its library becomes an OSError."""

    def __init__(self, files: Any, path: str):
        self._file: Any = io.BytesIO()
        web = "http" in files.protocol
        # fsspec reads the web in ranges, which not every server supports: read one response from start to end instead.
        self._file = self._tried(lambda: files.open(path, "rb", **({"block_size": 0} if web else {})))
        self._seekable = not web and self._file.seekable()

    @staticmethod
    def _tried(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            # fsspec reports every refusal as a missing file.
            status = next((s for e in (error, error.__cause__) if (s := getattr(e, "status", None))), None)
            why = f"HTTP status {status}" if status else " ".join(str(error).split()) or type(error).__name__
            raise OSError(why) from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._tried(self._file.seek, offset, whence)

    def readinto(self, buffer: Any) -> int:
        content = self._tried(self._file.read, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


_Found = tuple[str, Broken | None]


def find_sources(inputs: tuple[str, ...], flag: str = "--input") -> list[Source]:
    """All files of the inputs, each once, sorted by stable name."""
    found: dict[str, tuple[str, Any, str, Broken | None]] = {}
    bases: list[str] = []
    protocols = set()
    for item in inputs:
        files, base, paths = _expand(item, flag)
        bases.append(base)
        protocols.add(files.protocol)
        for path, problem in paths:
            found.setdefault(files.unstrip_protocol(path), (item, files, path, problem))
    root = posixpath.commonpath(bases) if len(protocols) == 1 else ""
    named = []
    for url, (item, files, path, problem) in found.items():
        name = posixpath.relpath(path, root) if root else url
        if "http" in files.protocol:
            name = name.partition("?")[0]  # the query is not part of the name
        named.append((stable_name(name), path, item, files, problem))
    named.sort(key=lambda row: (row[0], row[1].encode("utf-8", "surrogateescape")))
    names = distinct(name for name, *_ in named)
    sources = [
        Source(name, item, files, (path,), problem)
        for name, (_, path, item, files, problem) in zip(names, named, strict=True)
    ]
    return _joined(sources)


def _joined(sources: list[Source]) -> list[Source]:
    """The sources, with the parts of each split archive joined into one."""
    parts: dict[str, list[tuple[int, Source]]] = {}
    whole = []
    for source in sources:
        if (part := part_of(source.name)) and source.problem is None:
            parts.setdefault(part[0], []).append((part[1], source))
        else:
            whole.append(source)
    if not parts:
        return sources
    taken = {source.name for source in whole}
    for name, numbered in parts.items():
        numbered.sort(key=lambda row: row[0])
        numbers, found = [number for number, _ in numbered], [source for _, source in numbered]
        name = name if name not in taken else f"{name} (its parts)"
        paths = tuple(source.paths[0] for source in found)
        whole.append(
            Source(name, found[0].item, found[0].files, paths, None if is_complete(numbers) else missing_part(numbers))
        )
    return sorted(whole, key=lambda source: source.name)


def _expand(item: str, flag: str) -> tuple[Any, str, list[_Found]]:
    """(file system, folder that names are relative to, files) of one input."""
    try:
        options = _web_options() if item.startswith(("http://", "https://")) else {}
        files, path = fsspec.core.url_to_fs(item if "://" in item else os.path.expanduser(item), **options)
        base, paths = (_local if isinstance(files, LocalFileSystem) else _remote)(files, path)
    except FileNotFoundError:
        paths = []
    except Exception as error:  # network libraries raise their own types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{flag} {item} cannot be read from {socket.gethostname()}: {reason}") from None
    if not paths:
        raise UserError(
            f"{flag} {item}: no file found on {socket.gethostname()}, the node that reads all input; "
            "check the path, or put the files where this node sees them"
        )
    return files, base, paths


def _web_options() -> dict[str, Any]:
    """No time limit for a whole file (5 minutes by default), but one for a server that stops answering."""
    import aiohttp

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


def _split_glob(path: str) -> tuple[str, tuple[str, ...]]:
    """(the folder before the first wildcard, the parts from there on)."""
    steps = path.split("/")
    magic = next((i for i, step in enumerate(steps) if any(character in step for character in "*?[")), len(steps))
    if magic == len(steps):
        raise FileNotFoundError(path)
    return "/".join(steps[:magic]) or "/", tuple(steps[magic:])


def _local(files: Any, path: str) -> tuple[str, list[_Found]]:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        # A glob only if no such path exists: AI Hub's folder names contain brackets.
        base, steps = _split_glob(path)
        return base, list(walk(base, steps)) if os.path.isdir(base) else []
    if stat.S_ISDIR(mode):
        return path, list(walk(path, EVERYTHING))
    return posixpath.dirname(path) or "/", [(path, None if stat.S_ISREG(mode) else NO_FILE)]


def _remote(files: Any, path: str) -> tuple[str, list[_Found]]:
    if "http" in files.protocol and not any(character in path for character in "*["):
        return posixpath.dirname(path), [(path, None)]  # an error of the server costs only this file
    try:
        folder = files.info(path)["type"] == "directory"
    except FileNotFoundError:
        base, _ = _split_glob(path)
        found = [match for match in files.glob(path) if files.isfile(match)]
    else:
        base = path if folder else posixpath.dirname(path) or "/"
        found = files.find(path) if folder else [path]
    return base, [(match, SYSTEM_FILE if is_system_file(match[len(base) :]) else None) for match in found]
