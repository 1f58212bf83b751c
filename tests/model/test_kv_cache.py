"""Attention to the cache, with fewer KV heads than heads, on both of its ways, against plain causal attention."""

import resource
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F

from kogpt.model.kv_cache import KVCache
from kogpt.model.qwen3 import Qwen3Config

CONFIG = Qwen3Config(vocab_size=5, max_seq_len=30, n_layer=2, n_head=6, n_kv_head=2, n_embd=12, head_dim=8)


def test_both_ways_to_attend_are_causal_attention_over_each_place_s_own_tokens() -> None:
    torch.manual_seed(0)
    lengths = [30, 7, 19]
    queries = [torch.randn(1, 6, length, 8) for length in lengths]
    keys, values = ([torch.randn(1, 2, length, 8) for length in lengths] for _ in range(2))
    wanted = [
        F.scaled_dot_product_attention(
            query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), is_causal=True
        )
        for query, key, value in zip(queries, keys, values, strict=True)
    ]

    def attend(way: Callable[..., torch.Tensor], cache: KVCache, rows: list[int], spans: list[range]) -> None:
        cache.rows = rows
        parts = [
            torch.cat([whole[row][:, :, span.start : span.stop] for row, span in zip(rows, spans, strict=True)])
            for whole in (queries, keys, values)
        ]
        made = way(cache, 1, *parts)
        cache.advance(len(spans[0]))
        for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
            assert (made[i] - wanted[row][0, :, span.start : span.stop]).abs().max() < 1e-5

    for way in (KVCache._attend_by_row, KVCache._attend_together):
        cache = KVCache(CONFIG, 3)
        cache.keys.fill_(9.0)  # what an earlier sequence has left
        for row, cuts in enumerate(([0, 11, 12, 28], [0, 5], [0, 1, 17])):
            for start, end in pairwise(cuts):
                attend(way, cache, [row], [range(start, end)])
        assert cache.lengths == [28, 5, 17]
        attend(way, cache, [2, 0, 1], [range(17, 18), range(28, 29), range(5, 6)])
        attend(way, cache, [1, 2], [range(6, 7), range(18, 19)])
        attend(way, cache, [0], [range(29, 30)])
        assert cache.room == 0


def test_a_place_that_is_named_several_times_is_continued_by_each_row_in_turn() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(4, 6, 1, 8), torch.randn(4, 2, 1, 8), torch.randn(4, 2, 1, 8)

    def attend(way: Callable[..., torch.Tensor], cache: KVCache, rows: list[int], part: slice) -> torch.Tensor:
        cache.rows = rows
        made = way(cache, 1, query[part], key[part], value[part])
        cache.advance(1)
        return made

    for way in (KVCache._attend_by_row, KVCache._attend_together):
        together, in_turn = KVCache(CONFIG, 3), KVCache(CONFIG, 3)
        wanted = torch.cat([attend(way, in_turn, [row], slice(i, i + 1)) for i, row in enumerate([2, 2, 0, 2])])
        assert (attend(way, together, [2, 2, 0, 2], slice(4)) - wanted).abs().max() < 1e-6
        assert together.lengths == in_turn.lengths == [1, 0, 3]


def test_to_prepare_a_pass_compares_no_row_with_every_other() -> None:
    class Place(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Place.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    cache = KVCache(replace(CONFIG, max_seq_len=400), 300)
    for rows in (list(range(300)), [0, 1, 2] * 100):
        cache.rows = [Place(row) for row in rows]
        Place.compared = 0
        assert cache.positions(1).flatten().tolist() == [rows[:i].count(row) for i, row in enumerate(rows)]
        assert Place.compared < 10 * len(rows)


def test_places_take_memory_only_as_far_as_they_are_filled() -> None:
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    before = resident()
    cache = KVCache(replace(CONFIG, max_seq_len=2**14), 200)
    assert cache.keys.nbytes + cache.values.nbytes > 700 * 2**20
    assert not cache.keys[1, 7, :, 100:200].any()
    assert resident() - before < 50
