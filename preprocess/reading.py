"""Large inputs are read by workers: their texts never pass through the driver, which gets an outline of each.

In: sources in order, in spans of some megabytes. Out: outlines of the documents (everything but the text), and later
the texts that the analysis asks for, as references to Ray objects that go from the reader to the analyzing worker.

The readers of local files are actors on the driver's node, because only this one is sure to see them; those of object
stores are spread over all nodes, and each has to reach the store when it starts. What they return depends only on the
sources, so the driver reads on by itself where a reader is lost. A span is read twice: for the outlines, and for the
texts, if any of them is not analyzed yet.

Cost of the driver: 0.01 ms per article. Inputs below `LARGE` bytes and files of web servers are read by the driver,
without Ray.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kogpt.common.cores import usable_cores
from kogpt.common.errors import UserError
from preprocess.cluster import one_line
from preprocess.documents import Document, Dropped, Outline, read_documents
from preprocess.filters import Filter, kept
from preprocess.layouts import Layout
from preprocess.plan import PlannedUnit
from preprocess.sources import Source
from preprocess.units import key_of

log = logging.getLogger(__name__)

LARGE = 32 << 20
SPAN_BYTES, SPAN_SOURCES = 8 << 20, 500
MOST_READERS = 8
_OBJECT = 256 << 10
"""Bytes that take as long as the two requests for a small object."""
_BLOCK = 512
_AHEAD = 8

TextsOf = Callable[[Sequence[Sequence[PlannedUnit]]], Iterator[tuple[Any, ...]]]
"""chunks of units -> the texts of each, in parts: lists, or references to them"""

CHANGED = "the articles changed while they were read; repeat the same command"


class Wanted(NamedTuple):
    """Documents of a span, by number, and the hash of their hashes."""

    numbers: list[int]
    digest: str


@dataclass(frozen=True)
class Reading:
    """How sources are read."""

    layout: Layout
    filters: tuple[Filter, ...]
    """those that look at one document at a time"""

    def _articles(self, sources: Iterable[Source]) -> Iterator[Document | Dropped]:
        return kept(read_documents(sources, self.layout), self.filters)

    def outlines(self, number: int, sources: Sequence[Source]) -> Iterator[list[Dropped | tuple[Any, ...]]]:
        """Of a span: what is dropped, and the fields of an `Outline` of each document, in blocks."""
        block: list[Dropped | tuple[Any, ...]] = []
        count = 0
        for article in self._articles(sources):
            if isinstance(article, Document):
                block.append((article.id, article.source, "", article.sha256, article.removed, article.masked,
                              article.length, article.sizes, (number, count)))  # fmt: skip
                count += 1
            else:
                block.append(article)
            if len(block) == _BLOCK:
                yield block
                block = []
        yield block

    def texts(self, sources: Sequence[Source], wanted: Sequence[Wanted]) -> Iterator[list[str]]:
        """The texts of a span that are wanted, which is in order. Raises `UserError` if they are others now."""
        documents = (article for article in self._articles(sources) if isinstance(article, Document))
        numbered = enumerate(documents)
        for numbers, digest in wanted:
            asked = set(numbers)
            own: list[Document] = []
            while len(own) < len(numbers):
                number, document = next(numbered, (-1, None))
                if document is None:
                    raise UserError(CHANGED)
                if number in asked:
                    own.append(document)
            if key_of(document.sha256 for document in own) != digest:
                raise UserError(CHANGED)
            yield [document.text for document in own]


@ray.remote(max_restarts=0, max_task_retries=0)
class _Reader:
    """A process that reads."""

    def __init__(self, reading: Reading, user: int, stores: Sequence[Source]):
        if os.geteuid() != user:  # a Ray of somebody else, who may not see the same files: the driver reads
            raise PermissionError(f"Ray runs as user {os.geteuid()}, the driver as user {user}")
        for source in stores:
            source.reach()
        self._reading = reading

    def outlines(self, *arguments: Any) -> Iterator[Any]:
        yield from self._reading.outlines(*arguments)

    def texts(self, *arguments: Any) -> Iterator[Any]:
        for texts in self._reading.texts(*arguments):
            yield texts
            yield None  # so that the driver knows, without the texts, that they are there


class Readers:
    """The readers of one run."""

    def __init__(self, reading: Reading, sources: Sequence[Source]):
        """Ray has to run."""
        self._reading = reading
        self.spans = spans(sources)
        self._actors: list[Any] = []
        self._told = set[str]()  # why readers were lost
        self._start()

    def _start(self) -> None:
        stores = {source.files.protocol: source for span in self.spans for source in span if not source.is_local}
        if any(source.is_local for span in self.spans for source in span):
            where: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        else:
            where = "SPREAD"
        actor = _Reader.options(num_cpus=0, scheduling_strategy=where)  # type: ignore[attr-defined]
        count = min(MOST_READERS, max(1, usable_cores() // 2), len(self.spans))
        self._actors = [actor.remote(self._reading, os.geteuid(), list(stores.values())) for _ in range(count)]

    def outlines(self) -> Iterator[Outline | Dropped]:
        """What the sources hold, in order."""
        done = False
        try:
            for block in self._read("outlines", enumerate(self.spans)):
                for article in block:
                    yield article if isinstance(article, Dropped) else Outline(*article)
            done = True
        finally:
            if not done:  # the readers would wait forever for somebody to take the rest
                self.close()
                self._start()

    def texts(self, chunks: Sequence[Sequence[PlannedUnit]]) -> Iterator[tuple[Any, ...]]:
        """The texts of each chunk of units, in order: one list or reference for each span that it is part of."""
        wanted: dict[int, list[Wanted]] = {}
        parts = []
        for chunk in chunks:
            numbers: dict[int, list[int]] = {}
            hashes: dict[int, list[str]] = {}
            for unit in chunk:
                for (span, number), sha256 in zip(unit.places, unit.articles["text_sha256"].to_pylist(), strict=True):
                    numbers.setdefault(span, []).append(number)
                    hashes.setdefault(span, []).append(sha256)
            for span, own in numbers.items():
                wanted.setdefault(span, []).append(Wanted(own, key_of(hashes[span])))
            parts.append(len(numbers))
        found = self._read("texts", ((self.spans[span], own) for span, own in wanted.items()))
        for count in parts:
            yield tuple(next(found) for _ in range(count))

    def _read(self, what: str, calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of calls, in order: outlines, or references to texts; texts where the driver had to read."""
        left = iter(calls)
        actors = cycle(self._actors)
        flying: deque[tuple[tuple[Any, ...], Any]] = deque()
        while True:
            while len(flying) < 2 * len(self._actors) and (call := next(left, None)) is not None:
                read = getattr(next(actors), what)
                ahead = {"num_returns": "streaming", "_generator_backpressure_num_objects": _AHEAD}
                flying.append((call, read.options(**ahead).remote(*call)))
            if not flying:
                return
            call, stream = flying.popleft()
            yield from self._results(what, call, stream)

    def _results(self, what: str, call: tuple[Any, ...], stream: Any) -> Iterator[Any]:
        done = 0
        try:
            for reference in stream:
                follows = next(stream, None) if what == "texts" else None
                if follows is None:
                    yield ray.get(reference)
                else:
                    ray.get(follows)
                    yield reference
                done += 1
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, UserError) else error from None
        except RayError as error:
            if (why := one_line(error)) not in self._told:
                self._told.add(why)
                log.warning(f"a reader was lost ({why}); the driver reads on")
            for i, result in enumerate(getattr(self._reading, what)(*call)):
                if i >= done:
                    yield result

    def close(self) -> None:
        """End the readers."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()


def fetched(part: Any) -> list[str]:
    """The texts of a part."""
    return part if isinstance(part, list) else ray.get(part)


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
