"""The KV cache: keys and values of earlier tokens, so that a new token costs a forward pass of one token.

It has places. Each holds one sequence from slot 0 on, so slot s has position s, whatever the other places hold. A
sequence can come and go while others stay. Memory: two tensors of `ModelConfig.kv_cache_shape`, reserved in full at the
start; a CPU uses it only as far as it is filled.
"""

import math
from collections import Counter
from functools import cached_property
from mmap import mmap

import torch
import torch.nn.functional as F
from torch import Tensor

from kogpt.model.config import ModelConfig

Slots = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of one layer and row: where its new keys and values go, [1, KV head, count, D], and those of all its tokens then."""


class KVCache:
    """`keys` and `values`, [layer, place, KV head, max_seq_len, head size] each; `lengths`: tokens in each place.

    `rows` are the places that the next forward pass continues: row b of its batch is place rows[b]. By default all.
    A place that is named several times is continued by each of these rows after the one before.
    An attention layer calls `attend`. One that computes attention in another way calls `append` and takes `mask`.
    """

    def __init__(
        self,
        config: ModelConfig,
        places: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = config.kv_cache_shape(places)
        self.capacity = shape[3]
        self.keys, self.values = _zeros(shape, device, dtype), _zeros(shape, device, dtype)
        self._by_row = torch.device(device).type == "cpu"
        self.lengths = [0] * places
        self.rows = list(range(places))
        self._last: _Pass | None = None

    @property
    def room(self) -> int:
        """The number of tokens that still fit into each of `rows`."""
        return self.capacity - max(self.lengths[row] for row in self.rows)

    def positions(self, count: int) -> Tensor:
        """Positions of the next `count` tokens of each row, [B, count] int64."""
        return self._pass(count).positions

    def mask(self, count: int) -> Tensor:
        """The slots that the next `count` tokens may attend to: [B, 1, count, slots] bool, True = may."""
        return self._pass(count).mask

    def advance(self, count: int) -> None:
        """Count the tokens that every layer has appended. The end of a forward pass."""
        for row in self.rows:
            self.lengths[row] += count
        self._last = None

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, KV head, count, D] of one layer; return those of all slots that `mask` covers."""
        rows, slots = self._pass(key.size(2)).rows, self.positions(key.size(2))
        self.keys[layer].transpose(1, 2)[rows[:, None], slots] = key.transpose(1, 2)
        self.values[layer].transpose(1, 2)[rows[:, None], slots] = value.transpose(1, 2)
        used = self.mask(key.size(2)).size(-1)
        return self.keys[layer, rows, :, :used], self.values[layer, rows, :, :used]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append keys and values, and attend causally to them and all earlier ones.

        In: [B, head, count, D], and [B, KV head, count, D] twice. Out: [B, head, count, D].

        On a CPU each row is a call of its own with just its own slots. No row then waits for a longer one, and its
        result is the same to the bit whatever the others are. On a GPU, where calls are dear, all rows are one call.
        """
        if self._by_row:
            return self._attend_by_row(layer, query, key, value)
        return self._attend_together(layer, query, key, value)

    def _attend_together(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        groups = query.size(1) // key.size(1)
        keys, values = self.append(layer, key, value)
        if groups > 1:  # no fused kernel takes both a mask and groups
            keys, values = (part.repeat_interleave(groups, 1) for part in (keys, values))
        return F.scaled_dot_product_attention(query, keys, values, self.mask(query.size(2)))

    def _attend_by_row(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        slots = (self._last or self._pass(key.size(2))).slots[layer]
        if torch.is_grad_enabled():  # the cache is not part of any graph
            key, value = key.detach(), value.detach()
        if len(slots) == 1:
            return _attend(query, key, value, *slots[0])
        rows = zip(query.split(1), key.split(1), value.split(1), slots, strict=True)
        return torch.cat([_attend(asked, new_key, new_value, *own) for asked, new_key, new_value, own in rows])

    def _pass(self, count: int) -> "_Pass":
        """The tensors of the forward pass, the same for all layers: on a GPU each is a copy from the host."""
        lengths = [self.lengths[row] for row in self.rows]
        if len(set(self.rows)) < len(lengths):
            earlier = Counter[int]()
            for i, row in enumerate(self.rows):
                lengths[i] += count * earlier[row]
                earlier[row] += 1
        state = count, list(self.rows), lengths
        if self._last is None or self._last.state != state:
            self._last = _Pass(state, self.keys, self.values)
        return self._last


def _zeros(shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """torch.zeros; on a CPU each page only takes memory once something is written to it."""
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    return torch.frombuffer(mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


class _Pass:
    """A forward pass of `count` tokens in some rows, whose places have so many tokens before."""

    def __init__(self, state: tuple[int, list[int], list[int]], keys: Tensor, values: Tensor) -> None:
        self.state = state
        self.whole = keys, values
        count, _, lengths = state
        starts = torch.tensor(lengths, device=keys.device).unsqueeze(1)
        self.positions = starts if count == 1 else starts + torch.arange(count, device=keys.device)

    @cached_property
    def slots(self) -> list[list[Slots]]:
        """What each row writes and reads, by layer: views, made of all layers at once, because each takes its time."""
        count, rows, lengths = self.state
        by_row = []
        for row, length in zip(rows, lengths, strict=True):
            own = [whole.narrow(1, row, 1) for whole in self.whole]
            new = [part.narrow(3, length, count).unbind(0) for part in own]
            known = [part.narrow(3, 0, length + count).unbind(0) for part in own]
            by_row.append(zip(*new, *known, strict=True))
        return [list(layer) for layer in zip(*by_row, strict=True)]

    @cached_property
    def rows(self) -> Tensor:
        return torch.tensor(self.state[1], device=self.positions.device)

    @cached_property
    def mask(self) -> Tensor:
        slots = torch.arange(self.state[0] + max(self.state[2]), device=self.positions.device)
        return (slots <= self.positions[:, :, None])[:, None]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, new_keys: Tensor, new_values: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """`KVCache.attend` for one row, with its `Slots`."""
    new_keys.copy_(key)
    new_values.copy_(value)
    _, heads, count, width = query.shape
    if count == 1 and heads == keys.size(1):
        return F.scaled_dot_product_attention(query, keys, values)
    if count == 1:  # it sees every slot, so heads that share a KV head can be rows of one product
        grouped = query.view(1, keys.size(1), -1, width)
        return F.scaled_dot_product_attention(grouped, keys, values).view(1, heads, 1, width)
    before = keys.size(2) - count
    mask = torch.ones(count, keys.size(2), dtype=torch.bool).tril(before) if before else None
    return F.scaled_dot_product_attention(query, keys, values, mask, is_causal=not before, enable_gqa=True)
