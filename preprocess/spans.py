"""Spans: the sources in order, in groups of some megabytes, which readers read one after the other.

In: sources. Out: groups of them; what changes with the content of a source; the size that decides who reads.

A large file of JSON lines is several spans, so that several readers share it: ranges of its bytes, each with the lines
that begin in it. Other files, packed ones and those of web servers included, can only be read from the beginning.
Neither can conversations be divided, whose turns may lie on several lines.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace

from preprocess.archives import file_name
from preprocess.layouts import Layout
from preprocess.sources import Source

LARGE = 32 << 20
SPAN_BYTES, SPAN_SOURCES = 8 << 20, 500
_OBJECT = 256 << 10
"""Bytes that take as long as the two requests for a small object."""


def bytes_for_workers(sources: Iterable[Source]) -> int:
    """The bytes of the sources, an object of a store counting as `_OBJECT` at least; 0 if one is of a web server.

    Those are for the driver: a server cuts a stream that waits for others.
    """
    there = [source for source in sources if source.problem is None]
    return 0 if any(source.is_web for source in there) else sum(map(_size, there))


def _size(source: Source) -> int:
    try:
        size = sum(source.sizes) if source.problem is None else 0
    except OSError:
        return 0  # the reader says why
    return size if source.is_local else max(size, _OBJECT)


def spans(sources: Iterable[Source], layout: Layout) -> list[tuple[Source, ...]]:
    """The sources in order, in groups of some megabytes, so that several can be read at a time."""
    found: list[tuple[Source, ...]] = []
    held: list[Source] = []
    size = 0
    for source in sources:
        own = _size(source)
        parts = _parts(source, own, layout)
        if held and (parts or size >= SPAN_BYTES or len(held) == SPAN_SOURCES):
            found.append(tuple(held))
            held, size = [], 0
        if parts:
            found += [(part,) for part in parts]
        else:
            held.append(source)
            size += own
    return [*found, tuple(held)] if held else found


def _parts(source: Source, size: int, layout: Layout) -> list[Source]:
    """The ranges of a large file whose lines stand for themselves; otherwise nothing."""
    name = file_name(source.name)
    lines = name.lower().endswith((".jsonl", ".ndjson"))
    if size < 2 * SPAN_BYTES or not lines or len(source.paths) > 1 or layout.joins or source.is_web:
        return []  # a server gives its file in one piece, from the beginning
    if layout.is_side_file(name) or (source.is_local and not os.access(source.paths[0], os.R_OK)):
        return []  # each part would say what is wrong with the file
    starts = range(0, size, SPAN_BYTES)
    ends = [*starts[1:], sys.maxsize]  # also of what is appended before the state of the file is noted
    return [replace(source, part=part) for part in zip(starts, ends, strict=True)]


def goes_on(span: tuple[Source, ...]) -> bool:
    """Whether a span is a later part of the file of the span before."""
    return span[0].part is not None and span[0].part[0] > 0


def state(source: Source, unknown: str) -> str:
    """What changes with the content of a source; if nobody knows, its place, which no other has, and `unknown`."""
    try:
        return source.state()
    except OSError:
        return repr((source.name, source.part, unknown))
