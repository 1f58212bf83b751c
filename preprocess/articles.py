"""Where documents come from: sources -> `Document(id, source, text)` or `Dropped(source, reason, detail)`.

JSON, JSONL, plain text and parquet; which text of a JSON value or a parquet row is meant says a `Layout`. Bytes are
UTF-8, with or without a byte order mark, else cp949. Texts come out normalised (kogpt.tokenizer.normalize), without
the empty ones and the exact repetitions; whatever is left out is yielded with its reason, and a broken file or line
costs only itself. Ids are `source#number of the document in the source`.

Order and ids depend on names and contents alone. Memory: one file (JSON, txt) or one line or row group, and
32 bytes + an id for each document seen (repetitions). Cost: parsing, NFC and sha256, about 20 million characters/s.
"""

import hashlib
import io
import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from kogpt.common.errors import UserError
from kogpt.tokenizer.normalize import Removed, decode, normalize
from preprocess.layouts import PRESETS, Layout, matching
from preprocess.sources import READ_ERRORS, Source, kind_of

_SAMPLED_FILES, _SAMPLED_VALUES = 24, 4


@dataclass(frozen=True)
class Document:
    """A text to go into the corpus: normalised, not empty, seen for the first time."""

    id: str
    source: str
    text: str
    sha256: str
    removed: Removed


@dataclass(frozen=True)
class Dropped:
    """What does not go into the corpus, and why."""

    id: str
    source: str
    reason: str
    detail: str


class _Broken(Exception):
    """A part of a file that cannot be used: (reason, detail)."""


def read_documents(sources: Iterable[Source], layout: Layout, limit: int | None = None) -> Iterator[Document | Dropped]:
    """Everything in the sources, in order, until `limit` documents were kept."""
    first_with: dict[bytes, str] = {}
    kept = 0
    for source, number, text in chain.from_iterable(_texts(source, layout) for source in sources):
        id = f"{source}#{number}"
        if isinstance(text, _Broken):
            yield Dropped(id, source, *text.args)
            continue
        text, removed = normalize(text)
        digest = hashlib.sha256(text.encode())
        if not text.strip():
            yield Dropped(id, source, "empty", "no character but white space")
        elif (twin := first_with.setdefault(digest.digest(), id)) != id:
            yield Dropped(id, source, "duplicate", f"same text as {twin}")
        else:
            yield Document(id, source, text, digest.hexdigest(), removed)
            kept += 1
            if kept == limit:
                return


def _texts(source: Source, layout: Layout) -> Iterator[tuple[str, int, str | _Broken]]:
    for name, stream in source.members():
        number = 0
        try:
            if layout.is_side_file(posixpath.basename(name)):
                raise _Broken("side file", f"layout {layout.name} has no text in it")
            for value in _values(name, stream, layout):
                for text in _value_texts(value, layout):
                    yield name, number, text
                    number += 1
        except _Broken as broken:
            yield name, number, broken
        except (*READ_ERRORS, pa.ArrowException) as error:
            yield name, number, _Broken("unreadable file", _one_line(error))


def _value_texts(value: Any, layout: Layout) -> Iterable[str | _Broken]:
    if isinstance(value, str | _Broken):
        return [value]
    missing = _Broken("no text at the path", _describe(value, layout))
    texts = layout.documents(value) or [None]
    return [missing if text is None else text for text in texts]


def _describe(value: Any, layout: Layout) -> str:
    paths = " or ".join(preset.path.path for preset in layout.presets)
    keys = ", ".join(map(str, islice(value, 12))) if isinstance(value, dict) else type(value).__name__
    return f"looked for {paths}; found {keys}"


def _values(name: str, stream: BinaryIO | Exception, layout: Layout) -> Iterator[Any]:
    """A file's contents: a str is a text, a `_Broken` a part that is none, anything else goes to the layout."""
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
        raise _Broken("unknown file type", f"{kind or 'no extension'}; known are {', '.join(read)}")
    yield from read[kind](stream, layout)


def _txt(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    yield _decode(stream.read())


def _json(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    content = stream.read()
    try:
        yield _parse(content)
    except _Broken:
        # Not seldom a file named .json holds a value a line.
        lines = [line for line in content.split(b"\n") if line.strip()]
        if len(lines) < 2 or isinstance(_parse_line(lines[0]), _Broken):
            raise
        yield from map(_parse_line, lines)


def _lines(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    # No byte of a cp949 character is a line feed.
    return (_parse_line(line) for line in stream if line.strip())


def _parse_line(line: bytes) -> Any:
    try:
        return _parse(line)
    except _Broken as broken:
        return broken


def _parquet(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    file = pq.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    wanted = {preset.path.column for preset in layout.presets}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    if not columns:
        raise _Broken("no text at the path", f"looked for {' or '.join(sorted(wanted))}; "
                      f"found {', '.join(file.schema_arrow.names[:12])}")  # fmt: skip
    for batch in file.iter_batches(batch_size=256, columns=columns):
        yield from batch.to_pylist()


def _decode(content: bytes) -> str:
    try:
        return decode(content)
    except UnicodeDecodeError as error:
        raise _Broken("unknown encoding", f"neither UTF-8 nor cp949: {error.reason} at byte {error.start}") from None


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        # Python's parser takes what orjson refuses: lone surrogates, raw control characters, NaN.
        return json.loads(_decode(content), strict=False)
    except (ValueError, RecursionError) as error:
        raise _Broken("broken JSON", _one_line(error)) from None


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which differs from machine to machine
    return " ".join(str(error).split()) or type(error).__name__


def guess_layout(sources: list[Source]) -> tuple[Layout, str]:
    """(layout, sentence that says what was seen) from files spread evenly over the sources."""
    everything = Layout(tuple(PRESETS.values()))
    step = max(1, -(-len(sources) // _SAMPLED_FILES))
    seen: Counter[str] = Counter()
    texts = values = 0
    unknown = ""
    for source in sources[::step]:
        for name, stream in islice(source.members(), _SAMPLED_VALUES):
            try:
                for value in islice(_values(name, stream, everything), _SAMPLED_VALUES):
                    if isinstance(value, str):
                        texts += 1
                    elif not isinstance(value, _Broken):
                        values += 1
                        found = matching(value)
                        seen.update(found[:1])
                        if not found and not everything.is_side_file(posixpath.basename(name)):
                            unknown = unknown or f"{name}: {_describe(value, everything)}"
            except (*READ_ERRORS, pa.ArrowException, _Broken):
                continue  # counted when it is read
    if unknown and not seen:
        raise UserError(f"--layout auto does not know this layout ({unknown}); name the place with --text-path")
    if not seen:
        return Layout((PRESETS["plain"],)), f"layout auto: plain text ({texts} files sampled)"
    layout = Layout(tuple(preset for name, preset in PRESETS.items() if name in seen))
    shares = ", ".join(f"{name} ({seen[name]})" for name in PRESETS if name in seen)
    return layout, f"layout auto: {shares} of {values} sampled values; --layout or --text-path say otherwise"
