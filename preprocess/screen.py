"""Screening: filters that cost too much for the driver judge each text on the workers, and their verdicts are cached.

In: a scan of the documents that the other filters keep, with their texts, which go from readers to workers. Out: the
verdicts, a dict from the sha256 of a text that goes to its reason and detail. A text that stays has no verdict, so the
memory is that of the dropped ones.

1. Each text: the quality rules, and for --near-duplicates the bands of its signature.
2. Near-duplicates: the groups of candidates (preprocess.near_duplicates); then the texts of each group, read again, are
   compared on the workers.

The result of each unit lies in the cache folder under the hash of its texts and of everything that it depends on, code
included. So a run that continues, or finds its corpus finished, judges nothing twice. No result depends on workers or
their order.

Cost: 1 ms (quality) and 0.05 ms (bands) of a worker's CPU for an article of 1,400 characters. The driver reads only the
candidates of step 2. Its memory is that of the scan, for near-duplicates 70 MB for a million articles, 250 bytes for
each text that is a candidate, and the texts of the groups that are with the workers. A group is never divided: its
texts are in the driver's memory and a worker's, which also holds 8 bytes for each character of those that stay. A
template with very many copies may therefore need gigabytes. Disk, during the step: 150 MB for a million articles, and
the texts of the candidates.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from kogpt.common.errors import UserError
from preprocess import near_duplicates, quality
from preprocess.near_duplicates import Repeat, Shape, bands, groups, repeats, shape_for
from preprocess.options import Options
from preprocess.quality import Limits, broken_rule
from preprocess.scan import PlannedUnit
from preprocess.stages import Sizes
from preprocess.unit_stage import UnitTexts, through_units
from preprocess.units import Store, key_of
from preprocess.work import CachedChunk, Work
from preprocess.worker import Failed, NotYet

Verdict = tuple[str, str]
"""reason, detail"""
MEMORY_MIB = 300
SLOWEST_CHARS_PER_SECOND = 5_000.0
_AT_ONCE = 256
"""Candidates that are read together."""
GROUP_CHARS = 1 << 20
"""Groups of candidates go to a worker together up to this many characters."""


@dataclass(frozen=True)
class Screening:
    """What is asked of each text; also the work of a pool."""

    thresholds: Mapping[str, Limits]
    near_duplicates: float | None

    def __call__(self) -> Callable[[str], tuple[Verdict | None, bytes]]:
        return self.judge

    @property
    def shape(self) -> Shape:
        return Shape(0, 0) if self.near_duplicates is None else shape_for(self.near_duplicates)

    def judge(self, text: str) -> tuple[Verdict | None, bytes]:
        """The reason why a text goes, or None; and its bands, 0 if it goes."""
        broken = broken_rule(text, self.thresholds)
        if broken or self.near_duplicates is None:
            return broken and (f"quality: {broken[0]}", broken[1]), bytes(8 * self.shape.bands)
        return None, bands(text, self.shape).tobytes()

    @property
    def digest(self) -> str:
        """A sha256 of all that a result depends on besides the text."""
        files = [Path(str(module.__file__)) for module in (quality, near_duplicates)]
        asked = [dict(self.thresholds), self.near_duplicates, near_duplicates.ALGORITHM]
        return key_of([json.dumps(asked), *(file.read_text(encoding="utf-8") for file in files)])


def screening_of(options: Options, kind: str) -> Screening | None:
    """The screening that the options ask for, if any. Raises `UserError` if it makes no sense for this kind of text."""
    thresholds = options.thresholds
    if thresholds is not None and kind == "conversations":
        raise UserError("--quality has rules for articles, and the input is conversations; leave out --quality")
    if thresholds is None and options.near_duplicates is None:
        return None
    return Screening(thresholds or {}, options.near_duplicates)


def screen(screening: Screening, given: UnitTexts, cache: Store, work: Work, folder: Path) -> dict[str, Verdict]:
    """The verdicts on all documents of a scan without an analyzer. `folder` is for temporary files."""
    verdicts: dict[str, Verdict] = {}
    with ExitStack() as opened:
        files = [opened.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(screening.shape.bands)]
        _judge_each(screening, given, cache, work, verdicts, files)
        if screening.near_duplicates is not None:
            count = given.found.documents
            read = (_column(file, count) for file in files)
            verdicts |= _compare(screening, list(groups(read, count)), given, cache, work, folder)
    return verdicts


class _Judged:
    """Chunks are the texts of several units, in one part or more; each unit's file has its verdicts and bands."""

    def items(self, sizes: Sizes, *parts: Sequence[str]) -> list[str]:
        return [text for part in parts for text in part]

    def pack(
        self, texts: Sequence[str], results: Sequence[tuple[Verdict | None, bytes]], sizes: Sizes, *parts: Sequence[str]
    ) -> list[bytes]:
        left = iter(results)
        return [_packed(list(islice(left, len(unit)))) for unit in sizes]


def _packed(results: list[tuple[Verdict | None, bytes]]) -> bytes:
    said = json.dumps([verdict for verdict, _ in results], ensure_ascii=False).encode()
    return said + b"\n" + b"".join(own for _, own in results)


def _judge_each(
    screening: Screening,
    given: UnitTexts,
    cache: Store,
    work: Work,
    verdicts: dict[str, Verdict],
    columns: Sequence[IO[bytes]],
) -> None:
    """Step 1: fill in the verdicts, and write the bands at the places of the documents."""
    digest = screening.digest

    def note(unit: PlannedUnit, content: bytes) -> None:
        said, _, rest = content.partition(b"\n")
        if any(own := json.loads(said)):
            hashes = given.found.rows([unit])["text_sha256"].to_pylist()
            verdicts.update((sha256, (one[0], one[1])) for sha256, one in zip(hashes, own, strict=True) if one)
        numbers = np.frombuffer(rest, dtype="<u8").reshape(unit.documents, len(columns))
        for file, column in zip(columns, numbers.T, strict=True):
            file.seek(8 * unit.first)
            file.write(column.tobytes())

    through_units(
        "screening",
        given,
        cache,
        work,
        screening,
        key=lambda unit: key_of([unit.key, digest]),
        finish=lambda unit, both: _packed([screening.judge(t) if isinstance(own, Failed) else own for t, own in both]),
        take=note,
        packing=_Judged(),
        memory_mib=MEMORY_MIB,
        slowest=SLOWEST_CHARS_PER_SECOND,
    )


def _column(file: IO[bytes], count: int) -> np.ndarray:
    file.seek(0)
    return np.frombuffer(file.read(), dtype="<u8", count=count)


class _Compared:
    """Chunks are groups of texts."""

    def items(self, *groups: list[str]) -> Sequence[list[str]]:
        return groups

    def pack(self, groups: Sequence[list[str]], results: Sequence[list[Repeat]], *_: list[str]) -> bytes:
        return json.dumps(results).encode()


def _compare(
    screening: Screening, found: Sequence[np.ndarray], given: UnitTexts, cache: Store, work: Work, folder: Path
) -> dict[str, Verdict]:
    """Step 2: the verdicts of the groups of candidates, which are numbers of documents."""
    assert screening.near_duplicates is not None
    if not found:
        return {}
    verdicts: dict[str, Verdict] = {}
    compare = partial(repeats, threshold=screening.near_duplicates)
    digest = screening.digest

    def note(members: list[list[tuple[str, str]]], content: bytes) -> None:
        for own, of_group in zip(members, json.loads(content), strict=True):
            for number, of, similarity in of_group:
                verdicts[own[number][1]] = ("near-duplicate", f"{similarity:.3f} like {own[of][0]}")

    def chunks() -> Iterator[CachedChunk]:
        for texts, members in _read_groups(found, given, folder):
            key = key_of([digest, *(f"{len(own)} " + " ".join(sha256 for _, sha256 in own) for own in members)])
            yield CachedChunk(key, partial(tuple, texts), partial(note, members))

    work.through_cache(
        "near-duplicates",
        partial(_always, compare),
        chunks(),
        cache,
        again=compare,
        packing=_Compared(),
        unit="groups",
        chars=lambda groups: [sum(map(len, texts)) for texts in groups],
        memory_mib=MEMORY_MIB,
        seconds=lambda groups: [len(texts) * sum(map(len, texts)) / SLOWEST_CHARS_PER_SECOND for texts in groups],
    )
    return verdicts


def _always(work: Callable[[list[str]], list[Repeat]]) -> Callable[[list[str]], list[Repeat]]:
    return work


def _read_groups(
    found: Sequence[np.ndarray], given: UnitTexts, folder: Path
) -> Iterator[tuple[list[list[str]], list[list[tuple[str, str]]]]]:
    """The texts of several groups, and (id, sha256) of each; the texts wait in a file until their group is complete."""
    places: dict[int, tuple[str, str, int, int]] = {}
    """number -> id, sha256, where the text begins and ends in the file"""
    wanted = np.unique(np.concatenate(found)).tolist()
    alone = (PlannedUnit("", number, 1, 0) for number in wanted)
    with tempfile.TemporaryFile(dir=folder) as file:
        for one in given.texts(iter(lambda: list(islice(alone, _AT_ONCE)), [])):
            if isinstance(one, NotYet):
                one.wait()
                continue
            rows = given.found.rows(one[0])
            ids, hashes = rows["id"].to_pylist(), rows["text_sha256"].to_pylist()
            for unit, id, sha256, text in zip(one[0], ids, hashes, given.fetched(*one), strict=True):
                begin = file.tell()
                file.write(text.encode())
                places[unit.first] = id, sha256, begin, file.tell()

        texts: list[list[str]] = []
        members: list[list[tuple[str, str]]] = []
        chars = 0
        for numbers in found:
            own = [places[number] for number in numbers.tolist()]
            texts.append([])
            for _, _, begin, end in own:
                file.seek(begin)
                texts[-1].append(file.read(end - begin).decode())
            members.append([(id, sha256) for id, sha256, _, _ in own])
            chars += sum(map(len, texts[-1]))
            if chars >= GROUP_CHARS:
                yield texts, members
                texts, members, chars = [], [], 0
        if texts:
            yield texts, members
