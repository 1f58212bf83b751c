"""What a file holds: a function for each format, a byte stream -> its texts and values.

JSON, JSONL, plain text and parquet. A str is a document, a `Broken` a part that is none; any other value goes to a
`Layout` (preprocess.layouts), which knows where in it the text stands. Bytes are UTF-8, with or without a byte order
mark, else cp949. What is broken costs itself: a line, or the rest of a file.

Memory: one file (JSON, txt), one line, or one row group (parquet).
"""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from kogpt.tokenizer.normalize import decode
from preprocess.layouts import Layout
from preprocess.sources import READ_ERRORS, kind_of

# What a damaged file raises while it is parsed.
PARSE_ERRORS = (*READ_ERRORS, pa.ArrowException)


class Broken(Exception):
    """A part of a file that cannot be used: (reason, detail)."""


def values(name: str, stream: BinaryIO | Exception, layout: Layout) -> Iterator[Any]:
    """A file's contents: a str is a text, a `Broken` a part that is none, anything else goes to the layout."""
    if isinstance(stream, Exception):
        raise stream
    read: dict[str, Callable[[BinaryIO, Layout], Iterator[Any]]] = {
        ".json": _json,
        ".jsonl": _lines,
        ".ndjson": _lines,
        ".txt": _txt,
        ".parquet": _parquet,
    }
    kind = kind_of(name)
    if kind not in read:
        raise Broken("unknown file type", f"{kind or 'no extension'}; known are {', '.join(read)}")
    yield from read[kind](stream, layout)


def _txt(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    yield _decode(stream.read())


def _json(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    content = stream.read()
    try:
        yield _parse(content)
    except Broken:
        # Not seldom a file named .json holds a value a line.
        lines = [line for line in content.split(b"\n") if line.strip()]
        if len(lines) < 2 or isinstance(_parse_line(lines[0]), Broken):
            raise
        yield from map(_parse_line, lines)


def _lines(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    # No byte of a cp949 character is a line feed.
    return (_parse_line(line) for line in stream if line.strip())


def _parse_line(line: bytes) -> Any:
    try:
        return _parse(line)
    except Broken as broken:
        return broken


def _parquet(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    file = pq.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    wanted = {preset.path.column for preset in layout.presets}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    if not columns:
        raise Broken("no text at the path", f"looked for {' or '.join(sorted(wanted))}; "
                      f"found {', '.join(file.schema_arrow.names[:12])}")  # fmt: skip
    for batch in file.iter_batches(batch_size=256, columns=columns):
        yield from batch.to_pylist()


def _decode(content: bytes) -> str:
    try:
        return decode(content)
    except UnicodeDecodeError as error:
        raise Broken("unknown encoding", f"neither UTF-8 nor cp949: {error.reason} at byte {error.start}") from None


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        # Python's parser takes what orjson refuses: lone surrogates, raw control characters, NaN.
        return json.loads(_decode(content), strict=False)
    except (ValueError, RecursionError) as error:
        raise Broken("broken JSON", one_line(error)) from None


def one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which differs from machine to machine
    return " ".join(str(error).split()) or type(error).__name__
