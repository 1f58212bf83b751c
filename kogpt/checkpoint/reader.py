"""Read ranges of a checkpoint's tensors, whatever number of ranks wrote it. In: a step folder. Out: fp32 tensors.

The files are memory-mapped. Opening reads only the headers, and reading a range reads only its bytes.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from kogpt.checkpoint.layout import CONFIG, MANIFEST, MODEL, OPTIMIZER, STATE, kind_of
from kogpt.checkpoint.shards import Shard, numel_of, tensor_key, whole


class CheckpointReader:
    """An open checkpoint. `kinds` limits it to the weights or to the optimizer's state."""

    def __init__(self, folder: Path, kinds: tuple[str, ...] = (MODEL, OPTIMIZER)) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
        self._pieces: dict[str, list[tuple[Any, Shard]]] = defaultdict(list)
        for file in sorted(json.loads((folder / MANIFEST).read_bytes())["files"]):
            if kind_of(file) in kinds:
                self._open(folder / file)
        self.shapes: dict[str, tuple[int, ...]] = {}
        """The shape of each parameter, by its name."""
        self.slots: dict[str, tuple[str, ...]] = defaultdict(tuple)
        """The optimizer's slots of each parameter."""
        for pieces in self._pieces.values():
            shard = pieces[0][1]
            if shard.slot is None:
                self.shapes[shard.name] = shard.shape
            else:
                self.slots[shard.name] += (shard.slot,)

    @property
    def state(self) -> dict[str, Any]:
        """state.json."""
        return json.loads((self.folder / STATE).read_bytes())

    def _open(self, path: Path) -> None:
        file = safe_open(path, framework="pt")
        cut = json.loads((file.metadata() or {}).get("shards", "{}"))
        for key in file.keys():  # noqa: SIM118 - not a mapping
            slot, name = (None, key) if kind_of(path.name) == MODEL else key.split(".", 1)
            shape = tuple(file.get_slice(key).get_shape())
            start, full = cut.get(key, (0, shape))
            shard = Shard(name, slot, tuple(full), start, numel_of(shape))
            self._pieces[key].append((file, shard))

    def read(self, name: str, slot: str | None, start: int, numel: int) -> Tensor:
        """`numel` elements, beginning at `start`, of a flattened weight (slot None) or optimizer slot.

        Raises `KeyError` if the checkpoint does not hold all of them.
        """
        out = torch.empty(numel, dtype=torch.float32)
        key, filled = tensor_key(name, slot), 0
        for file, shard in self._pieces[key]:
            first, last = max(start, shard.start), min(start + numel, shard.start + shard.numel)
            if first < last:
                part = _flat_range(file.get_slice(key), first - shard.start, last - shard.start)
                out[first - start : last - start] = part
                filled += last - first
        if filled != numel:
            raise KeyError(f"{self.folder} holds {filled} of {numel} elements of {key}")
        return out

    def weight(self, name: str) -> Tensor:
        """A whole fp32 weight in its shape."""
        everything = whole(name, None, self.shapes[name])
        return self.read(name, None, 0, everything.numel).view(everything.shape)


def _flat_range(stored: Any, first: int, last: int) -> Tensor:
    """Elements `first` to `last` of a stored tensor seen as flat. Only the rows that contain them are read."""
    shape = stored.get_shape()
    row = numel_of(tuple(shape[1:]))
    top = first // row
    return stored[top : -(-last // row)].flatten()[first - top * row : last - top * row]
