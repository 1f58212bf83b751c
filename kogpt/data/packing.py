"""Packing: which conversations share a window, and what is left of one that is too long. Arithmetic only.

`pack` is best-fit decreasing: the longest first, each into the fullest window that still has room for it (Johnson 1973;
at most 11/9 of the fewest possible windows). Nothing is cut, so what does not fill a window is padding. Cost: a look-up
in a bit mask of `capacity` bits per conversation.

`newest_turns` shortens a conversation as a chat does when its context is full: the oldest whole turns go, a system
message stays. Its tokens are `[CLS] ([SYSTEM] s [END])? ([USER] u [END] [ASSISTANT] a [END])* [SEP]`
(kogpt.tokenizer.chat).
"""

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
    """What is left of a conversation: its tokens up to `head`, and from `tail` on."""

    head: int
    tail: int


def pack(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """The items of each window, by index, longest first. Every item is in one window, and no window is over `capacity`.

    Raises `ValueError` if an item is empty or longer than `capacity`.
    """
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= capacity):
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} for a capacity of {capacity}")
    windows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # the windows that have exactly so much room
    rooms = 0  # bit r: there is a window with room r
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            window = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, window = capacity, len(windows)
            windows.append([])
        windows[window].append(item)
        with_room[room - length].append(window)
        rooms |= 1 << (room - length)
    return windows


def newest_turns(tokens: np.ndarray, limit: int, *, system: int, user: int, end: int) -> Kept | None:
    """The part of a conversation of at most `limit` tokens that a chat would keep; None if not even one turn fits.

    `system`, `user`, and `end` are the role tokens. `Kept(0, 0)` is the whole conversation.
    """
    if len(tokens) <= limit:
        return Kept(0, 0)
    ends = np.flatnonzero(tokens == end)
    head = int(ends[0]) + 1 if len(ends) and tokens[1] == system else 1
    for tail in np.flatnonzero(tokens == user).tolist():
        if tail > head and head + len(tokens) - tail <= limit:
            return Kept(head, tail)
    return None
