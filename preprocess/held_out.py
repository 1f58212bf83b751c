"""Decontamination: which articles share 13 morphemes in a row with a file of evaluation.

In: the files of --held-out, in any format that --input reads, and the analyzed articles. Out: for each article that
shares a 13-gram, the file and the 13 morphemes. 13 is the length that GPT-3 used for words (Brown et al. 2020, appendix
C); an eojeol is two to three morphemes, so this is stricter.

Every string of a record counts by itself: question, context, each choice. A string of fewer than 13 morphemes has no
13-gram, so that a short question does not throw out every article with the same phrase.

The held-out texts are analyzed like articles. Their 13-grams travel to the workers as 64-bit hashes; of a million
articles of 700 morphemes and a million 13-grams, one article in 26,000 would go by a collision of hashes alone.
Cost: 0.1 ms of a worker's CPU for an article of 700 morphemes; 10 bytes for each 13-gram in every worker.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from kogpt.common.errors import UserError
from kogpt.tokenizer.normalize import normalize
from preprocess.documents import Document
from preprocess.filters import ExactDuplicates, kept, not_empty
from preprocess.layouts import Layout
from preprocess.near_duplicates import hashed_windows
from preprocess.outlines import outlined
from preprocess.parsers import PARSE_ERRORS, one_line, values
from preprocess.reading import Texts
from preprocess.scan import Block, PlannedUnit, Scan, dropped_row
from preprocess.sources import find_sources
from preprocess.stages import MESSAGE_SEPARATOR
from preprocess.streams import Broken
from preprocess.unit_stage import UnitTexts
from preprocess.units import MORPHEME_SEPARATOR, Store, key_of, unpack_cut_texts
from preprocess.work import CachedChunk, Work
from preprocess.worker import NotYet

GRAM = 13
"""morphemes"""
MEMORY_MIB = 300
SLOWEST_CHARS_PER_SECOND = 5_000.0


class _AllColumns(Layout):
    def reads(self, column: str) -> bool:
        return True


def held_out_documents(paths: Sequence[str]) -> Iterator[Document]:
    """Every string in the files as a document, each once. Raises `UserError` for what cannot be read."""

    def documents() -> Iterator[Document]:
        count = 0
        for source in find_sources(tuple(paths), "--held-out"):
            try:
                for name, stream in source.members():
                    for text in _strings(values(name, stream, _AllColumns(()))):
                        normal, removed = normalize(text)
                        sha256 = hashlib.sha256(normal.encode()).hexdigest()
                        yield Document(f"{name}#{count}", name, normal, sha256, removed)
                        count += 1
            except (Broken, *PARSE_ERRORS) as error:
                why = error.detail if isinstance(error, Broken) else one_line(error)
                raise UserError(f"--held-out {source.name} cannot be read: {why}") from None

    for document in kept(documents(), [not_empty, ExactDuplicates()]):
        if isinstance(document, Document):
            yield document


def scanned(paths: Sequence[str], store: Store, analyzer: dict[str, str]) -> UnitTexts:
    """The scan of the held-out texts, which stay in memory. Their outlines go into `store`."""
    documents = list(held_out_documents(paths))
    blocks = []
    for number, content in enumerate(outlined(documents)):
        blocks.append(Block(0, key_of(["held out", str(number), hashlib.sha256(content).hexdigest()])))
        store.put(blocks[-1].key, content)

    def own(chunk: Sequence[PlannedUnit]) -> Texts:
        return tuple([document.text for document in documents[u.first : u.first + u.documents]] for u in chunk)

    def texts(
        chunks: Iterable[Sequence[PlannedUnit] | NotYet],
    ) -> Iterator[tuple[Sequence[PlannedUnit], Texts] | NotYet]:
        return (chunk if isinstance(chunk, NotYet) else (chunk, own(chunk)) for chunk in chunks)

    return UnitTexts(Scan(blocks, store, analyzer).finish(), texts, own)


def _strings(value: Any) -> Iterator[str]:
    """The strings in a value, at any depth."""
    if isinstance(value, Broken):
        raise value
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
    elif not isinstance(value, bytes) and hasattr(value, "__iter__"):
        for inner in value:
            yield from _strings(inner)


class Match(NamedTuple):
    """What an article shares with a held-out file."""

    file: str
    gram: str


@dataclass(frozen=True)
class HeldOut:
    """The 13-grams of the held-out texts; also the work of a pool: morphemes of an article -> `Match` or None."""

    hashes: np.ndarray
    """uint64, ascending, at least one"""
    files: np.ndarray
    """the number of the first file with each"""
    names: tuple[str, ...]

    def __call__(self) -> Callable[[str], Match | None]:
        return self.judge

    def judge(self, morphemes: str) -> Match | None:
        """The first 13-gram of an article (or conversation) that the held-out texts have."""
        for message in morphemes.split(MESSAGE_SEPARATOR):
            words = message.split(MORPHEME_SEPARATOR)
            grams = _grams(words)
            places = np.minimum(np.searchsorted(self.hashes, grams), len(self.hashes) - 1)
            shared = np.flatnonzero(self.hashes[places] == grams)
            if len(shared):
                first = int(shared[0])
                return Match(self.names[self.files[places[first]]], " ".join(words[first : first + GRAM]))
        return None

    @property
    def digest(self) -> str:
        return key_of([hashlib.sha256(self.hashes.tobytes() + self.files.tobytes()).hexdigest(), *self.names])


class _Packing:
    """Chunks are the characters of each article of a unit, and the unit's file from the cache."""

    def items(self, sizes: Sequence[int], file: bytes) -> list[str]:
        return [cut.morphemes for cut in unpack_cut_texts(file)]

    def pack(self, items: Sequence[str], results: Sequence[Match | None], *content: Any) -> bytes:
        return json.dumps(results, ensure_ascii=False).encode()


def _grams(morphemes: Sequence[str]) -> np.ndarray:
    """The hash of each 13-gram, uint64."""
    return hashed_windows(np.array([_hash(morpheme) for morpheme in morphemes], dtype=np.uint64), GRAM)


@lru_cache(1 << 18)
def _hash(morpheme: str) -> int:
    return int.from_bytes(hashlib.blake2b(morpheme.encode(), digest_size=8).digest(), "little")


def held_out_grams(found: Scan, cache: Store) -> HeldOut:
    """The 13-grams of the held-out texts, which are analyzed and in the cache. Raises `UserError` if there are none."""
    numbers: dict[str, int] = {}
    grams: dict[int, int] = {}
    for unit in found.units:
        sources = found.rows([unit])["source"].to_pylist()
        for source, cut in zip(sources, unpack_cut_texts(cache.existing(unit.key)), strict=True):
            number = numbers.setdefault(source, len(numbers))
            for gram in _grams(cut.morphemes.split(MORPHEME_SEPARATOR)).tolist():
                grams.setdefault(gram, number)
    if not grams:
        raise UserError(f"--held-out has no text of {GRAM} morphemes or more, so nothing could be found; leave it out")
    hashes = np.array(list(grams), dtype=np.uint64)
    order = np.argsort(hashes)
    return HeldOut(hashes[order], np.array(list(grams.values()))[order], tuple(numbers))


def drop_held_out(held_out: HeldOut, found: Scan, cache: Store, work: Work) -> None:
    """Drop the articles of a scan that share a 13-gram, which are analyzed and in the cache, from its units.

    Raises:
        UserError: if no article is left.
    """
    gone: dict[str, dict[int, str]] = {}
    digest = held_out.digest

    def note(key: str, content: bytes) -> None:
        matches = json.loads(content)
        shared = {i: f"shares with {match[0]}: {match[1]}" for i, match in enumerate(matches) if match is not None}
        if shared:
            gone[key] = shared

    def content(unit: PlannedUnit) -> tuple[list[int], bytes]:
        return found.sizes(unit), cache.existing(unit.key)

    work.through_cache(
        "held-out",
        held_out,
        (CachedChunk(key_of([u.key, digest]), partial(content, u), partial(note, u.key)) for u in found.units),
        cache,
        again=held_out.judge,
        packing=_Packing(),
        chars=lambda content: content[0],
        memory_mib=MEMORY_MIB,
        seconds=lambda content: [size / SLOWEST_CHARS_PER_SECOND for size in content[0]],
    )
    found.units = [unit._replace(gone=gone.get(unit.key, {})) for unit in found.units]
    notes = []
    for unit in found.units:
        if unit.gone:
            rows = found.rows([unit]).select(["id", "source"]).to_pylist()
            notes += [dropped_row(**rows[i], reason="held out", detail=why) for i, why in sorted(unit.gone.items())]
    if notes:
        found.drop(notes)
    found.documents -= len(notes)
    if found.units and not found.documents:
        raise UserError(f"every article shares {GRAM} morphemes in a row with --held-out; give it no file of --input")
