"""Cross-entropy of a language model's head without the logits of the whole batch.

In: hidden states [N, C], the head's weight [V, C], targets [N] int64 (`IGNORED` = not scored).
Out: the sum of the negative log-likelihoods (nll, in nats) with gradients, or the nll of each target without.

Rows go through the head a chunk at a time, and each chunk's gradient is taken in the forward pass, while its logits
exist. Forward and backward together are the same three matrix products as without chunks; memory is one chunk
[chunk, V] instead of [N, V], plus the gradient of the head [V, C], which is held until backward.

The sum, not the mean: only the caller knows the number of targets of the whole global batch.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""A target that is not scored (the same number as torch's cross_entropy uses)."""

CHUNK_LOGITS = {"cpu": 1 << 22, "gpu": 1 << 27}
"""Logits that exist at once, by kind of device: 16 MiB in float32 on a CPU, since glibc takes larger arrays from the
system and gives them back at every chunk (bench/loss.py); 512 MiB on a GPU, where each chunk also costs a pass over
the gradient of the head."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk: int | None = None, pad_to: int | None = None
) -> Tensor:
    """The summed nll of `targets`, a scalar in at least float32; 0 if none is scored.

    `chunk` is the number of rows whose logits exist at once. `pad_to` rounds V up with rows of probability 0: tensor
    cores want multiples of 64, which is the default on a GPU.
    """
    vocab_size = weight.size(0)
    weight = _padded(weight, pad_to)
    return _LinearCrossEntropy.apply(hidden, weight, targets, chunk or _chunk_rows(weight), vocab_size)


@torch.no_grad()
def linear_nll(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk: int | None = None, pad_to: int | None = None
) -> Tensor:
    """The nll of each target, [N] in at least float32, 0 where it is `IGNORED`; no gradients. Arguments as above."""
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
    """Sum of the cross-entropies of hidden @ weight.T, its gradients taken chunk by chunk going forward.

    They are the gradients of the sum, multiplied by the incoming gradient in backward: in half precision
    softmax - onehot is in range, but divided by the number of targets it would underflow.
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
            else:  # half precision: each chunk is a product of its own, summed in float32
                grad_weight.add_(delta.T @ rows)
            del log_probs, delta  # before the next chunk's logits come
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (grad_hidden * grads[0]).to(grad_hidden.dtype), grad_weight * grads[0], None, None, None


def _log_probs(rows: Tensor, weight: Tensor, vocab_size: int) -> Tensor:
    """Log-probabilities [R, weight rows] in at least float32; rows of weight that pad it get -inf."""
    logits = (rows @ weight.T).to(torch.promote_types(rows.dtype, torch.float32))
    if weight.size(0) > vocab_size:
        logits[:, vocab_size:] = -math.inf
    return F.log_softmax(logits, dim=-1)


def _chunk_rows(weight: Tensor) -> int:
    """How many rows may have their logits at the same time."""
    return max(128, CHUNK_LOGITS["cpu" if weight.device.type == "cpu" else "gpu"] // weight.size(0))
