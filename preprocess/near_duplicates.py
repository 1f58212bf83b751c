"""Near-duplicates: MinHash and LSH find candidates, the exact Jaccard similarity decides.

The similarity of two texts is the Jaccard similarity of their sets of 5-character shingles (Broder 1997). Pure
functions in four steps; preprocess.screen runs them on the workers:

1. `shingles`: a text -> a 64-bit hash of each shingle.
2. `bands`: a text -> a signature of up to 128 minima (rensa), cut into bands of rows (Indyk and Motwani 1998). Two
   texts are candidates if one band is the same. `shape_for` chooses the bands such that a pair at the threshold becomes
   one with a probability of 98 % or more: 18 bands of 7 rows for 0.8.
3. `groups`: the bands of all texts -> groups connected by candidates. A band at a time, so 70 bytes a text in memory.
4. `repeats`: the texts of a group, in the order of the input -> which of them go. A text goes if an earlier one that
   stays is at least as similar as the threshold; of several, the most similar one is named. So the first copy stays,
   every text that goes has a partner that stays, and workers or restarts change nothing.

Cost: 0.06 ms of CPU for an article of 1,400 characters for steps 1 and 2 (50 MB/s of UTF-8), 0.1 ms for each text that
is a candidate for step 4. A group of n texts that are alike, but less than the threshold, takes n^2 comparisons.
Memory of step 4: the texts of a group, and 8 bytes for each character of those that stay.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import rensa

SHINGLE = 5
"""characters"""
PIECE = 1 << 20
"""characters"""
PERMUTATIONS = 128
FOUND = 0.98
"""The smallest probability with which a pair at the threshold is a candidate."""
ALGORITHM = f"rensa {rensa.RMinHash.ALGORITHM_VERSION}"
_SEED = 1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_HALF = np.uint64(32)


class Shape(NamedTuple):
    """How a signature is cut."""

    bands: int
    rows: int


class Repeat(NamedTuple):
    """Text `number` of a group repeats text `of`, which stays."""

    number: int
    of: int
    similarity: float


def shape_for(threshold: float) -> Shape:
    """The longest bands that find a pair of this similarity with a probability of `FOUND`."""
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= FOUND:
            return Shape(bands, rows)
    return Shape(PERMUTATIONS, 1)


def shingles(text: str) -> np.ndarray:
    """The hash of each shingle in its order, uint64. A text of fewer characters is one shingle."""
    codes = np.frombuffer(text.ljust(SHINGLE, "\0").encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    return hashed_windows(codes, SHINGLE)


def hashed_windows(codes: np.ndarray, size: int) -> np.ndarray:
    """The hash of each `size` numbers in a row, uint64. Numbers that are no hashes must be below 2^32."""
    count = max(0, len(codes) - size + 1)
    hashes = codes[:count].copy()
    for i in range(1, size):
        hashes ^= hashes >> _HALF
        hashes *= _MULTIPLIER
        hashes += codes[i : count + i]
    return _mixed(hashes)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    hashes ^= hashes >> _HALF
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _HALF
    return hashes


def signature(text: str, size: int) -> np.ndarray:
    """The minima of `size` permutations, uint64. They are taken piece by piece, so a long text needs little memory."""
    found = []
    for start in range(0, max(1, len(text) - SHINGLE + 1), PIECE):
        hashes = shingles(text[start : start + PIECE + SHINGLE - 1])
        found += rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, [0, len(hashes)], size, _SEED).to_rows()
    return np.array(found, dtype=np.uint64).min(axis=0)


def bands(text: str, shape: Shape) -> np.ndarray:
    """A number for each band of a text's signature, uint64 and not 0."""
    cut = signature(text, shape.bands * shape.rows).reshape(shape)
    numbers = np.zeros(shape.bands, np.uint64)
    for i in range(shape.rows):
        numbers = _mixed(numbers + cut[:, i] + np.uint64(1))
    return numbers | np.uint64(1)


def groups(columns: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The numbers of the texts of each group of two or more, ascending, in the order of their first texts.

    Each of `columns` has one band of all `count` texts, 0 for those that do not take part.
    """
    first = np.arange(count)
    for column in columns:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
        first = _joined(first, order[same], order[same + 1])
    order = np.argsort(first, kind="stable")
    starts = np.flatnonzero(np.diff(first[order], prepend=-1))
    sizes = np.diff(starts, append=count)
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield order[start : start + size]


def _joined(first: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`first` (the smallest member of the set of each number) after the sets of each a and b are joined."""
    while True:
        low, high = np.minimum(first[a], first[b]), np.maximum(first[a], first[b])
        apart = low != high
        if not apart.any():
            return first
        np.minimum.at(first, high[apart], low[apart])
        while (shorter := first[first]).tobytes() != first.tobytes():
            first = shorter


def repeats(texts: Sequence[str], threshold: float) -> list[Repeat]:
    """The texts of a group that go."""
    shape = shape_for(threshold)
    found = []
    staying: dict[int, np.ndarray] = {}
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        places = list(enumerate(bands(text, shape).tolist()))
        own = _set(shingles(text))
        candidates = sorted({other for place in places for other in alike.get(place, ())})
        similar = [(similarity(own, staying[other]), -other) for other in candidates]
        most, other = max(similar, default=(0.0, 0))
        if similar and most >= threshold:
            found.append(Repeat(number, -other, most))
            continue
        staying[number] = own
        for place in places:
            alike[place].append(number)
    return found


def _set(hashes: np.ndarray) -> np.ndarray:
    """The different ones, ascending. Faster than np.unique."""
    hashes = np.sort(hashes)
    return hashes[np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))]


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """The Jaccard similarity of two sets of hashes, ascending."""
    if len(a) > len(b):
        a, b = b, a
    places = np.searchsorted(b, a)
    common = np.count_nonzero(b[np.minimum(places, len(b) - 1)] == a)
    return float(common / (len(a) + len(b) - common))


def exact_similarity(a: str, b: str) -> float:
    """The similarity of two texts."""
    return similarity(_set(shingles(a)), _set(shingles(b)))
