"""Restore a checkpoint on any number of ranks. In: a step folder. Out: each rank's part of every weight and slot.

If all ranks see the folder, each reads its own part. Otherwise rank 0 reads whole tensors, one at a time, and sends
them to the others.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kogpt.checkpoint.layout import MANIFEST
from kogpt.checkpoint.reader import CheckpointReader
from kogpt.checkpoint.shards import numel_of
from kogpt.common.errors import UserError
from kogpt.train.distributed import Ranks, broadcast, broadcast_object, reduce_max
from kogpt.train.full_state import FullState


class Restorer:
    """Reads one checkpoint. All ranks must make the same calls."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks
        self.shared = not reduce_max(ranks, not sees(folder))[0]
        self.reader = CheckpointReader(folder) if self.shared or ranks.first else None
        index = self.reader and (self.reader.state, self.reader.shapes, self.reader.slots)
        self.state: dict[str, Any]
        self.shapes: dict[str, tuple[int, ...]]
        self.slots: dict[str, tuple[str, ...]]
        self.state, self.shapes, self.slots = index if self.shared and index else broadcast_object(index)

    def read(self, name: str, slot: str | None, start: int, numel: int) -> Tensor:
        """`numel` elements, beginning at `start`, of a flattened weight (slot None) or slot."""
        if self.shared and self.reader is not None:
            return self.reader.read(name, slot, start, numel)
        everything = numel_of(self.shapes[name])
        value = torch.empty(everything, dtype=torch.float32, device=self.ranks.device)
        if self.reader is not None:
            value.copy_(self.reader.read(name, slot, 0, everything))
        return broadcast(value)[start : start + numel]

    def weight(self, name: str) -> Tensor:
        """A whole weight in its shape."""
        shape = self.shapes[name]
        return self.read(name, None, 0, numel_of(shape)).view(shape)

    def restore(self, state: FullState) -> None:
        """Restore this rank's part of every weight and slot exactly. A checkpoint without slots restores only weights.

        Raises `UserError` on all ranks if the checkpoint has slots of another optimizer.
        """
        missing = any(set(state.slots(name)) - set(self.slots.get(name, ())) for name in state.parameters)
        if self.slots and reduce_max(self.ranks, missing)[0]:
            raise UserError(
                f"the checkpoint {self.folder} was made with another optimizer (its state is "
                f"{', '.join(sorted({slot for slots in self.slots.values() for slot in slots}))}); "
                "use that optimizer again, or choose another --out."
            )
        for name in state.parameters:
            start, numel = state.extent(name)
            mine = state.slots(name)
            for slot in (None, *self.slots.get(name, ())):
                part = self.read(name, slot, start, numel)
                if numel and (slot is None or slot in mine):
                    state.set(name, slot, part.to(self.ranks.device))


def sees(folder: Path) -> bool:
    """Whether this rank sees the checkpoint's folder."""
    return (folder / MANIFEST).exists()
