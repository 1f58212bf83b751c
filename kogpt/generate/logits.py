"""Logits processing and sampling. Tensors in, tensors out."""

import torch
from torch import Tensor

from kogpt.common.device import in_float64
from kogpt.generate.sampling import Sampling

_NUCLEUS = 1024
"""So many of the most probable tokens nearly always have top_p together. Sorting all takes five times as long."""


def process_logits(logits: Tensor, seen: Tensor | None, sampling: Sampling, made: Tensor | None = None) -> Tensor:
    """Apply the penalties, temperature, top-k, and top-p to logits [B, V]; excluded tokens get -inf.

    `seen` [B, V] bool marks the tokens that occur in the row, including its prompt; `made` [B, V] says how often each
    was generated. Only a penalty that is on needs them.
    """
    if sampling.repetition_penalty != 1.0:
        penalty = sampling.repetition_penalty
        assert seen is not None
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.frequency_penalty or sampling.presence_penalty:
        assert made is not None
        logits = logits - sampling.frequency_penalty * made - sampling.presence_penalty * (made > 0)
    if sampling.greedy:
        return logits
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.size(-1):
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1.0:
        logits = logits.masked_fill(logits < _least_of_nucleus(logits, sampling.top_p), -torch.inf)
    return logits


def _least_of_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The smallest logit [B, 1] among the most probable tokens that together have the probability `top_p`."""
    total = logits.logsumexp(-1, keepdim=True)
    for count in (min(_NUCLEUS, logits.size(-1)), logits.size(-1)):
        ordered = logits.topk(count).values
        probabilities = (ordered - total).exp()
        inside = probabilities.cumsum(-1) - probabilities < top_p  # the first token has 0 before it and always stays
        if not inside[:, -1].any():
            break
    # Where float32 rounds `top_p` to 0, not even the first token is inside.
    return ordered.gather(1, (inside.sum(-1, keepdim=True) - 1).clamp(min=0))


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token of each row [B] at its number `uniform` [B] float64 in [0, 1) of the cumulative distribution."""
    cumulative = in_float64(logits).softmax(-1).cumsum(-1)
    # The last sum is not exactly 1: scaled by it, the number falls on a token of probability above 0.
    ids = torch.searchsorted(cumulative, uniform.to(cumulative.device)[:, None] * cumulative[:, -1:], right=True)
    return ids[:, 0].clamp(max=logits.size(-1) - 1)
