"""Generate text from a run and prompts, as a stream."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kogpt.checkpoint.choose import Wish
from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.generate.start import load_with_codec
from kogpt.model.decoder import Decoder
from kogpt.model.packed import packed
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import StreamDecoder

_CACHE_BYTES = 2 * 2**30
"""Limit for the KV cache of the rows that go through the model together."""


class Piece(NamedTuple):
    """Newly generated text, with its prompt and sample number, and whether it is the last of the sample."""

    prompt: int
    sample: int
    text: str
    last: bool


def stream_text(
    model: Decoder, codec: TextCodec, prompts: Sequence[str], sampling: Sampling, *, samples: int = 1
) -> Iterator[Piece]:
    """Continue each prompt `samples` times, as many rows at once as fit into _CACHE_BYTES; yield text as it comes."""
    encoded = [[codec.tokenizer.cls_id, *codec.encode(prompt)] for prompt in prompts]
    rows = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
    row_bytes = 2 * math.prod(model.config.kv_cache_shape(1)) * model.dtype.itemsize
    size = max(1, _CACHE_BYTES // row_bytes)
    for batch in (rows[first : first + size] for first in range(0, len(rows), size)):
        seeds = [sampling.seed + sample for _, sample in batch]
        for i, text, last in _stream_rows(model, codec, [encoded[prompt] for prompt, _ in batch], sampling, seeds):
            yield Piece(*batch[i], text, last)


def _stream_rows(
    model: Decoder, codec: TextCodec, rows: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
) -> Iterator[tuple[int, str, bool]]:
    """(row, text, last) for one batch, as in `Piece`."""
    tokenizer = codec.tokenizer
    decoders = [StreamDecoder(tokenizer) for _ in rows]
    for decoder, ids in zip(decoders, rows, strict=True):
        for known in ids:  # whether a space follows depends on the tokens before
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
    model: Decoder, codec: TextCodec, prompts: Sequence[str], sampling: Sampling, *, samples: int = 1
) -> list[list[str]]:
    """The complete continuations, `samples` for each prompt."""
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
    checkpoint: Wish = None,
) -> Iterator[Piece]:
    """Continue prompts with a checkpoint of a run (kogpt.checkpoint.choose), or one of its step folders."""
    run, codec = load_with_codec(Path(run_folder), device, checkpoint)
    yield from stream_text(packed(run.model), codec, prompts, sampling, samples=samples)
