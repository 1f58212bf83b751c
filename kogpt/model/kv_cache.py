"""The KV cache: keys and values of earlier tokens, so that a new token costs a forward pass of one token.

Memory: two tensors of `ModelConfig.kv_cache_shape`, allocated in full at the start.
"""

import torch
from torch import Tensor

from kogpt.model.config import ModelConfig


class KVCache:
    """`keys` and `values`, [layer, B, KV head, max_seq_len, head size] each; the first `length` slots are in use.

    Rows of unequal length are padded on the left; `pads`, [B] int64, holds the number of padded slots. A padded slot
    is attended to only by itself. Slot s of row b has position s - pads[b].
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        *,
        pads: Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = config.kv_cache_shape(batch)
        self.capacity = shape[3]
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.pads = pads
        self.length = 0

    def positions(self, count: int) -> Tensor:
        """Positions of the next `count` slots: [count], or [B, count] if rows are padded."""
        slots = torch.arange(self.length, self.length + count, device=self.keys.device)
        return slots if self.pads is None else (slots - self.pads[:, None]).clamp(min=0)

    def mask(self, count: int) -> Tensor | None:
        """The slots that the next `count` tokens may attend to (True = may); None if no mask is needed."""
        if self.pads is None and (self.length == 0 or count == 1):
            return None
        slots = torch.arange(self.length + count, device=self.keys.device)
        queries = slots[self.length :, None]
        allowed = slots <= queries
        if self.pads is not None:
            allowed = allowed & (slots >= self.pads[:, None, None]) | (slots == queries)
            allowed = allowed[:, None]
        return allowed

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, KV head, count, D] of one layer, and return all keys and values of that layer."""
        end = self.length + key.size(2)
        self.keys[layer, :, :, self.length : end] = key
        self.values[layer, :, :, self.length : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def full_rows(self) -> list[int]:
        """The rows without padding. In a full cache these rows have no room left."""
        if self.pads is None:
            return list(range(self.keys.size(1)))
        return (self.pads == 0).nonzero()[:, 0].tolist()

    def make_room(self, fresh: "KVCache") -> None:
        """Replace the full rows by those of `fresh`, which has no padding, and shift the other rows over theirs."""
        full, end = self.full_rows(), self.length
        counts = torch.full((self.keys.size(1),), end, device=self.keys.device)
        if self.pads is not None:
            counts -= self.pads
        counts[full] = fresh.length
        self.length = int(counts.max())
        for mine, new in ((self.keys, fresh.keys), (self.values, fresh.values)):
            mine[:, :, :, : self.length] = mine[:, :, :, end - self.length : end].clone()
            mine[:, full, :, self.length - fresh.length : self.length] = new[:, :, :, : fresh.length]
        self.pads = self.length - counts if (counts < self.length).any() else None
