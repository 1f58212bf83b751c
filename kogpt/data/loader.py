"""Read batches: corpus + windows + sampler. In: a `TokenCorpus` and a position. Out: this rank's part of a step.

Training reads full windows of the packed train stream in the order of kogpt.data.sampler, a pure function of the
position. Reading takes numpy slices of mapped files, so there are no worker processes, and resuming replays nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from kogpt.common.errors import UserError
from kogpt.data.batch import Batch
from kogpt.data.corpus import TokenCorpus
from kogpt.data.sampler import windows_for_step
from kogpt.data.windows import train_window, train_windows


@dataclass(frozen=True)
class Share:
    """One rank's part in each batch."""

    micro_batch: int
    grad_accum: int
    rank: int
    world_size: int
    device: torch.device

    @property
    def global_batch(self) -> int:
        """Sequences per optimizer step, over all ranks."""
        return self.micro_batch * self.grad_accum * self.world_size


class StepBatches(NamedTuple):
    """The part of one rank in one optimizer step."""

    targets: int
    """Number of targets over all micro-batches of all ranks, by which the loss is divided."""
    micro_batches: Iterator[Batch]


class TrainBatches:
    """The micro-batches of each step. `windows` is the number per epoch."""

    def __init__(self, corpus: TokenCorpus, *, max_seq_len: int, seed: int, share: Share) -> None:
        self.stream = corpus.stream("train")
        self.max_seq_len, self.seed, self.share = max_seq_len, seed, share
        self.windows = train_windows(len(self.stream), max_seq_len)
        if not self.windows:
            raise UserError(
                f"the train split of {corpus.folder} has {len(self.stream):,} tokens, fewer than one window of "
                f"--max-seq-len {max_seq_len} + 1; lower --max-seq-len, or use a larger corpus."
            )

    def step(self, consumed_samples: int) -> StepBatches:
        """This rank's part of the step that begins after `consumed_samples` windows.

        Every window is full, so each rank knows the number of targets of all ranks without communication.
        """
        return StepBatches(self.share.global_batch * self.max_seq_len, self._micro_batches(consumed_samples))

    def _micro_batches(self, consumed_samples: int) -> Iterator[Batch]:
        share = self.share
        order = windows_for_step(
            self.windows,
            seed=self.seed,
            consumed_samples=consumed_samples,
            micro_batch=share.micro_batch,
            grad_accum=share.grad_accum,
            rank=share.rank,
            world_size=share.world_size,
        )
        for windows in order:
            rows = [self._window(int(window)) for window in windows]
            yield _to_device(np.stack(rows), share.device)

    def _window(self, window: int) -> np.ndarray:
        start = train_window(window, len(self.stream), self.max_seq_len)
        return self.stream.read(start, self.max_seq_len + 1)


def _to_device(rows: np.ndarray, device: torch.device) -> Batch:
    """Rows [B, T + 1] as tokens and targets."""
    block = torch.from_numpy(rows)
    if device.type == "cuda":
        block = block.pin_memory()
    block = block.to(device, non_blocking=True)
    return Batch(block[:, :-1], block[:, 1:])
