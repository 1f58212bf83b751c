"""Shards: contiguous ranges of a flattened parameter, or of one slot of its optimizer state.

A slot is a tensor that the optimizer keeps for a parameter, in the parameter's shape and under the optimizer's own
name (AdamW has exp_avg and exp_avg_sq). A checkpoint stores every slot and needs no knowledge of the optimizer.
"""

from dataclasses import dataclass

from kogpt.checkpoint.layout import MODEL, OPTIMIZER


@dataclass(frozen=True)
class Shard:
    """`numel` elements, from `start` on, of the flattened parameter `name`, or of its `slot` (None: the weight)."""

    name: str
    slot: str | None
    shape: tuple[int, ...]
    start: int
    numel: int

    @property
    def kind(self) -> str:
        """The kind of file that it is stored in."""
        return MODEL if self.slot is None else OPTIMIZER

    @property
    def key(self) -> str:
        """Its key in the file."""
        return tensor_key(self.name, self.slot)

    @property
    def is_whole(self) -> bool:
        """Whether it covers the whole tensor."""
        return self.numel == numel_of(self.shape)


def tensor_key(name: str, slot: str | None) -> str:
    """`NAME` or `SLOT.NAME`. Slot names contain no dots."""
    return name if slot is None else f"{slot}.{name}"


def numel_of(shape: tuple[int, ...]) -> int:
    """The number of elements of a tensor of this shape."""
    count = 1
    for size in shape:
        count *= size
    return count


def whole(name: str, slot: str | None, shape: tuple[int, ...]) -> Shard:
    """The whole tensor as one shard."""
    return Shard(name, slot, tuple(shape), 0, numel_of(tuple(shape)))
