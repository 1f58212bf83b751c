"""Training batches whose rows have very different numbers of scored targets, as chats and packed articles do."""

from collections.abc import Iterator

from kogpt.data.batch import Batch
from kogpt.data.loader import StepBatches, TrainBatches
from kogpt.data.sampler import windows_for_step
from kogpt.model.loss import IGNORED


def scored(window: int, max_seq_len: int) -> int:
    """The number of scored targets at the start of a window."""
    return (1, max_seq_len, 0, 5)[window % 4]


class MaskedBatches(TrainBatches):
    """The windows of `TrainBatches`. A micro-batch may have no scored target at all."""

    def step(self, consumed_samples: int) -> StepBatches:
        whole = self._order(consumed_samples, self.share.global_batch, 1, 0, 1)
        targets = sum(scored(int(window), self.max_seq_len) for window in whole.ravel())
        return StepBatches(targets, self._masked(consumed_samples))

    def _masked(self, consumed_samples: int) -> Iterator[Batch]:
        share = self.share
        mine = self._order(consumed_samples, share.micro_batch, share.grad_accum, share.rank, share.world_size)
        for windows, batch in zip(mine, super().step(consumed_samples).micro_batches, strict=True):
            targets = batch.targets.clone()  # the loader's are a view of the same memory as its tokens
            for row, window in zip(targets, windows, strict=True):
                row[scored(int(window), self.max_seq_len) :] = IGNORED
            yield batch._replace(targets=targets)

    def _order(self, consumed_samples: int, micro_batch: int, grad_accum: int, rank: int, world_size: int):
        return windows_for_step(
            self.sources[0].windows,
            seed=self.mixture.seed,
            consumed_samples=consumed_samples,
            micro_batch=micro_batch,
            grad_accum=grad_accum,
            rank=rank,
            world_size=world_size,
        )
