"""Read batches: sources + mixture. In: corpora with their shares, and a position. Out: this rank's part of a step.

Training reads the windows of kogpt.data.sources in the order of kogpt.data.mixture, a pure function of the position.
Reading takes numpy slices of mapped files, so there are no worker processes, and resuming replays nothing.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from kogpt.data.batch import Batch
from kogpt.data.corpus import TokenCorpus
from kogpt.data.mixture import Mixture
from kogpt.data.sampler import samples_of_rank
from kogpt.data.sources import Window, open_source


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
    """The micro-batches of each step. Raises `UserError` for a corpus without a single window."""

    def __init__(
        self,
        corpora: Sequence[tuple[TokenCorpus, float]],
        *,
        max_seq_len: int,
        seed: int,
        share: Share,
        max_repeat: int | None = None,
        by_article: bool = False,
    ) -> None:
        """`corpora` are pairs (corpus, share of the windows); the shares may have any sum.

        With `by_article`, tokens of articles attend only within their own.
        """
        self.max_seq_len, self.share = max_seq_len, share
        self.sources = [open_source(corpus, max_seq_len, by_article) for corpus, _ in corpora]
        self.has_documents = any(source.has_documents for source in self.sources)
        sizes = [source.windows for source in self.sources]
        self.mixture = Mixture(sizes, [weight for _, weight in corpora], seed=seed, max_repeat=max_repeat)

    def of(self, share: Share) -> "TrainBatches":
        """The same windows for another part of each batch."""
        other = copy(self)
        other.share = share
        return other

    def step(self, consumed_samples: int) -> StepBatches:
        """This rank's part of the step that begins after `consumed_samples` windows.

        Each rank knows the number of targets of every window, so that of all ranks takes no communication.
        """
        sources, windows = self.mixture.places(consumed_samples + np.arange(self.share.global_batch, dtype=np.int64))
        targets = sum(source.targets(windows[sources == i]) for i, source in enumerate(self.sources))
        return StepBatches(targets, self._micro_batches(consumed_samples))

    def _micro_batches(self, consumed_samples: int) -> Iterator[Batch]:
        share = self.share
        samples = samples_of_rank(
            consumed_samples,
            micro_batch=share.micro_batch,
            grad_accum=share.grad_accum,
            rank=share.rank,
            world_size=share.world_size,
        )
        for sources, windows in zip(*self.mixture.places(samples), strict=True):
            yield self._batch([self.sources[i].window(int(w)) for i, w in zip(sources, windows, strict=True)])

    def _batch(self, rows: list[Window]) -> Batch:
        """Rows as a micro-batch on the device. What only some sources state is filled in for the others."""
        if self.has_documents:
            rows = [row if row.documents is not None else _one_document(row) for row in rows]
        if any(row.positions is not None for row in rows):
            rows = [row if row.positions is not None else _from_zero(row) for row in rows]
        ids, targets, positions, documents = map(_stacked, zip(*rows, strict=True))
        assert ids is not None
        assert targets is not None
        return Batch(
            self._to_device(ids),
            self._to_device(targets),
            None if positions is None else self._to_device(positions),
            None if documents is None else self._to_device(starts_of_documents(documents)),
        )

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        block = torch.from_numpy(array)
        if self.share.device.type == "cuda":
            return block.pin_memory().to(self.share.device, non_blocking=True)
        return block.to(self.share.device)


def _stacked(rows: tuple[np.ndarray | None, ...]) -> np.ndarray | None:
    """Rows [T] as one array [B, T]; None if they are none."""
    given = [row for row in rows if row is not None]
    return np.stack(given) if given else None


def starts_of_documents(documents: np.ndarray) -> np.ndarray:
    """`Batch.documents` of the number of each token's document, [B, T].

    They are counted here, where the numbers are: a GPU would make its host wait for their count.
    """
    first = np.ones(documents.shape, dtype=bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return np.append(np.flatnonzero(first), documents.size).astype(np.int32)


def _one_document(row: Window) -> Window:
    return row._replace(documents=np.zeros_like(row.ids))


def _from_zero(row: Window) -> Window:
    return row._replace(positions=np.arange(len(row.ids)))
