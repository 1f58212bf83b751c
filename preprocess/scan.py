"""The scan: blocks of outlines in the order of the input -> units, what is dropped, and a fingerprint of all articles.

In: the keys of blocks (preprocess.outlines) in a store, as they come. Out: units, also before the last block is there,
so that the analysis begins at once. Here an article meets all others: texts that are the same as an earlier one are
dropped, those with a verdict of the screening as well, and documents are counted up to --limit.

Memory: 12 bytes for each document, 24 for its digest (preprocess.first_places), 5 for its part of a unit, and 150 for
each article that is dropped. All else stays on the disk, where `Scan.rows` finds what is asked for.
Cost of the driver: 0.002 ms per article, 0.01 ms per duplicate.
"""

import hashlib
import json
import time
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocess.documents import Dropped
from preprocess.first_places import FirstPlaces
from preprocess.losses import SAME, Losses
from preprocess.outlines import digests, hexadecimal, load, mapped_ids, printable, renumbered
from preprocess.units import Grouping, Store, key_of

_LOADED = 8
"""blocks in memory at a time, 0.5 MB each"""
_MAPPED = 8192
"""blocks whose ids are at hand, for duplicates; a process may map 65,530 files"""
_NAP_SECONDS = 0.005
DROPPED = pa.schema([(name, pa.string()) for name in ("id", "source", "status", "reason", "detail")])


class PlannedUnit(NamedTuple):
    """A unit without its texts."""

    key: str
    first: int
    """the number of its first document among those that are kept"""
    documents: int
    chars: int
    gone: Mapping[int, str] = MappingProxyType({})
    """documents that are dropped after the analysis, by number within the unit, and why"""


class Wanted(NamedTuple):
    """Articles of a span by number, and the hash of their hashes."""

    span: int
    numbers: list[int]
    digest: str


class Block(NamedTuple):
    """The number of a span, and the key of one of its blocks."""

    span: int
    key: str
    goes_on: bool = False
    """The span is a later part of the file of the span before."""


class Scan:
    """Everything known about the input."""

    def __init__(
        self,
        blocks: Iterable[Block | None],
        store: Store,
        analyzer: dict[str, str],
        *,
        limit: int | None = None,
        verdicts: Mapping[str, tuple[str, str]] = MappingProxyType({}),
        losses: Losses | None = None,
    ):
        """None among the blocks: the next one is not there yet."""
        self.units: list[PlannedUnit] = []
        self.dropped: list[pa.RecordBatch] = []
        self.documents = self.chars = 0
        self.ended = False
        self._blocks, self._store, self._limit = iter(blocks), store, limit
        self._verdicts, self._losses = verdicts, losses
        self._grouping, self._planned = Grouping(analyzer), 0
        self._digest, self._seen, self._taken = hashlib.sha256(), FirstPlaces(), 0
        self._keys: list[str] = []
        self._starts = [0]  # the number of the first article of each block, and of the next one
        self._spans: list[int] = []  # the same of each span
        self._file = 0  # the same of the file that the last span is a part of
        self._files: dict[int, int] = {}  # the same for each block of a later part
        self._numbers, self._chars = array("q"), array("i")  # of the documents that are kept
        self._block = lru_cache(_LOADED)(self._load)
        self._ids = lru_cache(_MAPPED)(lambda i: mapped_ids(store.path(self._keys[i])))

    def _load(self, i: int) -> pa.RecordBatch:
        block = load(self._store.path(self._keys[i]))
        return renumbered(block, self._starts[i] - self._files[i]) if i in self._files else block

    @property
    def articles_in(self) -> int:
        return self.documents + sum(batch.num_rows for batch in self.dropped)

    @property
    def fingerprint(self) -> str:
        """Of all articles, as far as the scan has come."""
        return self._digest.hexdigest()

    @property
    def account(self) -> dict[str, Any]:
        """The articles as a setting of the run."""
        return {"in": self.articles_in, "sha256": self.fingerprint}

    @property
    def reasons(self) -> Counter[str]:
        """How many are dropped for each reason."""
        return Counter(reason for batch in self.dropped for reason in batch["reason"].to_pylist())

    def coming(self) -> Iterator[list[PlannedUnit]]:
        """All units: those that are known, then the new ones as they come; an empty list now and then."""
        yield self.units[:]
        if self.ended:
            return
        for block in self._blocks:
            yield [] if block is None else self._take_in(block)
            if self._taken == self._limit:
                break
        self._blocks, self._seen = iter(()), FirstPlaces()  # ends the readers, and frees the memory
        self._ids.cache_clear()
        self.ended = True
        yield self._planned_units(self._grouping.end())

    def finish(self) -> "Scan":
        """Scan what is left."""
        for units in self.coming():
            if not units and not self.ended:
                time.sleep(_NAP_SECONDS)
        return self

    def _take_in(self, block: Block) -> list[PlannedUnit]:
        return self._planned_units(self._add(block))

    def _planned_units(self, found: Iterable[tuple[str, int]]) -> list[PlannedUnit]:
        new = []
        for key, count in found:
            first, self._planned = self._planned, self._planned + count
            new.append(PlannedUnit(key, first, count, sum(self._chars[first : first + count])))
        self.units += new
        return new

    def _add(self, found: Block) -> Iterator[tuple[str, int]]:
        """Account for a block, and yield the units that end in it."""
        if found.span == len(self._spans):
            self._spans.append(self._starts[-1])
            self._file = self._file if found.goes_on else self._starts[-1]
        if found.goes_on:
            self._files[len(self._keys)] = self._file
        self._keys.append(found.key)
        start = self._starts[-1]
        block = self._block(len(self._keys) - 1)
        self._starts.append(start + block.num_rows)

        rows = np.flatnonzero(block["sha256"].is_valid().to_numpy(zero_copy_only=False))
        every = digests(block)
        own = every if len(rows) == block.num_rows else b"".join(every[32 * i : 32 * i + 32] for i in rows.tolist())
        first = self._seen.add(own, start + rows)
        kept = rows[first == start + rows]
        if self._limit is not None and len(kept) >= self._limit - self._taken:
            kept = kept[: self._limit - self._taken]
            block = block.slice(0, int(kept[-1]) + 1)
        self._taken += len(kept)
        hashes = hexadecimal(digests(block), "\n")

        gone = {
            row: ("duplicate", f"same text as {self._id(place)}")
            for row, place in zip(rows.tolist(), first.tolist(), strict=True)
            if place != start + row and row < block.num_rows
        }
        if self._verdicts:
            judged = {row: self._verdicts.get(hashes[row].as_py()[:-1]) for row in kept.tolist()}
            gone |= {row: verdict for row, verdict in judged.items() if verdict is not None}
            kept = np.array([row for row in kept.tolist() if row not in gone], dtype=np.int64)
        self._account(block, hashes, gone)
        planned = block.take(pa.array(kept))
        self._numbers.frombytes((start + kept).astype(np.int64).tobytes())
        self._chars.frombytes(planned["chars"].to_numpy().tobytes())
        self.documents += len(kept)
        self.chars += pc.sum(planned["chars"]).as_py() or 0
        return self._grouping.add((hashes[row].as_py()[:-1] for row in kept.tolist()), planned["length"].to_pylist())

    def _account(self, block: pa.RecordBatch, hashes: pa.Array, gone: dict[int, tuple[str, str]]) -> None:
        """Note what is dropped in a block, and bring the fingerprint up to date."""
        is_document = block["sha256"].is_valid()
        lines = pc.binary_join_element_wise(block["id"], block["source"], pc.if_else(is_document, hashes, None), " ")
        if self._losses is not None:
            judged = [row for row, (reason, _) in gone.items() if reason not in SAME]
            stays = is_document.to_numpy(zero_copy_only=False).copy()
            stays[judged] = False
            self._losses.found_in(block["source"].filter(pa.array(stays)).unique().to_pylist())
        left = np.flatnonzero(~is_document.to_numpy(zero_copy_only=False)).tolist()
        if gone or left:
            own = lines.to_pylist()
            notes = []
            for row in sorted([*gone, *left]):
                values = {name: block[name][row].as_py() for name in ("id", "source")}
                if row in gone:
                    dropped = Dropped(**values, reason=gone[row][0], detail=gone[row][1])
                    own[row] = f"{dropped!r}\n"
                else:
                    values |= {name: block[name][row].as_py() for name in ("reason", "detail", "mend")}
                    dropped = Dropped(**values)
                    own[row] = f"{block['line'][row].as_py()}\n"
                notes.append(dropped_row(dropped.id, dropped.source, dropped.reason, dropped.detail))
                if self._losses is not None and dropped.reason != "duplicate":
                    self._losses.note(dropped)
            self.drop(notes)
            self._digest.update("".join(own).encode())
        elif len(lines):
            offsets, content = lines.buffers()[1:]
            end = int(np.frombuffer(offsets, np.int32, len(lines) + 1)[-1])
            self._digest.update(memoryview(content)[:end])

    def drop(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows of dropped.parquet, as `dropped_row` makes them."""
        self.dropped.append(pa.RecordBatch.from_pylist(rows, schema=DROPPED))

    def _id(self, number: int) -> str:
        i = bisect_right(self._starts, number) - 1
        id = self._ids(i)[number - self._starts[i]].as_py()
        return f"{id.rpartition('#')[0]}#{number - self._files[i]}" if i in self._files else id

    # ---- what is known of the documents that are kept

    def sizes(self, unit: PlannedUnit) -> list[int]:
        """The characters of each document of a unit."""
        return self._chars[unit.first : unit.first + unit.documents].tolist()

    def rows(self, units: Sequence[PlannedUnit]) -> pa.Table:
        """The documents of units.

        Columns: id, source, text_sha256 (hexadecimal), chars, learnt_chars (null for articles), controls and surrogates
        that were removed, masked (a JSON object of kinds of personal data, or null).
        """
        parts = [self._take(block, rows) for block, rows in self._places(units, self._starts)]
        columns = ("id", "source", "chars", "learnt_chars", "controls", "surrogates", "masked")
        table = pa.Table.from_batches(parts).select(columns)
        sha256 = hexadecimal(b"".join(map(digests, parts)))
        return table.append_column("text_sha256", sha256)

    def _take(self, block: int, rows: np.ndarray) -> pa.RecordBatch:
        whole = self._block(block)
        first, last = int(rows[0]), int(rows[-1])
        return whole.slice(first, len(rows)) if last - first < len(rows) else whole.take(pa.array(rows))

    def wanted(self, units: Sequence[PlannedUnit]) -> list[Wanted]:
        """Where the texts of units are."""
        hashes = self.rows(units)["text_sha256"].to_pylist()
        wanted = []
        for span, numbers in self._places(units, self._spans):
            own, hashes = hashes[: len(numbers)], hashes[len(numbers) :]
            wanted.append(Wanted(span, numbers.tolist(), key_of(own)))
        return wanted

    def _places(self, units: Sequence[PlannedUnit], starts: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(number of a part of the input, numbers within it) of the documents; parts begin at `starts`."""
        numbers = np.concatenate([np.array(self._numbers[unit.first : unit.first + unit.documents]) for unit in units])
        begin = 0
        while begin < len(numbers):
            part = bisect_right(starts, int(numbers[begin])) - 1
            last = part + 1 == len(starts)
            end = len(numbers) if last else int(np.searchsorted(numbers, starts[part + 1]))
            yield part, numbers[begin:end] - starts[part]
            begin = end


def dropped_row(id: str, source: str, reason: str, detail: str, status: str = "dropped") -> dict[str, Any]:
    """A row of dropped.parquet. Lone surrogates in the detail (from a JSON key) are written as \\ud800."""
    return {"id": id, "source": source, "status": status, "reason": reason, "detail": printable(detail)}


def masks(table: pa.Table) -> Counter[str]:
    """Masks by kind in the rows of a scan."""
    counts: Counter[str] = Counter()
    for own in table["masked"].drop_null().to_pylist():
        counts.update(json.loads(own))
    return counts
