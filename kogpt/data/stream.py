"""The articles of a split as one long array of tokens. In: a corpus and where its articles lie. Out: int64 slices.

Articles that are neighbors in a shard count as one run, so that reading across them is one copy. Cost: a few numbers
per run; a read touches the pages it needs.
"""

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kogpt.data.corpus import TokenCorpus


class Stream:
    """Concatenated articles as one long array of token ids. Neighbors in a shard are read together."""

    def __init__(self, corpus: "TokenCorpus", offsets: np.ndarray, lengths: np.ndarray):
        self._corpus = corpus
        self._runs: list[tuple[int, int]] = []  # shard, index in it
        self._starts: list[int] = []  # of each run, in the stream
        self._length, previous = 0, (-1, -1)
        for offset, length in zip(offsets.tolist(), lengths.tolist(), strict=True):
            shard, index = corpus.place(offset)
            if (shard, index) != previous:
                self._runs.append((shard, index))
                self._starts.append(self._length)
            previous = (shard, index + length)
            self._length += length

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens start ... start + count of the stream: int64 [count], a copy."""
        if start < 0 or count < 0 or start + count > self._length:
            raise IndexError(f"tokens {start} to {start + count} of a stream of {self._length}")
        out = np.empty(count, dtype=np.int64)
        run, done = bisect_right(self._starts, start) - 1, 0
        while done < count:
            end = self._starts[run + 1] if run + 1 < len(self._starts) else self._length
            size = min(count - done, end - start - done)
            shard, index = self._runs[run]
            index += start + done - self._starts[run]
            out[done : done + size] = self._corpus.shard(shard)[index : index + size]
            run, done = run + 1, done + size
        return out
