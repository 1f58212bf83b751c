"""A stage over the texts of a scan's units: each unit whose result is not in the cache goes through a pool.

In: a scan, which may still go on, and its texts: lists, or references to Ray objects, which go from a reader to the
worker, past the driver. Out: a file in the cache for each unit. The worker makes it; only where something failed in a
chunk does the driver get texts and results, and decides. Texts that a dead node held are read again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ray.exceptions import ObjectLostError

from preprocess.reading import Readers, Texts, TextsOf, fetched
from preprocess.scan import PlannedUnit, Scan
from preprocess.stages import all_sizes
from preprocess.units import Store
from preprocess.work import Known, Work
from preprocess.worker import NotYet, Packed

PLENTY = 1_000
"""Units that wait for workers when the scan has ended, while others are looked up in the cache."""


@dataclass(frozen=True)
class UnitTexts:
    """A scan and where its texts come from."""

    found: Scan
    texts: TextsOf
    again: Callable[[Sequence[PlannedUnit]], Texts]
    """those of one chunk once more"""

    def fetched(self, units: Sequence[PlannedUnit], texts: Texts) -> list[str]:
        """The texts of a chunk in this process."""
        try:
            return [text for part in texts for text in fetched(part)]
        except ObjectLostError:
            return [text for part in self.again(units) for text in fetched(part)]


def read_by(readers: Readers, found: Scan) -> UnitTexts:
    """The texts of a scan that these readers have outlined."""
    return UnitTexts(
        found,
        lambda chunks: readers.texts(c if isinstance(c, NotYet) else (c, found.wanted(c)) for c in chunks),
        lambda chunk: readers.again(found.wanted(chunk)),
    )


def through_units(
    stage: str,
    given: UnitTexts,
    cache: Store,
    work: Work,
    setup: Callable[[], Callable[[str], Any]],
    *,
    finish: Callable[[PlannedUnit, list[tuple[str, Any]]], bytes | None],
    key: Callable[[PlannedUnit], str] = lambda unit: unit.key,
    take: Callable[[PlannedUnit, bytes], None] = lambda unit, content: None,
    slowest: float,
    **needs: Any,
) -> None:
    """Run one stage.

    `key` says where a unit's file lies in the cache, and `take` gets each file, new or not. `finish` makes that of a
    unit in whose chunk something failed, from its (text, result), or None. A text may take its characters / `slowest`
    seconds. `needs` are arguments of the pool, with a packing that makes a file for each unit.
    """
    found = given.found
    waiting: deque[PlannedUnit] = deque()
    flying: dict[tuple[str, ...], tuple[Sequence[PlannedUnit], Texts]] = {}
    known, all_known = 0, False  # documents whose unit is in the cache; whether the others wait

    def missing() -> Iterator[PlannedUnit | None]:
        """The units to work on. The scan goes on by at most one block for each, while there are others."""
        nonlocal known, all_known
        for units in found.coming():
            for unit in units:
                if (content := cache.get(key(unit))) is None:
                    waiting.append(unit)
                else:
                    known += unit.documents
                    take(unit, content)
                if found.ended and len(waiting) > PLENTY:
                    yield waiting.popleft()
            if waiting and not found.ended:
                yield waiting.popleft()
            elif not units:
                yield None
        all_known = True
        while waiting:
            yield waiting.popleft()

    def content(keys: tuple[str, ...]) -> tuple[Any, ...]:
        units, parts = flying[keys]
        return ([found.sizes(unit) for unit in units], *parts)

    def renewed(keys: tuple[str, ...]) -> tuple[Any, ...]:
        units, _ = flying[keys]
        flying[keys] = units, given.again(units)
        return content(keys)

    def chunks() -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]] | NotYet]:
        left = lambda: len(waiting) if all_known else None  # noqa: E731
        for one in given.texts(work.in_chunks(missing(), left)):
            if isinstance(one, NotYet):
                yield one
                continue
            keys = tuple(map(key, one[0]))
            flying[keys] = one
            yield keys, content(keys)

    def put(unit: PlannedUnit, content: bytes | None) -> None:
        if content is not None:
            cache.put(key(unit), content)
            take(unit, content)

    def commit(keys: tuple[str, ...], results: list[Any] | Packed) -> None:
        units, parts = flying[keys]
        if isinstance(results, Packed):
            for unit, file in zip(units, results.content, strict=True):
                put(unit, file)
        else:
            both = zip(given.fetched(units, parts), results, strict=True)
            for unit in units:
                put(unit, finish(unit, list(islice(both, unit.documents))))
        del flying[keys]

    work.through_pool(
        stage,
        setup,
        chunks(),
        commit,
        chars=all_sizes,
        known=lambda: Known(found.documents if found.ended else None, known),
        seconds=lambda content: [n / slowest for n in all_sizes(content)],
        renew=renewed,
        **needs,
    )
