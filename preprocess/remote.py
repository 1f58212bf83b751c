"""Files that are not on this machine, through fsspec: web servers, and object stores such as s3:// and gs://.

`file_system(url)` gives what fsspec knows it by, `listing` the files below a path, `open_remote` a byte stream.
Credentials, region, and endpoint come from the environment or the usual files of the store's own client
(AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, ...) of each machine. They are not part of what is sent to workers,
logged, or written; a password or signature within a URL may be.

What a web server refuses costs its own file. An object store is asked again for about a minute, and then the run stops:
no object may be missing from a corpus because of a network or of who read it. An object counts as the version that was
listed, by its ETag; if another one is found, the run stops as well.

Memory: up to twice `_BLOCK` bytes per open object; about 1 KB per object while a store is listed.
"""

import io
import os
import posixpath
import socket
from typing import Any, BinaryIO, NamedTuple, cast

import fsspec

from kogpt.common.errors import UserError
from preprocess.archives import is_system_file

WEB = ("http", "https")
"""protocols of web servers"""
_BLOCK = 4 << 20
_ATTEMPTS = 10
_MENDS = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
    "PermissionError": "check the credentials, and that they may list, read, and write there",
    "EndpointConnectionError": "repeat the same command when it answers",
}
"""exception -> what to do"""
BUCKETS = {"s3", "gs"}
"""Stores whose paths begin with a bucket."""
_PACKAGES = {"s3": "'kogpt[s3]'", "s3a": "'kogpt[s3]'", "gs": "gcsfs", "gcs": "gcsfs"}


class Version(NamedTuple):
    """Which content of an object a listing saw."""

    size: int
    """bytes"""
    etag: str | None


class Listed(NamedTuple):
    """A file below a path."""

    path: str
    version: Version | None
    hidden: bool
    """It is a system file, or a folder of them."""


def protocols(files: Any) -> tuple[str, ...]:
    """The names of a file system."""
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def is_web(files: Any) -> bool:
    return "http" in protocols(files)


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path within it. Raises whatever its library does (see `reason`)."""
    protocol = url.partition("://")[0]
    options: dict[str, Any] = {}
    if protocol in WEB:
        import aiohttp

        # No time limit for a whole file (5 minutes by default), but one for a server that stops answering.
        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)}
    elif protocol in ("s3", "s3a"):
        options["use_listings_cache"] = False
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            options["config_kwargs"] = {"retries": {"mode": "standard", "max_attempts": _ATTEMPTS}}
    try:
        return fsspec.core.url_to_fs(url, **options)
    except ImportError:
        if protocol not in _PACKAGES:
            raise
        raise ImportError(f"{protocol}:// needs a package; run pip install {_PACKAGES[protocol]}") from None


def reason(error: Exception) -> str:
    """An exception of any library in one line, with what to do where that is known."""
    # fsspec reports every refusal of a web server as a missing file.
    status = next((s for e in (error, error.__cause__) if (s := getattr(e, "status", None))), None)
    why = f"HTTP status {status}" if status else " ".join(str(error).split()) or type(error).__name__
    mend = next((_MENDS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _MENDS), None)
    return f"{why}; {mend}" if mend else why


def listing(files: Any, path: str) -> tuple[str, list[Listed]]:
    """(folder that names are relative to, files) of a path or glob. Raises FileNotFoundError."""
    if is_web(files) and not any(character in path for character in "*["):
        return posixpath.dirname(path), [Listed(path, None, False)]  # an error of the server costs only this file
    try:
        info = files.info(path)
    except FileNotFoundError:
        bucket = path.partition("/")[0]
        if BUCKETS.intersection(protocols(files)) and not files.exists(bucket):
            raise FileNotFoundError(f"there is no bucket {bucket}") from None
        base, _ = split_glob(path)
        found = files.glob(path, detail=True)
    else:
        folder = info["type"] == "directory"
        base = path if folder else posixpath.dirname(path) or "/"
        found = files.find(path, detail=True) if folder else {path: info}
    rows: dict[str, Listed] = {}
    for match, info in found.items():
        if info["type"] == "file" and not match.endswith("/"):  # an object of this name stands for an empty folder
            hidden = None if match == path else _hidden(base, match)  # a file that is named is wanted
            version = None if is_web(files) else _version(info)
            rows.setdefault(hidden or match, Listed(hidden or match, version, hidden is not None))
    return base, list(rows.values())


def split_glob(path: str) -> tuple[str, tuple[str, ...]]:
    """(the folder before the first wildcard, the parts from there on)."""
    steps = path.split("/")
    magic = next((i for i, step in enumerate(steps) if any(character in step for character in "*?[")), len(steps))
    if magic == len(steps):
        raise FileNotFoundError("there is nothing of this name")
    return "/".join(steps[:magic]) or "/", tuple(steps[magic:])


def _hidden(base: str, path: str) -> str | None:
    """The path as far as the first hidden folder in it or hidden file, as a local folder is read."""
    steps = path.removeprefix(base).split("/")
    for count, step in enumerate(steps, 1):
        if is_system_file(step):
            return path.removesuffix("/".join(steps[count:])).rstrip("/")
    return None


def _version(info: dict[str, Any]) -> Version | None:
    return None if info.get("size") is None else Version(info["size"], info.get("ETag") or info.get("etag"))


def open_remote(files: Any, path: str, version: Version | None) -> BinaryIO:
    """A stream of a file. It raises OSError if a web server fails, UserError if a store does or has another version."""
    return cast(BinaryIO, io.BufferedReader(_Remote(files, path, version), 1 << 20))


def _opened(files: Any, path: str, version: Version | None) -> Any:
    if version is None or not version.etag:
        # fsspec reads the web in ranges, which not every server supports: read one response from start to end instead.
        return files.open(path, "rb", block_size=0 if is_web(files) else _BLOCK)
    if "s3" in protocols(files):  # no request for what the listing said; each range is asked for in this version
        file = files.open(path, "rb", block_size=_BLOCK, size=version.size)
        file.details = {"name": path, "type": "file", "size": version.size, "ETag": version.etag}
        file.read_kw = {**file.read_kw, "IfMatch": version.etag}
        return file
    file = files.open(path, "rb", block_size=_BLOCK)
    if _version(file.details) != version:
        raise FileNotFoundError(path)
    return file


class _Remote(io.RawIOBase):
    """A remote file."""

    def __init__(self, files: Any, path: str, version: Version | None):
        self._file: Any = io.BytesIO()
        self._url, self._web = files.unstrip_protocol(path), is_web(files)
        self._file = self._tried(_opened, files, path, version)
        self._seekable = not self._web and self._file.seekable()

    def _tried(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # network libraries raise their own types
            return self._fail(error)

    def _fail(self, error: Exception) -> Any:
        if self._web:
            raise OSError(reason(error)) from None
        if isinstance(error, FileNotFoundError) or type(error).__name__ == "FileExpired":
            raise UserError(f"{self._url} changed while the input was read; repeat the same command") from None
        raise UserError(f"{self._url} cannot be read from {socket.gethostname()}: {reason(error)}") from None

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
