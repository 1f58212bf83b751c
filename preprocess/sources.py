"""Input files: paths, folders, globs, and URLs -> named byte streams in a stable order.

URLs (s3://, https://, ...) are read through preprocess.remote. Archives are opened in place (preprocess.archives), and
links to folders are followed (preprocess.folders). The name of a source is its path relative to the common parent of
all inputs, in NFC, with an archive as if it were a folder. Sources are sorted by name, so the order of the file system
does not matter. A file that cannot be read is a source as well, with the reason.

Memory: streams are read as they are consumed.
"""

import io
import os
import posixpath
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, NamedTuple, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from kogpt.common.errors import UserError
from preprocess.archives import (
    ITS_PARTS,
    SYSTEM_FILE,
    Member,
    distinct,
    is_complete,
    members,
    missing_part,
    part_of,
    stable_name,
)
from preprocess.folders import EVERYTHING, NO_FILE, walk
from preprocess.remote import Version, file_system, is_web, listing, open_remote, reason, split_glob
from preprocess.streams import READ_ERRORS, Broken, Joined, LinesFrom


@dataclass(frozen=True)
class Source:
    """A file to read: its stable name, its location, and the --input that named it."""

    name: str
    item: str
    files: fsspec.AbstractFileSystem
    paths: tuple[str, ...]
    """The file, or the parts of a split archive in order."""
    problem: Broken | None = field(default=None, compare=False)
    versions: tuple[Version | None, ...] = field(default=(None,), compare=False)
    """What an object store listed for each path; None elsewhere."""
    part: tuple[int, int] | None = None
    """Only the lines that begin at these bytes, the last one excluded."""

    @property
    def is_local(self) -> bool:
        return isinstance(self.files, LocalFileSystem)

    @property
    def is_web(self) -> bool:
        return is_web(self.files)

    @property
    def url(self) -> str:
        """of the first path"""
        return self.files.unstrip_protocol(self.paths[0])

    def reach(self) -> None:
        """Read from the first of the paths. Raises `UserError` where this machine cannot, or has no credentials."""
        with self._open_path(self.paths[0], self.versions[0]) as stream:
            stream.read(1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bytes of each path; an `OSError` where nobody knows."""
        if self.is_local:
            return tuple(map(os.path.getsize, self.paths))
        sizes = tuple(self.files.size(path) if version is None else version.size for path, version in self._places())
        if None in sizes:  # a web server need not say it
            raise OSError(f"{self.url} has no size")
        return sizes

    def state(self) -> str:
        """What changes with the content: size and time of a file, size and ETag of an object.

        Raises `OSError` where nobody knows.
        """
        known: Iterable[Any] = self.versions
        if self.is_local:
            known = [(found.st_size, found.st_mtime_ns) for found in map(os.stat, self.paths)]
        elif not all(version and version.etag for version in self.versions):
            raise OSError(f"{self.url} has no ETag")
        return repr((self.name, self.paths, self.part, self.problem, [tuple(one) for one in known]))

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
        opens = [partial(self._open_path, *row) for row in self._places()]
        if self.part is not None:
            return cast(BinaryIO, LinesFrom(opens[0](), *self.part))
        if len(opens) == 1:
            return opens[0]()
        return cast(BinaryIO, io.BufferedReader(Joined(list(zip(opens, self.sizes, strict=True)))))

    def _places(self) -> Iterator[tuple[str, Version | None]]:
        return zip(self.paths, self.versions, strict=True)

    def _open_path(self, path: str, version: Version | None) -> BinaryIO:
        return self.files.open(path, "rb") if self.is_local else open_remote(self.files, path, version)


class _Found(NamedTuple):
    path: str
    problem: Broken | None
    version: Version | None = None


Expansion = tuple[Any, str, list[_Found]]
"""The file system, the folder that names are relative to, and the files of one input."""


def find_sources(
    inputs: tuple[str, ...], flag: str = "--input", expand: Callable[[str, str], Expansion] | None = None
) -> list[Source]:
    """All files of the inputs, each once, sorted by stable name. `expand` finds those of one input."""
    found: dict[str, tuple[str, Any, _Found]] = {}
    bases: list[str] = []
    protocols = set()
    for item in inputs:
        files, base, paths = (expand or expanded)(item, flag)
        bases.append(base)
        protocols.add(files.protocol)
        for one in paths:
            found.setdefault(files.unstrip_protocol(one.path), (item, files, one))
    root = posixpath.commonpath(bases) if len(protocols) == 1 else ""
    named = []
    for url, (item, files, one) in found.items():
        name = posixpath.relpath(one.path, root) if root else url
        if is_web(files):
            name = name.partition("?")[0]  # the query is not part of the name
        named.append((stable_name(name), one, item, files))
    named.sort(key=lambda row: (row[0], row[1].path.encode("utf-8", "surrogateescape")))
    names = distinct(name for name, *_ in named)
    sources = [
        Source(name, item, files, (one.path,), one.problem, (one.version,))
        for name, (_, one, item, files) in zip(names, named, strict=True)
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
        name = name if name not in taken else name + ITS_PARTS
        paths = tuple(source.paths[0] for source in found)
        versions = tuple(version for source in found for version in source.versions)
        problem = None if is_complete(numbers) else missing_part(numbers)
        whole.append(Source(name, found[0].item, found[0].files, paths, problem, versions))
    return sorted(whole, key=lambda source: source.name)


def expanded(item: str, flag: str) -> Expansion:
    """The files of one input. Raises `UserError` if there are none."""
    why = "it is empty"
    try:
        if "://" in item:
            files, path = file_system(item)
        else:
            files, path = fsspec.core.url_to_fs(os.path.expanduser(item))
        base, paths = (_local if isinstance(files, LocalFileSystem) else _remote)(files, path)
    except FileNotFoundError as error:
        paths, why = [], reason(error)
    except Exception as error:  # network libraries raise their own types
        why = reason(error) if "://" in item else " ".join(str(error).split())
        raise UserError(f"{flag} {item} cannot be read from {socket.gethostname()}: {why}") from None
    if not paths and "://" in item:
        raise UserError(f"{flag} {item}: no file found ({why}); check the bucket or server, and the path")
    if not paths:
        raise UserError(
            f"{flag} {item}: no file found on {socket.gethostname()}, the node that reads all input; "
            "check the path, or put the files where this node sees them"
        )
    return files, base, paths


def _local(files: Any, path: str) -> tuple[str, list[_Found]]:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        # A glob only if no such path exists: AI Hub's folder names contain brackets.
        base, steps = split_glob(path)
        return base, [_Found(*one) for one in walk(base, steps)] if os.path.isdir(base) else []
    if stat.S_ISDIR(mode):
        return path, [_Found(*one) for one in walk(path, EVERYTHING)]
    return posixpath.dirname(path) or "/", [_Found(path, None if stat.S_ISREG(mode) else NO_FILE)]


def _remote(files: Any, path: str) -> tuple[str, list[_Found]]:
    base, listed = listing(files, path)
    return base, [_Found(one.path, SYSTEM_FILE if one.hidden else None, one.version) for one in listed]
