"""From ids to more ids, and from a run folder and prompts to text, as it comes.

In: a model and prompts (lists of ids). Out: an iterator of one id per row and step. All rows go through the
model together: shorter prompts are padded on the left, out of sight of the others, so a row's ids do not
depend on which other rows are in the batch (but for rounding). Each row has its own random numbers, one per
id, drawn on the CPU: the same seed gives the same text alone, in a batch and on a GPU.

Cost: the prompt goes through the model once, then one id per step against cached keys and values,
O(context) per id instead of O(context^2). When a row reaches max_seq_len, the last half of its context goes
through the model again as a new prompt (positions are learned and absolute, so its keys cannot stay): each id
then sees between max_seq_len / 2 and max_seq_len ids before it, at two passes per id amortised.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kogpt.checkpoint.load import load_for_inference
from kogpt.generate.sampling import Sampling
from kogpt.model.gpt2 import GPT, KVCache
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import StreamDecoder

_CACHE_BYTES = 2 * 2**30
"""Keys and values of the rows that go through the model together."""


def adjust(logits: Tensor, seen: Tensor, sampling: Sampling) -> Tensor:
    """Logits [B, V] after penalty, temperature, top-k and top-p; ids ruled out get -inf.

    `seen` [B, V] bool marks the ids that occurred in the row, prompt included.
    """
    if sampling.repetition_penalty != 1.0:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.greedy:
        return logits
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.size(-1):
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = logits.sort(descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities  # the first id has 0 before it and always stays
        logits = logits.masked_fill((before >= sampling.top_p).scatter(1, order, before >= sampling.top_p), -torch.inf)
    return logits


def _draw(logits: Tensor, generators: list[torch.Generator]) -> Tensor:
    """One id per row [B], each from its row's generator, by inverting the cumulative distribution."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    # The last sum is not exactly 1: scaled by it, the number falls on an id of probability above 0.
    ids = torch.searchsorted(cumulative, uniform.to(logits.device) * cumulative[:, -1:], right=True)
    return ids[:, 0].clamp(max=logits.size(-1) - 1)


def _prefill(model: GPT, rows: list[list[int]], keep: int) -> tuple[KVCache, Tensor]:
    """A new cache with the last `keep` ids of each row, and the logits [B, V] after them."""
    rows = [row[-keep:] for row in rows]
    longest = max(map(len, rows))
    weight = model.wpe.weight
    pads = torch.tensor([longest - len(row) for row in rows], device=weight.device)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=weight.device)
    cache = KVCache(
        model.config,
        len(rows),
        pads=pads if pads.any() else None,
        device=weight.device,
        dtype=weight.dtype,
    )
    return cache, model.logits(model.hidden(ids, cache)[:, -1])


@torch.no_grad()
def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_id: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[list[int | None]]:
    """Yield, step by step, the next id of every row; None for a row that has ended (`stop_id` ends it).

    Every prompt has at least one id. `seeds`: one per row instead of sampling.seed + row.
    """
    limit = model.config.max_seq_len
    rows = [list(prompt) for prompt in prompts]
    if not rows or not all(rows):
        raise ValueError("a prompt without ids: begin it with [CLS]")
    if seeds is None:
        seeds = range(sampling.seed, sampling.seed + len(rows))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    cache, logits = _prefill(model, rows, limit)
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, mark in zip(rows, seen, strict=True):
        mark[torch.tensor(row, device=seen.device)] = True
    ended = [False] * len(rows)
    for step in range(sampling.max_new_tokens):
        scores = adjust(logits.float(), seen, sampling)
        chosen = scores.argmax(-1) if sampling.greedy else _draw(scores, generators)
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


class Piece(NamedTuple):
    """Text that has become certain: of which prompt, which sample of it, and whether it is the last of it."""

    prompt: int
    sample: int
    text: str
    last: bool


def stream_text(
    model: GPT, codec: TextCodec, prompts: Sequence[str], sampling: Sampling, *, samples: int = 1
) -> Iterator[Piece]:
    """Continue each prompt `samples` times, as many rows at once as _CACHE_BYTES hold; yield what comes as it comes."""
    encoded = [[codec.tokenizer.cls_id, *codec.encode(prompt)] for prompt in prompts]
    rows = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
    shape = model.config
    row_bytes = 2 * shape.n_layer * shape.n_embd * shape.max_seq_len * model.wpe.weight.element_size()
    size = max(1, _CACHE_BYTES // row_bytes)
    for batch in (rows[first : first + size] for first in range(0, len(rows), size)):
        seeds = [sampling.seed + sample for _, sample in batch]
        for i, text, last in _stream_rows(model, codec, [encoded[prompt] for prompt, _ in batch], sampling, seeds):
            yield Piece(*batch[i], text, last)


def _stream_rows(
    model: GPT, codec: TextCodec, rows: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
) -> Iterator[tuple[int, str, bool]]:
    """(row, text, last) as `Piece`s have it, for one batch."""
    tokenizer = codec.tokenizer
    decoders = [StreamDecoder(tokenizer) for _ in rows]
    for decoder, ids in zip(decoders, rows, strict=True):
        for known in ids:  # what follows depends on what stood before: whether a space comes between
            decoder.push(known)
    ended = [False] * len(rows)
    for step in generate(model, rows, sampling, stop_id=tokenizer.sep_id, seeds=seeds):
        for i, id in enumerate(step):
            if id is None:
                continue
            ended[i] = id == tokenizer.sep_id
            text = decoders[i].flush() if ended[i] else decoders[i].push(id)
            if text or ended[i]:
                yield i, text, ended[i]
    for i, decoder in enumerate(decoders):
        if not ended[i]:
            yield i, decoder.flush(), True


def continue_texts(
    model: GPT, codec: TextCodec, prompts: Sequence[str], sampling: Sampling, *, samples: int = 1
) -> list[list[str]]:
    """The whole continuations: `samples` of them for each prompt."""
    texts = [[""] * samples for _ in prompts]
    for piece in stream_text(model, codec, prompts, sampling, samples=samples):
        texts[piece.prompt][piece.sample] += piece.text
    return texts


def generate_text(
    run_folder: str | Path,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    samples: int = 1,
    device: str | None = None,
) -> Iterator[Piece]:
    """Continue prompts with the newest good checkpoint of a run (or a step folder of it), on the GPU if any."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    run = load_for_inference(Path(run_folder), device)
    yield from stream_text(run.model, TextCodec(run.tokenizer_folder), prompts, sampling, samples=samples)
