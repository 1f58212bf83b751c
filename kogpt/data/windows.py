"""Windows: which tokens make up window i. Arithmetic only.

An article has L tokens (`[CLS] ... [SEP]`) and T = L - 1 targets: target t is token t + 1, predicted from the tokens up
to t. A window that starts at s reads `max_seq_len + 1` tokens and predicts targets s to s + max_seq_len - 1. With
C = max_seq_len and S = stride, a sequence needs n = 1 window if T <= C, else 1 + ceil((T - C) / S). They start at
min(i * S, T - C): the last window is aligned with the end, so nothing is padded and no target is lost.

There are three modes:
- train: stride C over the packed articles of a split (one stream).
- eval: stride S over one article, with every target scored exactly once.
- compat: the windows of the common script that writes .pt files, including its flaws, for comparison.

Everything is O(1) per window.
"""

from collections.abc import Sequence
from typing import NamedTuple


class EvalWindow(NamedTuple):
    """A window of an article: tokens `start : start + length`. Its targets from `score_from` on are scored.

    Target j of the window is token `start + j + 1`; there are `length - 1` targets.
    """

    start: int
    length: int
    score_from: int


def _count(length: int, max_seq_len: int, stride: int) -> int:
    targets = length - 1
    if targets < 1:
        return 0
    return 1 if targets <= max_seq_len else 1 - (max_seq_len - targets) // stride


def _check(max_seq_len: int, stride: int) -> None:
    if not 1 <= stride <= max_seq_len:
        raise ValueError(f"stride {stride} must be between 1 and max_seq_len {max_seq_len}")


def train_windows(stream_length: int, max_seq_len: int) -> int:
    """The number of windows of a packed stream; 0 if it is too short for one (max_seq_len + 1 tokens)."""
    _check(max_seq_len, max_seq_len)
    return _count(stream_length, max_seq_len, max_seq_len) if stream_length > max_seq_len else 0


def train_window(i: int, stream_length: int, max_seq_len: int) -> int:
    """The start of window `i`, which reads max_seq_len + 1 tokens. The last window ends with the stream."""
    if not 0 <= i < train_windows(stream_length, max_seq_len):
        raise IndexError(f"window {i} of {train_windows(stream_length, max_seq_len)}")
    return min(i * max_seq_len, stream_length - 1 - max_seq_len)


def _overlapping(length: int, max_seq_len: int, stride: int) -> list[int]:
    """Starts of overlapping windows, each of min(max_seq_len + 1, length) tokens, that cover every target."""
    _check(max_seq_len, stride)
    return [min(i * stride, max(0, length - 1 - max_seq_len)) for i in range(_count(length, max_seq_len, stride))]


def eval_windows(length: int, max_seq_len: int, stride: int) -> list[EvalWindow]:
    """Windows over one article that score each target exactly once.

    In every window but the first, a target has at least max_seq_len - stride tokens of context before the token that
    it is predicted from (so at least `stride` if stride <= max_seq_len / 2).
    """
    windows, scored = [], 0
    for start in _overlapping(length, max_seq_len, stride):
        ids = min(max_seq_len + 1, length - start)
        windows.append(EvalWindow(start, ids, scored - start))
        scored = start + ids - 1
    return windows


def compat_windows(
    ids: Sequence[int], max_seq_len: int = 256, stride: int = 128, max_length: int = 512, pad_id: int = 0
) -> list[tuple[list[int], list[int]]]:
    """The windows of an article `[CLS] ... [SEP]` in compat mode: (input_ids, attention_mask), both max_seq_len long.

    It truncates at `max_length` tokens (keeping [SEP] at the end), takes (L - max_seq_len + stride) // stride + 1
    windows, and pads them. Articles under `stride` tokens and every tail are lost, and the last window may contain
    nothing new. Use the other modes for training.
    """
    ids = list(ids)
    if len(ids) > max_length:
        ids = [*ids[: max_length - 1], ids[-1]]
    result = []
    for i in range((len(ids) - max_seq_len + stride) // stride + 1):
        window = ids[i * stride : i * stride + max_seq_len]
        pads = max_seq_len - len(window)
        result.append((window + [pad_id] * pads, [1] * len(window) + [0] * pads))
    return result
