"""The scorer of likelihood for validation in training, `kogpt evaluate`, and multiple choice.

In: rows of tokens, and a function that computes the negative log-likelihood (nll, in nats) of every target of a batch.
Out: the nll of each row; bits per character.

Bits per character: every token of an article, including [SEP], is predicted once. Sliding windows give it at least
max_seq_len - stride tokens of context (kogpt.data.windows.eval_windows). The nll is summed, converted to bits, and
divided by the number of characters of the normalized text, including spaces and line feeds. The result can be compared
across tokenizers. Cost: max_seq_len / stride passes over the text. Rows are batched by length, longest first.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kogpt.common.device import in_float64
from kogpt.common.errors import UserError
from kogpt.data.batch import Batch
from kogpt.data.conversations import Conversations
from kogpt.data.corpus import TokenCorpus
from kogpt.data.windows import eval_windows
from kogpt.model.decoder import Decoder
from kogpt.model.loss import IGNORED

Tokens = Sequence[int] | np.ndarray
TokenNll = Callable[[Batch], Tensor]
"""The nll of every target of a batch, [B, T], 0 where it is not scored."""

BATCH_ROWS = 16
"""Default number of rows per forward pass."""

_LENGTH_STEP = 64
"""Batches are padded to a multiple of this many tokens, so that there are few different shapes."""


class Row(NamedTuple):
    """At most max_seq_len + 1 tokens. Target j is token j + 1. The targets from `first` on are scored, of those that
    are `learnt` tokens (bool, parallel to `tokens`; None for all)."""

    tokens: Tokens
    first: int
    learnt: np.ndarray | None = None


def batches_of(lengths: Sequence[int], batch_rows: int, world_size: int = 1) -> list[tuple[list[int], tuple[int, int]]]:
    """(indices of the rows, the shape that they are padded to) of each batch, from the targets of each row.

    `world_size` batches in a row are those of the ranks, longest first, and all ranks have the same number of them: the
    last may have no rows. Batches have at most `batch_rows`, and as few of them as make all alike: with 65 of 64, there
    would otherwise be twice the work.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    turns = -(-len(lengths) // (batch_rows * world_size))
    batch_rows = -(-len(lengths) // max(1, turns * world_size))
    starts = range(0, turns * world_size * batch_rows, max(1, batch_rows))
    longest = max(lengths, default=0)

    def padded(length: int) -> int:
        return max(1, min(-(-length // _LENGTH_STEP) * _LENGTH_STEP, longest))

    batches = (order[start : start + batch_rows] for start in starts)
    return [(batch, (batch_rows, padded(lengths[batch[0]] if batch else 1))) for batch in batches]


def positions_of(lengths: Sequence[int], batch_rows: int, world_size: int) -> int:
    """The positions that all ranks compute for such rows; those that wait for the longest of their batches count."""
    firsts = batches_of(lengths, batch_rows, world_size)[::world_size]
    return world_size * sum(math.prod(shape) for _, shape in firsts)


def score_batches(
    token_nll: TokenNll,
    rows: Sequence[Row],
    *,
    device: torch.device,
    batch_rows: int = BATCH_ROWS,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield (indices of the rows, nll of each row as float64) for each batch.

    The batches are divided between the ranks. All ranks get the same number of them, because under ZeRO 3 a forward
    pass needs every rank.
    """
    for chosen, shape in batches_of([len(row.tokens) - 1 for row in rows], batch_rows, world_size)[rank::world_size]:
        nll = token_nll(_batch([rows[i] for i in chosen], shape, device))
        yield chosen, in_float64(nll).sum(1)[: len(chosen)].cpu().numpy()


def _batch(rows: list[Row], shape: tuple[int, int], device: torch.device) -> Batch:
    """A batch [B, T] of this shape. Missing rows and positions are filled with token 0, and not scored."""
    ids = np.zeros(shape, dtype=np.int64)
    targets = np.full_like(ids, IGNORED)
    for i, (tokens, first, learnt) in enumerate(rows):
        count = len(tokens) - 1
        ids[i, :count] = tokens[:-1]
        targets[i, first:count] = tokens[first + 1 :]
        if learnt is not None:
            targets[i, :count][~learnt[1:]] = IGNORED
    return Batch(torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device))


def row_nll(model: Decoder, rows: Sequence[Row]) -> np.ndarray:
    """The nll of each row, [n] float64, computed in this process."""
    nll = np.zeros(len(rows))
    for chosen, scored in score_batches(lambda batch: model.token_nll(*batch[:2]), rows, device=model.device):
        nll[chosen] = scored
    return nll


@dataclass(frozen=True)
class HeldOut:
    """Articles as rows that score each target once.

    `owners` holds the index of each row's article, `article_chars` the characters of each article that count.
    """

    rows: list[Row]
    owners: list[int]
    article_chars: list[int]
    targets: int

    @property
    def articles(self) -> int:
        """Their number."""
        return len(self.article_chars)

    @property
    def chars(self) -> int:
        """Of all articles."""
        return sum(self.article_chars)


def held_out(articles: Iterable[tuple[Tokens, int]], max_seq_len: int, stride: int | None = None) -> HeldOut:
    """Split articles, given as (tokens [CLS] ... [SEP], number of characters), into rows.

    `stride` is max_seq_len / 2 by default.
    """
    rows: list[Row] = []
    owners: list[int] = []
    chars: list[int] = []
    targets = 0
    for tokens, length in articles:
        for window in eval_windows(len(tokens), max_seq_len, stride or max(1, max_seq_len // 2)):
            rows.append(Row(tokens[window.start : window.start + window.length], window.score_from))
            owners.append(len(chars))
        chars.append(length)
        targets += len(tokens) - 1
    return HeldOut(rows, owners, chars, targets)


def held_out_corpus(
    corpus: TokenCorpus, max_seq_len: int, stride: int | None = None, limit: int | None = None
) -> HeldOut:
    """The first `limit` articles of a corpus's validation split.

    Of conversations, shortened as for training, only the learnt tokens are scored, and only the assistant's characters
    count.
    """
    if corpus.kind != "conversations":
        return held_out(corpus_articles(corpus)[:limit], max_seq_len, stride)
    talks = Conversations(corpus, "val", max_seq_len + 1)
    chosen = range(len(talks))[:limit]
    rows = [Row(tokens, 0, learnt) for tokens, learnt in map(talks.tokens, chosen)]
    chars, targets = list(map(talks.learnt_chars, chosen)), int(talks.learnt_counts[:limit].sum())
    return HeldOut(rows, list(chosen), chars, targets)


def corpus_articles(corpus: TokenCorpus, split: str = "val") -> list[tuple[np.ndarray, int]]:
    """The articles of a split in the form that `held_out` takes. Tokens are views of the mapped files."""
    chars = corpus.column("chars").to_numpy()
    return [(corpus.article(int(i)), int(chars[i])) for i in corpus.split(split)]


def bits_per_char(nll: float, chars: int) -> float:
    """Convert the nll of a text (in nats) to bits per character."""
    return nll / math.log(2) / chars


def standard_error(nll: np.ndarray, chars: Sequence[int]) -> float:
    """The standard error of bits per character as an estimate for all articles like these; NaN of fewer than two.

    `nll` and `chars` are those of each article. It is that of a ratio of sums (Cochran, Sampling Techniques, 6.13).
    """
    count, lengths = len(nll), np.asarray(chars, dtype=float)
    if count < 2:
        return math.nan
    apart = nll - lengths * (nll.sum() / lengths.sum())
    return math.sqrt(count / (count - 1) * float(apart @ apart)) / math.log(2) / float(lengths.sum())


@dataclass(frozen=True)
class TextScore:
    """The likelihood of articles under a model. `nll` holds that of each article, for paired comparisons."""

    bits_per_char: float
    standard_error: float
    loss: float
    articles: int
    chars: int
    targets: int
    nll: list[float]


def score_articles(model: Decoder, articles: Iterable[tuple[Tokens, int]], *, stride: int | None = None) -> TextScore:
    """Score articles in the form that `held_out` takes. Raises `UserError` if there is no text."""
    return score(model, held_out(articles, model.config.max_seq_len, stride))


def score(model: Decoder, text: HeldOut) -> TextScore:
    """Score the rows of articles or conversations. Raises `UserError` if there is no text."""
    if not text.chars:
        raise UserError("there is no text to evaluate on; give a corpus with a val split or a folder of texts.")
    nll = np.bincount(text.owners, row_nll(model, text.rows), minlength=text.articles)
    total = float(nll.sum())
    error = standard_error(nll, text.article_chars)
    bits = bits_per_char(total, text.chars)
    return TextScore(bits, error, total / text.targets, text.articles, text.chars, text.targets, nll.tolist())
