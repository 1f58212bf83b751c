"""Generate tokens from tokens.

In: a model and prompts (lists of tokens). Out: an iterator of one token per row and step. All rows go through the model
together. Shorter prompts are padded on the left, and the padding is masked, so a row does not depend on the other rows
of the batch, except for rounding. Each row has its own random numbers, one per token, drawn on the CPU: the same seed
gives the same text alone, in a batch, and on a GPU.

Cost: the prompt goes through the model once, then one token per step with cached keys and values, O(context) per token
instead of O(context^2). When a row reaches max_seq_len, the last half of its context goes through the model again as a
new prompt, because with learned absolute positions its keys would change. Each token then sees between max_seq_len / 2
and max_seq_len earlier tokens, at an amortized two passes per token.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kogpt.generate.logits import draw, process_logits
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.model.kv_cache import KVCache


def _prefill(model: Decoder, rows: list[list[int]], keep: int) -> tuple[KVCache, Tensor]:
    """A new cache with the last `keep` tokens of each row, and the logits [B, V] after them."""
    rows = [row[-keep:] for row in rows]
    longest = max(map(len, rows))
    pads = torch.tensor([longest - len(row) for row in rows], device=model.device)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=model.device)
    cache = KVCache(
        model.config,
        len(rows),
        pads=pads if pads.any() else None,
        device=model.device,
        dtype=model.dtype,
    )
    return cache, model.logits(model.hidden(ids, cache=cache)[:, -1])


@torch.no_grad()
def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_id: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[list[int | None]]:
    """Yield, step by step, the next token of every row; None for a row that has ended (`stop_id` ends it).

    Every prompt has at least one token. `seeds`: one per row instead of sampling.seed + row.
    """
    limit = model.config.max_seq_len
    rows = [list(prompt) for prompt in prompts]
    if not rows or not all(rows):
        raise ValueError("a prompt without tokens; start it with [CLS]")
    if seeds is None:
        seeds = range(sampling.seed, sampling.seed + len(rows))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    cache, logits = _prefill(model, rows, limit)
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, mark in zip(rows, seen, strict=True):
        mark[torch.tensor(row, device=seen.device)] = True
    ended = [False] * len(rows)
    for step in range(sampling.max_new_tokens):
        scores = process_logits(logits.float(), seen, sampling)
        chosen = scores.argmax(-1) if sampling.greedy else draw(scores, generators)
        seen.scatter_(1, chosen[:, None], True)
        ids = chosen.tolist()
        yield [None if over else id for over, id in zip(ended, ids, strict=True)]
        for i, id in enumerate(ids):
            rows[i].append(id)
            ended[i] = ended[i] or id == stop_id
        if all(ended) or step + 1 == sampling.max_new_tokens:
            return
        if cache.length == limit:
            fresh, _ = _prefill(model, [rows[i][:-1] for i in cache.full_rows()], max(1, limit // 2 - 1))
            cache.make_room(fresh)
        logits = model(chosen[:, None], cache=cache)[:, -1]
