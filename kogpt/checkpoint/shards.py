"""What a checkpoint's tensors are cut into: runs of elements of a parameter, or of one slot of its optimizer state.

A slot is what the optimizer keeps for each element of a parameter, by the optimizer's own name for it (AdamW:
exp_avg and exp_avg_sq). A checkpoint takes whatever slots there are, and says nothing of the optimizer.
"""

from dataclasses import dataclass

from kogpt.checkpoint.layout import MODEL, OPTIMIZER


@dataclass(frozen=True)
class Shard:
    """`numel` elements from `start` of the flattened parameter `name`, or of its `slot` (None: the weight itself)."""

    name: str
    slot: str | None
    shape: tuple[int, ...]
    start: int
    numel: int

    @property
    def kind(self) -> str:
        """The file it belongs into."""
        return MODEL if self.slot is None else OPTIMIZER

    @property
    def key(self) -> str:
        """Its name in the file."""
        return tensor_key(self.name, self.slot)

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole tensor."""
        return self.numel == numel_of(self.shape)


def tensor_key(name: str, slot: str | None) -> str:
    """`NAME` or `SLOT.NAME`: names of slots have no dots."""
    return name if slot is None else f"{slot}.{name}"


def numel_of(shape: tuple[int, ...]) -> int:
    """The number of elements."""
    count = 1
    for size in shape:
        count *= size
    return count


def whole(name: str, slot: str | None, shape: tuple[int, ...]) -> Shard:
    """The whole tensor as one shard."""
    return Shard(name, slot, tuple(shape), 0, numel_of(tuple(shape)))
