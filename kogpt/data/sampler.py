"""The sampler: which windows belong to which step and rank, as a pure function of (seed, position).

Samples are numbered 0, 1, 2, ... over the whole training. Sample s is window `epoch_order(n, seed, s // n)[s % n]`. A
step takes the next `global_batch` samples, which may span two epochs. Rank r takes every world_size-th of them, in
micro-batches. The position is one integer, `consumed_samples`. The global batches are therefore the same for any number
of ranks, and resuming needs no replay, no shared memory, and no threads.

Cost: one permutation of n per epoch (the last two of each source are kept), O(global_batch) per step.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np


def epoch_order(n: int, seed: int, epoch: int, source: int = 0) -> np.ndarray:
    """The permutation of the `n` windows of a source (kogpt.data.mixture) for an epoch: int64 [n]."""
    # numpy pads the list with zeros, so source 0 has the order of a training without a mixture.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, source]))).permutation(n)


@lru_cache(maxsize=1024)
def _kept_orders(n: int, seed: int, source: int) -> Callable[[int], np.ndarray]:
    """epoch -> order of a source. It keeps the last two, which a step may span."""

    @lru_cache(maxsize=2)
    def kept(epoch: int) -> np.ndarray:
        order = epoch_order(n, seed, epoch, source)
        order.flags.writeable = False
        return order

    return kept


def samples_of_rank(
    consumed_samples: int, *, micro_batch: int, grad_accum: int, rank: int, world_size: int
) -> np.ndarray:
    """The samples that `rank` takes in the step after `consumed_samples`: int64 [grad_accum, micro_batch].

    The global batch is micro_batch * grad_accum * world_size samples.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}")
    samples = consumed_samples + np.arange(rank, micro_batch * grad_accum * world_size, world_size, dtype=np.int64)
    return samples.reshape(grad_accum, micro_batch)


def windows_of_samples(n: int, samples: np.ndarray, *, seed: int, source: int = 0) -> np.ndarray:
    """The window (of `n`) that each sample of a source is, int64 in the shape of `samples`."""
    if n < 1:
        raise ValueError("there are no windows to sample from")
    epochs, places = np.divmod(samples, n)
    windows = np.empty_like(samples)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        windows[here] = _kept_orders(n, seed, source)(int(epoch))[places[here]]
    return windows


def windows_for_step(
    n: int, *, seed: int, consumed_samples: int, micro_batch: int, grad_accum: int, rank: int, world_size: int
) -> np.ndarray:
    """The windows (of `n`, of a single source) that `rank` reads in a step: int64 [grad_accum, micro_batch]."""
    share = {"micro_batch": micro_batch, "grad_accum": grad_accum, "rank": rank, "world_size": world_size}
    return windows_of_samples(n, samples_of_rank(consumed_samples, **share), seed=seed)
