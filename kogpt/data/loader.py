"""Corpus + windows + order -> tensors. In: a `TokenCorpus` and a position. Out: (ids, targets) [micro_batch, T] int64.

Training reads full windows of the packed train stream, in the order of kogpt.data.sampler: a pure function of the
position. Evaluation reads every article of the val split by `eval_windows`, longest first, its batches dealt out
to the ranks. Reading is numpy slices of mmapped files: no worker processes, nothing to replay on resume.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.sampler import samples_for_step
from kogpt.data.windows import EvalWindow, eval_windows, train_window, train_windows
from kogpt.model.gpt2 import IGNORED

_LENGTH_STEP = 64
"""Evaluation batches are padded to a multiple of this, so that a compiled model sees few shapes."""


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


class TrainBatches:
    """The micro-batches of each step. `windows` is the number per epoch."""

    def __init__(self, corpus: TokenCorpus, *, max_seq_len: int, seed: int, share: Share) -> None:
        self.stream = corpus.stream("train")
        self.max_seq_len, self.seed, self.share = max_seq_len, seed, share
        self.windows = train_windows(len(self.stream), max_seq_len)
        if not self.windows:
            raise UserError(
                f"the train split of {corpus.folder} has {len(self.stream):,} ids, fewer than one window of "
                f"--max-seq-len {max_seq_len} + 1; lower --max-seq-len, or take a larger corpus."
            )

    def step(self, consumed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's (ids, targets) for the step that begins after `consumed` sequences, one per micro-step."""
        share = self.share
        samples = samples_for_step(
            self.windows,
            seed=self.seed,
            consumed=consumed,
            micro_batch=share.micro_batch,
            grad_accum=share.grad_accum,
            rank=share.rank,
            world_size=share.world_size,
        )
        for windows in samples.windows:
            rows = [self._window(int(window)) for window in windows]
            yield _to_device(np.stack(rows), share.device)

    def _window(self, window: int) -> np.ndarray:
        start = train_window(window, len(self.stream), self.max_seq_len)
        return self.stream.read(start, self.max_seq_len + 1)


def _to_device(rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    block = torch.from_numpy(rows)
    if device.type == "cuda":
        block = block.pin_memory()
    block = block.to(device, non_blocking=True)
    return block[:, :-1], block[:, 1:]


class EvalBatches:
    """The validation split: every target id once, over all ranks. `rounds` batches on each rank, some maybe empty."""

    def __init__(self, corpus: TokenCorpus, *, max_seq_len: int, stride: int, share: Share) -> None:
        if stride > max_seq_len:
            raise UserError(f"--stride {stride} exceeds --max-seq-len {max_seq_len}; give at most that.")
        self.corpus, self.share = corpus, share
        articles = corpus.split("val")
        lengths = corpus.articles["ids"].to_numpy()[articles]
        self.chars = int(corpus.articles["chars"].to_numpy()[articles].sum())
        windows = [
            (int(article), window)
            for article, length in zip(articles, lengths, strict=True)
            for window in eval_windows(int(length), max_seq_len, stride)
        ]
        windows.sort(key=lambda entry: -entry[1].length)
        size = share.micro_batch
        self._batches = [windows[start : start + size] for start in range(0, len(windows), size)]
        self.rounds = -(-len(self._batches) // share.world_size)
        self.targets = sum(window.length - 1 - window.score_from for _, window in windows)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """(ids, targets, number of targets scored), `rounds` times on every rank; unscored targets are -100."""
        share = self.share
        for first in range(0, len(self._batches), share.world_size):
            number = first + share.rank
            yield self._block(self._batches[number] if number < len(self._batches) else self._batches[0][:0])

    def _block(self, windows: list[tuple[int, EvalWindow]]) -> tuple[Tensor, Tensor, int]:
        """A batch [micro_batch, T]; rows and positions that are not there are id 0 with no target."""
        longest = max((window.length - 1 for _, window in windows), default=1)
        longest = -(-longest // _LENGTH_STEP) * _LENGTH_STEP
        longest = min(longest, self._longest())
        ids = np.zeros((self.share.micro_batch, longest), dtype=np.int64)
        targets = np.full_like(ids, IGNORED)
        scored = 0
        for row, (article, window) in enumerate(windows):
            text = self.corpus.article(article)[window.start : window.start + window.length]
            count = window.length - 1
            ids[row, :count] = text[:-1]
            targets[row, window.score_from : count] = text[1 + window.score_from :]
            scored += count - window.score_from
        device = self.share.device
        return torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device), scored

    def _longest(self) -> int:
        return self._batches[0][0][1].length - 1
