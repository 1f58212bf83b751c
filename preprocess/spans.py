"""Spans: the sources in order, in groups of some megabytes, which readers read one after the other.

In: sources. Out: groups of them; what changes with the content of a source; the size that decides who reads.
"""

from collections.abc import Iterable

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


def spans(sources: Iterable[Source]) -> list[tuple[Source, ...]]:
    """The sources in order, in groups of some megabytes, so that several can be read at a time."""
    found: list[tuple[Source, ...]] = []
    held: list[Source] = []
    size = 0
    for source in sources:
        held.append(source)
        size += _size(source)
        if size >= SPAN_BYTES or len(held) == SPAN_SOURCES:
            found.append(tuple(held))
            held, size = [], 0
    return [*found, tuple(held)] if held else found


def state(source: Source, unknown: str) -> str:
    """What changes with the content of a source; `unknown` if nobody knows."""
    try:
        return source.state()
    except OSError:
        return unknown
