"""Cross-entropy of a language model, computed in chunks, so that the logits of the whole batch never exist at once.

In: hidden states [N, C], the head's weight [V, C], targets [N] int64 (`IGNORED` = not scored).
Out: the summed negative log-likelihood (nll, in nats) with gradients, or the nll of each target without gradients.

The head is applied to one chunk of rows at a time. The gradient of each chunk is computed in the forward pass, while
its logits exist. Forward and backward take the same three matrix products as without chunks. Memory is one chunk
[chunk, V] instead of [N, V], plus the gradient of the head [V, C] until the backward pass.

The loss is a sum, because only the caller knows the number of targets in the whole global batch.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""A target that is not scored. torch's cross_entropy uses the same number."""

CHUNK_LOGITS = {"cpu": 1 << 22, "gpu": 1 << 27}
"""The number of logits per chunk, by kind of device. In float32 this is 16 MiB on a CPU, because glibc returns larger
arrays to the system after every chunk (bench/loss.py). It is 512 MiB on a GPU, where every chunk costs a pass over the
gradient of the head."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk: int | None = None, pad_to: int | None = None
) -> Tensor:
    """The summed nll of `targets`, a scalar in at least float32; 0 if none is scored.

    `chunk` is the number of rows per chunk. `pad_to` rounds V up by adding rows of probability 0. The default on a GPU
    is 64, because tensor cores are fastest with multiples of it.
    """
    vocab_size = weight.size(0)
    weight = _padded(weight, pad_to)
    return _LinearCrossEntropy.apply(hidden, weight, targets, chunk or _chunk_rows(weight), vocab_size)


@torch.no_grad()
def linear_nll(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk: int | None = None, pad_to: int | None = None
) -> Tensor:
    """The nll of each target, [N] in at least float32, 0 if it is `IGNORED`. Computes no gradients.

    The arguments are those of `linear_cross_entropy`.
    """
    vocab_size = weight.size(0)
    weight = _padded(weight, pad_to)
    chunk = chunk or _chunk_rows(weight)
    parts = []
    for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        scored = wanted != IGNORED
        log_probs = _log_probs(rows, weight, vocab_size)
        parts.append(-log_probs.gather(1, wanted.masked_fill(~scored, 0)[:, None])[:, 0] * scored)
    return torch.cat(parts)


def _padded(weight: Tensor, pad_to: int | None) -> Tensor:
    padding = -weight.size(0) % (pad_to or (64 if weight.is_cuda else 1))
    return F.pad(weight, (0, 0, 0, padding)) if padding else weight


class _LinearCrossEntropy(torch.autograd.Function):
    """The summed cross-entropy of hidden @ weight.T. The forward pass computes the gradients, chunk by chunk.

    These are the gradients of the sum; the backward pass multiplies them by the incoming gradient. In half precision
    softmax - onehot is in range, but it would underflow if it were divided by the number of targets first.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, vocab_size: int) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_weight: Tensor | None = None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, hidden.size(0), chunk):
            rows = hidden[start : start + chunk]
            wanted = targets[start : start + chunk, None]
            scored = wanted != IGNORED
            wanted = wanted.masked_fill(~scored, 0)
            log_probs = _log_probs(rows, weight, vocab_size)
            total = total - (log_probs.gather(1, wanted) * scored).sum()
            delta = log_probs.exp_()  # softmax - onehot: the gradient with respect to the logits
            delta.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=wide))
            delta = delta.mul_(scored).to(hidden.dtype)
            grad_hidden[start : start + chunk] = delta @ weight
            if grad_weight is None:
                grad_weight = (delta.T @ rows).to(wide)
            elif wide == rows.dtype:
                grad_weight.addmm_(delta.T, rows)
            else:  # half precision: sum the products of the chunks in float32
                grad_weight.add_(delta.T @ rows)
            del log_probs, delta  # so that two chunks never exist at once
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (grad_hidden * grads[0]).to(grad_hidden.dtype), grad_weight * grads[0], None, None, None


def _log_probs(rows: Tensor, weight: Tensor, vocab_size: int) -> Tensor:
    """Log-probabilities [R, rows of weight] in at least float32; -inf for the rows that only pad the weight."""
    logits = (rows @ weight.T).to(torch.promote_types(rows.dtype, torch.float32))
    if weight.size(0) > vocab_size:
        logits[:, vocab_size:] = -math.inf
    return F.log_softmax(logits, dim=-1)


def _chunk_rows(weight: Tensor) -> int:
    """The number of rows per chunk."""
    return max(128, CHUNK_LOGITS["cpu" if weight.device.type == "cpu" else "gpu"] // weight.size(0))
