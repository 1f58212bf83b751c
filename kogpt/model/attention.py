"""Causal attention, within whole rows or within the documents of a row. In: queries, keys, values, and a mask.

Where torch has its attention for documents of different lengths (FlashAttention 2, Dao 2023: NVIDIA GPUs from Ampere
on, half precision, no dropout), the documents' borders take the place of a mask, and pairs of tokens of different
documents cost nothing. Elsewhere a mask hides these pairs.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

IN_EIGHTS = {"cuda"}
"""Devices whose memory-efficient kernel takes only sizes of heads that are multiples of 8; others are padded by 0."""


def document_mask(documents: Tensor, embedded: Tensor, head_dim: int, dropout: float = 0.0) -> Tensor:
    """The mask for `attend`, once for all layers: a token attends only to earlier ones, within its own document.

    In: where each document begins, [N + 1] int32 (`kogpt.data.batch.Batch`), and the embedded tokens [B, T, C], for
    shape and precision: to ask a weight, ZeRO 3 would gather it, and hold it through the step. Out: `documents` itself,
    where `attend` takes it; else [B, 1, T, T] in the dtype of the queries, to be added to their scores: 0 = may attend,
    -inf = may not. Given bools, each layer would make such numbers for itself and keep them for the backward pass.
    """
    device = embedded.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else embedded.dtype
    if not dropout and takes_borders(device, dtype, head_dim):
        torch._dynamo.maybe_mark_dynamic(documents, 0)  # or a step with another number of documents compiles again
        return documents
    return _all_pairs(documents, embedded.size(0), embedded.size(1), dtype)


def _all_pairs(documents: Tensor, rows: int, length: int, dtype: torch.dtype) -> Tensor:
    """The mask as [B, 1, T, T]."""
    device = documents.device
    first = torch.zeros(rows * length + 1, dtype=torch.int64, device=device)
    first[documents.long()] = 1
    number = first[:-1].cumsum(0).view(rows, length)
    later = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    hidden = (number[:, :, None] != number[:, None, :]).logical_or_(later)
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -math.inf)[:, None]


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0, *, causal: bool = True
) -> Tensor:
    """Attention of [B, head, T, D], all with as many heads, with the mask of `document_mask`; without one over the row,
    `causal` or to both sides."""
    if mask is not None and mask.dim() == 1:
        rows, length = query.size(0), query.size(2)
        query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
        out = varlen_attn(query, key, value, mask, mask, length, length, window_size=(-1, 0))
        assert isinstance(out, Tensor)
        return out.unflatten(0, (rows, length)).transpose(1, 2)
    causal, size = causal and mask is None, query.size(-1)
    if query.device.type in IN_EIGHTS and size % 8:
        query, key, value = (F.pad(part, (0, -size % 8)) for part in (query, key, value))
        padded = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal, scale=size**-0.5)
        return padded[..., :size]
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal)


@functools.cache
def takes_borders(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether `attend` can work without a [T, T] mask here: tried on two documents, and compared with such a mask.

    Draws no random numbers, because a run that is resumed must draw those of the first one.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        numbers = torch.arange(3 * 32 * head_dim, device=device).view(3, 1, 1, 32, head_dim).float().sin().to(dtype)
        borders = torch.tensor([0, 20, 32], dtype=torch.int32, device=device)
        found = []
        try:
            for mask in (borders, _all_pairs(borders, 1, 32, dtype)):
                query, key, value = (part.clone().requires_grad_() for part in numbers)
                out = attend(query, key, value, mask)
                gradients = torch.autograd.grad(out, (query, key, value), numbers[0])
                found.append(torch.stack([out.detach(), *gradients]))
        except (RuntimeError, TypeError, ValueError):  # no such kernel for this device, dtype, or size of heads
            return False
    return bool((found[0] - found[1]).abs().max() < 0.05 * found[1].abs().max())
