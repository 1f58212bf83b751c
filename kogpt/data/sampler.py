"""The sampler: which windows belong to which step and rank, as a pure function of (seed, position).

Samples are numbered 0, 1, 2, ... over the whole training. Sample s is window `epoch_order(n, seed, s // n)[s % n]`. A
step takes the next `global_batch` samples, which may span two epochs. Rank r takes every world_size-th of them, in
micro-batches. The position is one integer, `consumed_samples`. The global batches are therefore the same for any number
of ranks, and resuming needs no replay, no shared memory, and no threads.

Cost: one permutation of n per epoch (the last two are cached), O(global_batch) per step.
"""

from functools import lru_cache

import numpy as np


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of `n` windows for an epoch: int64 [n]."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(n)


@lru_cache(maxsize=2)
def _kept_order(n: int, seed: int, epoch: int) -> np.ndarray:
    order = epoch_order(n, seed, epoch)
    order.flags.writeable = False
    return order


def windows_for_step(
    n: int, *, seed: int, consumed_samples: int, micro_batch: int, grad_accum: int, rank: int, world_size: int
) -> np.ndarray:
    """The windows (of `n`) that `rank` reads in the step after `consumed_samples`: int64 [grad_accum, micro_batch].

    The global batch is micro_batch * grad_accum * world_size samples.
    """
    if n < 1:
        raise ValueError("there are no windows to sample from")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}")
    samples = consumed_samples + np.arange(rank, micro_batch * grad_accum * world_size, world_size, dtype=np.int64)
    epochs, places = np.divmod(samples, n)
    windows = np.empty_like(samples)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        windows[here] = _kept_order(n, seed, int(epoch))[places[here]]
    return windows.reshape(grad_accum, micro_batch)
