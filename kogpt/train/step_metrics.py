"""Metrics of a step, reduced over ranks. In: sums of one rank. Out: numbers of the run.

The loss is the mean nll over all targets of the global batch, in nats. Validation scores the val split with
kogpt.eval.likelihood. MFU is the FLOPs of the model (from its configuration) divided by the peak of the GPUs
(kogpt.train.gpu_peaks). It is None if the peak is unknown.
"""

import math
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from kogpt.eval.likelihood import HeldOut, TokenNll, bits_per_char, score_batches
from kogpt.train.distributed import Ranks, reduce_sum
from kogpt.train.stop_signal import INTERRUPTED, OUT_OF_TIME, TERMINATED, Stop

STOPS = (TERMINATED, INTERRUPTED, OUT_OF_TIME)
"""Exit statuses of requests to stop. If ranks received different requests, the first in this order counts."""


@dataclass(frozen=True)
class Agreement:
    """The same on all ranks after a step."""

    loss: float
    grad_norm: float
    stop_code: int
    memory_gib: list[float]


def agree(ranks: Ranks, stop: Stop, loss: Tensor | float, grad_norm: Tensor | float) -> Agreement:
    """Sum the ranks' parts of the loss (nan if any is nan), and share stop requests and peak memory.

    `grad_norm` must be the same on all ranks. Costs one collective and one wait for the device.
    """
    memory = [0.0] * ranks.world_size
    memory[ranks.rank] = memory_gib(ranks.device)
    wishes = [stop.code == code for code in STOPS]
    total, *sums, norm = reduce_sum(ranks, loss, *wishes, *memory, beside=grad_norm)
    told, memory = sums[: len(STOPS)], sums[len(STOPS) :]
    code = next((code for code, wished in zip(STOPS, told, strict=True) if wished), 0)
    return Agreement(total, norm, code, memory)


def memory_gib(device: torch.device) -> float:
    """Peak memory of this rank in GiB, by the GPU's allocator. On a CPU, the current memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return psutil.Process().memory_info().rss / 2**30


@dataclass(frozen=True)
class Validation:
    """Mean nll of a token in nats, and bits per character of the original text."""

    loss: float
    bits_per_char: float


def validate(token_nll: TokenNll, text: HeldOut, batch_rows: int, ranks: Ranks, stop: Stop) -> Validation | int:
    """Score every target of `text`, divided between the ranks. Returns the exit status instead if told to stop.

    The ranks agree on stopping after each batch.
    """
    nll = 0.0
    batches = score_batches(
        token_nll,
        text.rows,
        device=ranks.device,
        batch_rows=batch_rows,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    for _, scored in batches:
        nll += float(scored.sum())
        if code := agree(ranks, stop, 0.0, 0.0).stop_code:
            return code
    [total] = reduce_sum(ranks, nll)
    return Validation(total / text.targets, bits_per_char(total, text.chars))


def is_better(loss: float | None, best: float | None) -> bool:
    """Whether a validation loss is the lowest so far. A nan never is, and every number is lower than nan."""
    return loss is not None and math.isfinite(loss) and not (best is not None and best <= loss)


def mfu(tokens_per_s: float, flops_per_token: int, peak_per_gpu: float | None, gpus: int) -> float | None:
    """Model FLOPs utilization, from 0 to 1; None if the GPU's peak is unknown."""
    return None if peak_per_gpu is None else tokens_per_s * flops_per_token / (peak_per_gpu * gpus)
