"""Packing keeps every conversation whole, and a conversation that is too long loses its oldest whole turns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.data.packing import Kept, newest_turns, pack

CLS, SEP, SYSTEM, USER, ASSISTANT, END, WORD = range(7)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 64))
def test_every_item_is_in_one_window_and_no_window_is_over_full(lengths: list[int], capacity: int) -> None:
    windows = pack(np.array(lengths, dtype=np.int64), capacity)
    assert sorted(item for window in windows for item in window) == list(range(len(lengths)))
    filled = [sum(lengths[item] for item in window) for window in windows]
    assert all(0 < tokens <= capacity for tokens in filled)
    assert windows == _best_fit(lengths, capacity)


def _best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing as it is defined; of windows with the same room, the one that came to it last."""
    windows: list[list[int]] = []
    changed: list[int] = []  # window numbers, the last one changed at the end
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rooms = [(capacity - sum(lengths[i] for i in windows[w]), -changed.index(w), w) for w in changed]
        fitting = [room for room in rooms if room[0] >= lengths[item]]
        chosen = min(fitting)[2] if fitting else len(windows)
        if not fitting:
            windows.append([])
        windows[chosen].append(item)
        changed = [w for w in changed if w != chosen] + [chosen]
    return windows


def test_the_fullest_window_that_has_room_is_taken() -> None:
    assert pack(np.array([3, 6, 4, 2, 5]), 10) == [[1, 2], [4, 0, 3]]
    assert pack(np.array([7, 8, 2, 3]), 10) == [[1, 2], [0, 3]]


def test_short_conversations_fill_their_windows() -> None:
    lengths = np.random.default_rng(1).integers(5, 60, 2000)
    windows = pack(lengths, 256)
    assert lengths.sum() / (len(windows) * 256) > 0.99


def test_what_cannot_be_packed_is_refused() -> None:
    for lengths in ([0, 3], [11]):
        with pytest.raises(ValueError, match="capacity of 10"):
            pack(np.array(lengths), 10)
    assert pack(np.array([], dtype=np.int64), 10) == []


messages = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6)


@given(messages, st.none() | st.integers(0, 5), st.integers(2, 90))
def test_the_oldest_whole_turns_go_and_the_system_message_stays(
    turns: list[tuple[int, int]], system: int | None, limit: int
) -> None:
    head = [CLS] + ([] if system is None else [SYSTEM, *[WORD] * system, END])
    rendered = [[USER, *[WORD] * u, END, ASSISTANT, *[WORD] * a, END] for u, a in turns]

    def whole(first: int) -> list[int]:
        return [*head, *(token for turn in rendered[first:] for token in turn), SEP]

    tokens = np.array(whole(0))
    kept = newest_turns(tokens, limit, system=SYSTEM, user=USER, end=END)
    fitting = [first for first in range(len(turns)) if len(whole(first)) <= limit]
    if not fitting:
        assert kept is None
        return
    assert kept is not None
    left = [*tokens[: kept.head], *tokens[kept.tail :]] if kept != Kept(0, 0) else tokens.tolist()
    assert left == whole(fitting[0])
