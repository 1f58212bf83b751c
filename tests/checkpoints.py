"""Checkpoints of a very small model, written by any number of ranks."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch

from kogpt.checkpoint.layout import step_folder
from kogpt.checkpoint.shards import Shard
from kogpt.checkpoint.writer import Files, publish, write_shards
from kogpt.model.gpt2 import GPT, GPTConfig

CONFIGURATION = GPTConfig(vocab_size=11, max_seq_len=8, n_layer=1, n_head=1, n_embd=6)


def write(run: Path, step: int, seed: int = 0, cuts: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    """A checkpoint with one slot, by as many ranks as `cuts` (in the concatenated parameters) give; its weights."""
    torch.manual_seed(seed)
    weights = GPT(CONFIGURATION).state_dict()
    temporary = run / "checkpoints" / f".step-{step}.abc"
    bounds = [0, *sorted(cuts), sum(value.numel() for value in weights.values())]
    files: Files = {}
    for rank, (low, high) in enumerate(pairwise(bounds)):
        shards, offset = [], 0
        for name, value in weights.items():
            start, end = max(low - offset, 0), min(high - offset, value.numel())
            if start < end:
                shards += [Shard(name, slot, tuple(value.shape), start, end - start) for slot in (None, "momentum")]
            offset += value.numel()

        def get(shard: Shard) -> torch.Tensor:
            flat = weights[shard.name].flatten()[shard.start : shard.start + shard.numel]
            return flat if shard.slot is None else -flat

        files |= write_shards(temporary, rank, len(bounds) - 1, shards, get)
    publish(temporary, step_folder(run, step), files, {"model": asdict(CONFIGURATION), "step": step}, {"step": step})
    return weights
