"""Which articles are kept for validation, and which are not cut into morphemes. In: hashes of texts.

A text's split depends on the set of texts and on the share alone: neither on their order nor on who computes it.
Cost: one sha256 an article, and memory for the articles of the validation split.
"""

import hashlib
from collections.abc import Iterable
from heapq import nsmallest

VAL_FRACTION = 0.02
"""Share of the articles kept for validation, unless another is asked for."""


def splits(hashes: Iterable[str], count: int, val_fraction: float) -> list[str]:
    """ "train" or "val" for each of `count` articles, by the rank of its text's hash.

    A share above 0 keeps at least one article of two or more, and never all of them.
    """
    val = 0 if count < 2 or val_fraction == 0 else min(count - 1, max(1, round(count * val_fraction)))
    ranked = ((_rank(sha256), i) for i, sha256 in enumerate(hashes))
    splits = ["train"] * count
    for _, i in nsmallest(val, ranked):
        splits[i] = "val"
    return splits


def is_uncut(text_sha256: str, share: float) -> bool:
    """Whether the text with this hash is one of the `share` of all whose words are not cut into morphemes.

    They have the highest ranks, and those for validation the lowest. Only where the texts are few, or the two shares
    together are near 1, may one be both.
    """
    return int.from_bytes(_rank(text_sha256)[:8]) >= (1 - share) * 2**64


def _rank(sha256: str) -> bytes:
    return hashlib.sha256((sha256 + "split").encode()).digest()
