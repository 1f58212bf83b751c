"""Parsers: one function per file format, from a byte stream to texts and values.

The formats are JSON, JSON lines, plain text, csv, tsv, parquet, WikiExtractor's files, and CoNLL-U. A str is a
document, and a `Broken` is a part that cannot be used. Any other value goes to a `Layout` (preprocess.layouts), which
finds the text in it. Bytes are UTF-8, with or without a byte order mark, or else cp949. An error loses only its line,
or the rest of the file.

Memory: one line, one row group (parquet), or one element (a list in a JSON file of more than `LARGE_JSON` bytes). Other
JSON files and txt files are read whole, and refused above `MAX_WHOLE` bytes.
"""

import codecs
import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from kogpt.common.text_files import decode
from preprocess.archives import kind_of
from preprocess.layouts import Layout, advice
from preprocess.streams import READ_ERRORS, Broken, seekable

MAX_WHOLE = 2 << 30
LARGE_JSON = 64 << 20

# Exceptions that a damaged file raises while it is parsed.
PARSE_ERRORS = (*READ_ERRORS, pa.ArrowException, csv.Error)

csv.field_size_limit(64 << 20)  # Python's 131,072 characters are less than a long article


def values(name: str, stream: BinaryIO | Exception, layout: Layout) -> Iterator[Any]:
    """The contents of a file: a str is a text, a `Broken` an unusable part; anything else goes to the layout."""
    if isinstance(stream, Exception):
        raise stream
    kind = kind_of(name)
    if not kind:
        kind, stream = _sniffed(stream)
    if kind not in FORMATS:
        # As version 0.1 said it: the details are part of a scan's fingerprint.
        detail = f"{kind or 'no extension'}; known are .json, .jsonl, .ndjson, .txt, .parquet"
        raise Broken("unknown file type", detail, f"unpack or convert it; supported are {', '.join(FORMATS)}, "
                     "WikiExtractor's files, and all of them in .zip, .tar, .gz, .bz2, .xz, .zst")  # fmt: skip
    yield from FORMATS[kind](stream, layout)


def is_known(name: str) -> bool:
    """Whether a file with this name can be parsed."""
    kind = kind_of(name)
    return not kind or kind in FORMATS


def _sniffed(stream: BinaryIO) -> tuple[str, BinaryIO]:
    """(the kind of a file without an extension, from its first bytes; the stream from its start)."""
    buffered: Any = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
    start = buffered.peek(64).lstrip()
    kind = ".wiki" if start.startswith(b"<doc ") else ".jsonl" if start.startswith(b'{"') else ""
    return kind, buffered


def one_line(error: Exception) -> str:
    """The message of an error on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which differs from machine to machine
    return " ".join(str(error).split()) or type(error).__name__


# ---- text


def _txt(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    yield _decode(_whole(stream))


def _wiki(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    """WikiExtractor: `<doc id= url= title=>`, the title, an empty line, the text, `</doc>`; a stub has no text."""
    lines: list[str] | None = None
    for raw in stream:
        line = _decode(raw)
        if line.startswith("<doc "):
            lines = []
        elif line.startswith("</doc>") and lines is not None:
            article = html.unescape("".join(lines)).strip()
            yield article if "\n" in article else ""
            lines = None
        elif lines is not None:
            lines.append(line)
    if lines is not None:
        raise Broken("unreadable file", "its last <doc> does not end", "copy the whole file again")


_SENTENCE = re.compile(r"# text = (.*)|## (\S+)\t(.*)")
_SENTENCE_NUMBER = re.compile(r"[-_.]s?[0-9]+$")


def _conll(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    """CoNLL-U: a document is the sentences (`# text = ...`) up to the next `# newdoc`, or those whose sent_id differ
    only in the last number. In KLUE's form (`## id<TAB>sentence`) every sentence is a document."""
    sentences: list[str] = []
    document = last = ""
    marked = False
    for raw in stream:
        if not raw.startswith(b"#"):
            continue
        line = _decode(raw).strip()
        key, _, value = (part.strip() for part in line.partition("="))
        if key.startswith("# newdoc"):
            marked, document = True, f"{document}+"
        elif key == "# sent_id" and not marked:
            document = _SENTENCE_NUMBER.sub("", value)
        elif match := _SENTENCE.fullmatch(line):
            document = match[2] or document
            if document != last and sentences:
                yield " ".join(sentences)
                sentences = []
            sentences.append(match[1] or match[3] or "")
            last = document
    if sentences:
        yield " ".join(sentences)


# ---- JSON


def _json(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    content = stream.read(LARGE_JSON)
    if len(content) == LARGE_JSON:
        if content.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
            yield from _large_list(content, stream)
            return
        content += _whole(stream)
    try:
        yield _parse(content)
    except Broken:
        # Some files named .json contain one value per line.
        lines = [line for line in content.split(b"\n") if line.strip()]
        if len(lines) < 2 or isinstance(_parse_line(lines[0]), Broken):
            raise
        yield from map(_parse_line, lines)


_ELEMENT_ENDS = (" ", "\t", "\r", "\n", ",", "]")


def _large_list(start: bytes, stream: BinaryIO) -> Iterator[Any]:
    """The elements of a list, each as a list of one, without loading the whole file."""
    decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        decoder.decode(start)
    except UnicodeDecodeError:
        decoder = codecs.getincrementaldecoder("cp949")()
    decoder.reset()
    scanner = json.JSONDecoder(strict=False)
    text = _incremental(decoder, start)
    at, more = text.index("[") + 1, LARGE_JSON
    while True:
        while text[at : at + 1] in (" ", "\t", "\r", "\n", ","):
            at += 1
        if text.startswith("]", at):
            return
        try:
            element, end = scanner.raw_decode(text, at)
            if text[end : end + 1] in _ELEMENT_ENDS:  # otherwise a number could continue
                yield [element]
                at, more = end, LARGE_JSON
                continue
            why = "the list does not end"
        except (ValueError, RecursionError) as error:
            why = one_line(error)
        content = stream.read(more)
        if not content or len(text) - at > MAX_WHOLE:
            raise Broken("broken JSON", why)
        more *= 2  # so that a very large element is not scanned over and over
        text, at = text[at:] + _incremental(decoder, content), 0


def _incremental(decoder: codecs.IncrementalDecoder, content: bytes) -> str:
    try:
        return decoder.decode(content)
    except UnicodeDecodeError as error:
        raise _unknown_encoding(error) from None


def _lines(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    # A line feed is never part of a cp949 character.
    return (_parse_line(line) for line in stream if line.strip())


def _parse_line(line: bytes) -> Any:
    try:
        return _parse(line)
    except Broken as broken:
        return broken


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        # Python's parser accepts what orjson refuses: lone surrogates, raw control characters, NaN.
        return json.loads(_decode(content), strict=False)
    except (ValueError, RecursionError) as error:
        raise Broken("broken JSON", one_line(error)) from None


# ---- tables


def _csv(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    lines = _escaped_lines(stream)
    first = next(lines, "")
    delimiter = "\t" if "\t" in first and "," not in first else ","
    return _rows(csv.reader(chain([first], lines), delimiter=delimiter))


def _tsv(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    """Columns are separated by tabs without quoting, as in NSMC and KoBEST. A cell that is quoted as a whole, as pandas
    writes it, is unquoted."""
    first = stream.readline()
    if first.startswith(b"#"):
        return _conll(chain([first], stream), layout)  # type: ignore[arg-type]
    rows = csv.reader(_escaped_lines(chain([first], stream)), delimiter="\t", quoting=csv.QUOTE_NONE)
    return _rows([_unquoted(cell) for cell in row] for row in rows)


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _rows(rows: Iterator[list[str]]) -> Iterator[Any]:
    """A dict for each row after the first, which names the columns."""
    header = [name.strip() for name in next(rows, [])]
    for row in filter(None, rows):
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if len(row) != len(header):
            yield Broken("broken row", f"{len(row)} columns under a header of {len(header)}")
        elif any(map(_ESCAPED.search, row)):
            yield Broken("unknown encoding", "a row is neither UTF-8 nor cp949", "save it as UTF-8")
        else:
            yield dict(zip(header, row, strict=True))


_ESCAPED = re.compile("[\udc80-\udcff]")


def _escaped_lines(stream: Any) -> Iterator[str]:
    """Lines as text. Bytes that are neither UTF-8 nor cp949 become lone surrogates, so that their row is dropped."""
    for line in stream:
        try:
            yield decode(line)
        except UnicodeDecodeError:
            yield line.decode("utf-8", "surrogateescape")


def _parquet(stream: BinaryIO, layout: Layout) -> Iterator[Any]:
    file = pq.ParquetFile(seekable(stream))
    names = file.schema_arrow.names
    columns = [name for name in names if layout.reads(name)]
    if not columns:
        first = next(file.iter_batches(batch_size=64), None)
        raise Broken("no text at the path", f"looked for {' or '.join(sorted(layout.columns))}; "
                     f"found {', '.join(names[:12])}", advice(first.to_pylist() if first else []))  # fmt: skip
    for batch in file.iter_batches(batch_size=256, columns=columns):
        yield from batch.to_pylist()


# ---- bytes


def _whole(stream: BinaryIO) -> bytes:
    content = stream.read(MAX_WHOLE + 1)
    if len(content) > MAX_WHOLE:
        raise Broken("too large", f"more than {MAX_WHOLE >> 30} GiB in a format that is read whole",
                     "split it, or write JSON lines")  # fmt: skip
    return content


def _decode(content: bytes) -> str:
    try:
        return decode(content)
    except UnicodeDecodeError as error:
        raise _unknown_encoding(error) from None


def _unknown_encoding(error: UnicodeDecodeError) -> Broken:
    detail = f"neither UTF-8 nor cp949: {error.reason} at byte {error.start}"
    return Broken("unknown encoding", detail, "save it as UTF-8")


FORMATS: dict[str, Callable[[BinaryIO, Layout], Iterator[Any]]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".txt": _txt,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".conllu": _conll,
    ".wiki": _wiki,
}
