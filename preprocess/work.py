"""Send the units without a result through a pool, and commit each result as it comes.

In: (key, content) of each chunk, and a function that commits (key, results). Out: a progress bar, and rows for the
summary. `through_cache` does the same for stages whose results lie in the cache folder as they are.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, takewhile
from typing import Any, NamedTuple, TypeVar

import ray

from preprocess import cluster
from preprocess.options import Options
from preprocess.pool import Pool
from preprocess.report import Log, Progress
from preprocess.units import Store
from preprocess.worker import Failed, NotYet, Packed, Packing

log = logging.getLogger(__name__)
T = TypeVar("T")

HANG_SECONDS = 60.0
"""How long an item may take without an answer, in addition to the time for its length."""
MOST_UNITS = 8
"""in a chunk"""


class Known(NamedTuple):
    """What is known of a stage's items, which may become more while it runs."""

    total: int | None
    """all of the run; None while nobody knows"""
    before: int
    """those that an earlier run has done"""


class CachedChunk(NamedTuple):
    """Items whose results are kept together under `key`; `take` gets them, packed, from the cache or when they come."""

    key: str
    content: Callable[[], tuple[Any, ...]]
    """as its packing takes it apart; only called where there is no result yet"""
    take: Callable[[bytes], None]


class Work:
    """The distributed part of one run. Ray starts with the first stage that has work."""

    def __init__(self, options: Options):
        self._options = options
        self.wandb: Log | None = None
        self.happened: list[tuple[str, str]] = []
        self.speeds: dict[str, list[tuple[float, float]]] = {}
        """stage -> (seconds since its start, characters/s)"""

    def in_chunks(self, units: Iterator[T | None], left: Callable[[], int | None]) -> Iterator[Sequence[T] | NotYet]:
        """Group units into chunks. None among the units: the next one is not there yet.

        Each chunk costs the driver a call, so they are large; they become small towards the end, so that no core
        waits long for another. `left` is the number of units that will still come, None while nobody knows.
        """
        for first in units:
            if first is None:
                yield NotYet()
                continue
            self.connect()
            cores = self._options.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            more = left()
            count = MOST_UNITS if more is None else max(1, min(MOST_UNITS, (1 + more) // (4 * cores)))
            yield [first, *takewhile(lambda unit: unit is not None, islice(units, count - 1))]  # type: ignore[list-item]

    def connect(self) -> None:
        """Start or join Ray, if this has not been done yet."""
        if not ray.is_initialized():
            log.info(cluster.connect(self._options.ray_address, self._options.workers))

    def through_pool(
        self,
        stage: str,
        setup: Callable[[], Callable[[Any], Any]],
        chunks: Iterator[tuple[Any, Any] | NotYet],
        commit: Callable[[Any, list[Any] | Packed], None],
        *,
        chars: Callable[[Any], Sequence[int]],
        known: Callable[[], Known] = lambda: Known(None, 0),
        unit: str = "articles",
        **needs: Any,
    ) -> None:
        """Run one stage for the units without a result, which are the chunks.

        `chars` are the numbers of characters of a chunk's items, `known` says how many items there are besides, and
        `unit` what an item is. `needs` are arguments of the pool.
        """
        while isinstance(first := next(chunks, ()), NotYet):
            first.wait()
        if not first:
            total, _ = known()
            count = "" if total is None else f"{total:,} "
            log.info(f"{stage}: all {count}{unit} are already done")
            return
        self.connect()
        sizes: dict[Any, Sequence[int]] = {}

        def measured() -> Iterator[tuple[Any, Any] | NotYet]:
            for chunk in chain([first], chunks):
                if not isinstance(chunk, NotYet):
                    sizes[chunk[0]] = chars(chunk[1])
                yield chunk

        done = 0
        progress = Progress(stage, *known(), self.wandb, unit)
        with Pool(setup, workers=self._options.workers, hang_seconds=HANG_SECONDS, **needs) as workers:
            for key, results in workers.map(measured()):
                commit(key, results)
                own = sizes.pop(key)
                done += len(own)
                stats = workers.stats
                progress.add(
                    len(own),
                    sum(own),
                    known(),
                    workers=stats.workers,
                    deaths=stats.deaths,
                    quarantined=stats.failed,
                )
        seconds = progress.close()
        self.speeds[stage] = progress.speeds
        self.happened += [
            (f"{stage}: {unit}, seconds", f"{done:,}, {seconds:.1f}"),
            (f"{stage}: characters/s", f"{progress.chars / seconds:,.0f}"),
            (f"{stage}: workers lost, {unit} quarantined", f"{stats.deaths}, {stats.failed}"),
        ]

    def through_cache(
        self,
        stage: str,
        setup: Callable[[], Callable[[Any], Any]],
        chunks: Iterable[CachedChunk],
        cache: Store,
        *,
        again: Callable[[Any], Any],
        packing: Packing,
        **options: Any,
    ) -> None:
        """Run a stage for the chunks that are not in the cache, and let every chunk take its result.

        A worker's trouble is no result: the driver works on such an item with `again`, without a limit. `options` are
        arguments of `through_pool`.
        """
        flying: dict[str, tuple[tuple[Any, ...], Callable[[bytes], None]]] = {}

        def missing() -> Iterator[tuple[str, tuple[Any, ...]]]:
            for chunk in chunks:
                if (known := cache.get(chunk.key)) is not None:
                    chunk.take(known)
                    continue
                content = chunk.content()
                flying[chunk.key] = content, chunk.take
                yield chunk.key, content

        def commit(key: str, results: list[Any] | Packed) -> None:
            content, take = flying.pop(key)
            if isinstance(results, Packed):
                packed = results.content
            else:
                items = packing.items(*content)
                both = zip(items, results, strict=True)
                whole = [again(item) if isinstance(result, Failed) else result for item, result in both]
                packed = packing.pack(items, whole, *content)
            cache.put(key, packed)
            take(packed)

        self.through_pool(stage, setup, missing(), commit, packing=packing, **options)
