"""Inputs are read twice: for outlines of their articles, and for the texts that the analysis asks for.

In: sources in order, in spans of some megabytes. Out: blocks of outlines (preprocess.outlines), which stay in a store,
so that a run that continues reads only spans that have changed since; and the texts of chunks of units.

Large inputs are read by actors, half of them for outlines, which run ahead, and half for texts. Their texts never pass
through the driver: it gets references to Ray objects, which go from the reader to the analyzing worker. The readers of
local files are on the driver's node, because only this one is sure to see them; those of object stores are spread over
all nodes, and each has to reach the store when it starts. What they return depends only on the sources, so the driver
reads on by itself where a reader is lost. Inputs below `LARGE` bytes and files of web servers are read by the driver,
without Ray.

Cost of the driver, for a large input: 0.005 ms per article.
"""

import logging
import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from kogpt.common.cores import usable_cores
from kogpt.common.errors import UserError
from kogpt.tokenizer.normalize import NORMALIZER
from preprocess.cluster import one_line
from preprocess.cursor import CHANGED, Cursor
from preprocess.documents import Document, Dropped, read_documents
from preprocess.filters import Filter, kept
from preprocess.layouts import Layout
from preprocess.outlines import has_unreadable, is_last, outlined
from preprocess.scan import Block, PlannedUnit, Wanted
from preprocess.sources import Source
from preprocess.spans import goes_on, spans, state
from preprocess.units import Store, key_of
from preprocess.worker import NotYet

log = logging.getLogger(__name__)

MOST_READERS = 8
_AHEAD = 8
_POLL_SECONDS = 0.02

Texts = tuple[Any, ...]
"""The texts of a chunk in parts: lists, or references to them."""
TextsOf = Callable[[Iterable[Sequence[PlannedUnit] | NotYet]], Iterator[tuple[Sequence[PlannedUnit], Texts] | NotYet]]
"""chunks of units -> each chunk, and its texts"""


@dataclass(frozen=True)
class Reading:
    """How sources are read."""

    layout: Layout
    filters: tuple[Filter, ...]
    """those that look at one document at a time"""

    def articles(self, sources: Iterable[Source]) -> Iterator[Document | Dropped]:
        return kept(read_documents(sources, self.layout), self.filters)

    @cached_property
    def digest(self) -> str:
        """Of all that the outlines depend on besides the sources: settings and code."""
        code = (path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
        settings = (self.layout.name, self.layout.kind, self.layout.guessed_from, NORMALIZER)
        return key_of([*settings, *(filter.__name__ for filter in self.filters), *code])


@ray.remote(max_restarts=0, max_task_retries=0)
class _Reader:
    """A process that reads."""

    def __init__(self, reading: Reading, user: int | None, stores: Sequence[Source]):
        if user not in (None, os.geteuid()):  # a Ray of somebody else, who may not see the same files: the driver reads
            raise PermissionError(f"Ray runs as user {os.geteuid()}, the driver as user {user}")
        for source in stores:
            source.reach()
        self._reading, self._cursor = reading, Cursor(reading.articles)

    def outlines(self, sources: Sequence[Source], skip: int) -> Iterator[bytes]:
        yield from outlined(self._reading.articles(sources), skip)

    def open(self, sources: Sequence[Source]) -> None:
        self._cursor.open(sources)

    @ray.method(num_returns=2)
    def texts(self, numbers: Sequence[int], digest: str) -> tuple[list[str], None]:
        """The second result tells the driver, without the texts, that they are there."""
        return self._cursor.texts(numbers, digest), None


class Readers:
    """The readers of one run."""

    def __init__(self, reading: Reading, sources: Sequence[Source], store: Store, actors: bool):
        """`store` is for the outlines. With actors, Ray has to run."""
        self._reading, self._store = reading, store
        self.spans = spans(sources, reading.layout)
        count = min(MOST_READERS, max(1, usable_cores() // 2), len(self.spans)) if actors else 0
        self._outliners, self._texters = self._started(count), self._started(count)
        self._open: dict[int, int] = {}  # the span that each reader of texts, or the driver (-1), has open
        self._own = Cursor(reading.articles)
        self._unknown = secrets.token_hex(16)
        self._keys = [self._key_of(span) for span in self.spans]
        self._told = set[str]()  # why readers were lost

    @property
    def ahead(self) -> bool:
        """Whether outlines come while the driver does something else."""
        return bool(self._outliners)

    def _key_of(self, span: Sequence[Source]) -> str:
        return key_of([self._reading.digest, *(state(source, self._unknown) for source in span)])

    def _started(self, count: int) -> list[Any]:
        if not count:
            return []
        where: Any = "SPREAD"
        every = [source for span in self.spans for source in span if source.problem is None]
        local = any(source.is_local for source in every)
        if local:
            where = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        stores = {source.files.protocol: source for source in every if not source.is_local}
        user = os.geteuid() if local else None
        actor = _Reader.options(num_cpus=0, scheduling_strategy=where)  # type: ignore[attr-defined]
        return [actor.remote(self._reading, user, list(stores.values())) for _ in range(count)]

    # ---- outlines

    def outlines(self) -> Iterator[Block | None]:
        """The blocks of all spans, in order; None while the next one is not there yet."""
        bar: Any = tqdm(range(len(self.spans)), desc="read", unit=" spans", leave=False, disable=self.ahead)
        left = iter(bar)
        flying: deque[tuple[int, list[str], Any]] = deque()
        try:
            while True:
                while len(flying) < max(1, 2 * len(self._outliners)) and (span := next(left, None)) is not None:
                    flying.append((span, *self._begin(span)))
                if not flying:
                    return
                span, stored, rest = flying.popleft()
                count, unsure = 0, False
                for key in stored:
                    if self._store.get(key) is None:  # damaged
                        rest = self._outlined(span, count)
                        break
                    yield self._block(span, key)
                    count += 1
                for content in self._arriving(span, count, rest):
                    if content is None:
                        yield None
                        continue
                    last = is_last(content)
                    if last and self._key_of(self.spans[span]) != self._keys[span]:
                        raise UserError(CHANGED)
                    key = self._key(span, count, last)
                    unsure = unsure or has_unreadable(content)
                    if unsure:  # for this run only: a file can be mended without a new time or size
                        key = key_of([key, self._unknown])
                    self._store.put(key, content)
                    yield self._block(span, key)
                    count += 1
        finally:
            _end(self._outliners)  # they would wait forever for somebody to take the rest

    def _block(self, span: int, key: str) -> Block:
        return Block(span, key, goes_on(self.spans[span]))

    def _key(self, span: int, block: int, last: bool) -> str:
        return key_of([self._keys[span], str(block), *(["last"] if last else [])])

    def _begin(self, span: int) -> tuple[list[str], Any]:
        """The keys of the blocks that are in the store, and the other blocks as they come."""
        stored: list[str] = []
        while (key := self._key(span, len(stored), False)) in self._store:
            stored.append(key)
        if (key := self._key(span, len(stored), True)) in self._store:
            return [*stored, key], iter(())
        if not self._outliners:
            return stored, self._outlined(span, len(stored))
        read = self._outliners[span % len(self._outliners)].outlines
        ahead = {"num_returns": "streaming", "_generator_backpressure_num_objects": _AHEAD}
        return stored, read.options(**ahead).remote(self.spans[span], len(stored))

    def _outlined(self, span: int, skip: int) -> Iterator[bytes]:
        return outlined(self._reading.articles(self.spans[span]), skip)

    def _arriving(self, span: int, skip: int, stream: Any) -> Iterator[bytes | None]:
        if not isinstance(stream, ray.ObjectRefGenerator):
            yield from stream
            return
        again = 0.0  # when to ask again: the driver comes here for each unit
        try:
            while True:
                now = time.monotonic()
                if now < again or not ray.wait([stream], timeout=0)[0]:
                    again = again if now < again else now + _POLL_SECONDS
                    yield None
                    continue
                try:
                    content = ray.get(next(stream))
                except StopIteration:
                    return
                yield content
                skip += 1
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, UserError) else error from None
        except RayError as error:
            self._tell(error)
            yield from self._outlined(span, skip)

    # ---- texts

    def texts(
        self, wanted: Iterable[tuple[Sequence[PlannedUnit], Sequence[Wanted]] | NotYet]
    ) -> Iterator[tuple[Sequence[PlannedUnit], Texts] | NotYet]:
        """Each chunk of units with its texts: one list or reference for each span that it is part of.

        `wanted` has each chunk, and where its texts are, in the order of the input, which each call begins again.
        """
        self._open.clear()
        asked: deque[tuple[Sequence[PlannedUnit], list[tuple[Wanted, Any]]]] = deque()
        left, ended = iter(wanted), False
        while asked or not ended:
            none: NotYet | None = None
            while not ended and none is None and len(asked) <= (_AHEAD if self._texters else 0):
                one = next(left, None)
                if one is None:
                    ended = True
                elif isinstance(one, NotYet):
                    none = one
                else:
                    asked.append((one[0], [(part, self._ask(part)) for part in one[1]]))
            if asked:
                chunk, calls = asked[0]
                none = next((NotYet(call[1]) for _, call in calls if not _is_there(call)), None)
                if none is None:
                    asked.popleft()
                    yield chunk, tuple(self._answer(part, call) for part, call in calls)
            if none is not None:
                yield none

    def again(self, wanted: Sequence[Wanted]) -> Texts:
        """The texts of a chunk once more, read by the driver: those that a node held which has died."""
        self._open.pop(-1, None)  # they may lie before those that it has read last
        return tuple(map(self._read, wanted))

    def _ask(self, wanted: Wanted) -> Any:
        if not self._texters:
            return None
        number = wanted.span % len(self._texters)
        reader = self._texters[number]
        if self._open.get(number) != wanted.span:
            self._open[number] = wanted.span
            reader.open.remote(self.spans[wanted.span])
        return reader.texts.remote(wanted.numbers, wanted.digest)

    def _answer(self, wanted: Wanted, call: Any) -> Any:
        try:
            if call is None:
                return self._read(wanted)
            texts, follows = call
            ray.get(follows)
            return texts
        except RayTaskError as error:
            if not isinstance(error.cause, UserError):
                raise error from None
            self._forget(error.cause)
            raise error.cause from None
        except RayError as error:
            self._tell(error)
            return self._read(wanted)
        except UserError as error:
            self._forget(error)
            raise

    def _read(self, wanted: Wanted) -> list[str]:
        """The texts, read by the driver."""
        if self._open.get(-1) != wanted.span:
            self._open[-1] = wanted.span
            self._own.open(self.spans[wanted.span])
        return self._own.texts(wanted.numbers, wanted.digest)

    def _forget(self, error: UserError) -> None:
        """Remove the outlines if they are of other articles, which had the same time and size."""
        if str(error) == CHANGED:
            shutil.rmtree(self._store.folder, ignore_errors=True)

    def _tell(self, error: RayError) -> None:
        if (why := one_line(error)) not in self._told:
            self._told.add(why)
            log.warning(f"a reader was lost ({why}); the driver reads on")

    def close(self) -> None:
        """End the readers."""
        _end(self._outliners)
        _end(self._texters)


def _is_there(call: Any) -> bool:
    """Whether an answer would be there at once."""
    return call is None or bool(ray.wait([call[1]], timeout=0)[0])


def _end(actors: list[Any]) -> None:
    for actor in actors if ray.is_initialized() else ():  # ray.kill would start another Ray
        ray.kill(actor)
    actors.clear()


def fetched(part: Any) -> list[str]:
    """The texts of a part."""
    return part if isinstance(part, list) else ray.get(part)
