"""What a model loses without its analyzer: bits per character of the same articles, cut into morphemes and uncut.

In: a model, articles as tokens. Out: both numbers, and how much more the uncut text costs. Uncut tokens are those of
the exported `AutoTokenizer` (kogpt.tokenizer.hf), so this is what the model is worth to programs without the analyzer.

The error of the quotient is paired by article (Cochran, Sampling Techniques, 6.4), because an article that is hard to
predict when it is cut is also hard when it is not. Cost: that of scoring the articles twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.eval.likelihood import TextScore, Tokens, corpus_articles, score_articles
from kogpt.model.decoder import Decoder
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import Tokenizer

Articles = Sequence[tuple[Tokens, int]]
"""(tokens [CLS] ... [SEP], characters) of each"""


@dataclass(frozen=True)
class Uncut:
    """Bits per character of uncut text, and `more`: how much more that is than of cut text (0.02 is 2 %)."""

    bits_per_char: float
    standard_error: float
    cut_bits_per_char: float
    more: float
    more_standard_error: float
    articles: int
    chars: int


def uncut_articles(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[Tokens, int]]:
    """The articles with these texts, without an analyzer; texts that are empty after normalization are left out.

    Raises `UserError` for a vocabulary that does not restore the text.
    """
    if tokenizer.spacing != "original":
        raise UserError("only a run with --spacing original can be compared without the analyzer; leave out --uncut.")
    analyzer = load_analyzer("none")
    normal = (normalize(text)[0] for text in texts)
    return [
        ([tokenizer.cls_id, *tokenizer.encode(text, analyzer.analyze(text)), tokenizer.sep_id], len(text))
        for text in normal
        if text
    ]


def both_ways(corpus: TokenCorpus, tokenizer: Tokenizer, limit: int | None = None) -> tuple[Articles, Articles]:
    """The first `limit` validation articles of a corpus, cut as they are stored, and uncut."""
    if corpus.kind == "conversations" or tokenizer.spacing != "original":
        raise UserError(
            f"{corpus.folder}: only articles with --spacing original can be read without the analyzer; "
            "name a corpus of articles whose tokens restore the text."
        )
    cut = corpus_articles(corpus)[:limit]
    return cut, uncut_articles(tokenizer, [tokenizer.decode(ids) for ids, _ in cut])


def score_both(model: Decoder, cut: Articles, uncut: Articles, *, stride: int | None = None) -> Uncut:
    """Score the same articles both ways. Raises `UserError` if there is no text."""
    return compared(score_articles(model, cut, stride=stride), score_articles(model, uncut, stride=stride))


def compared(cut: TextScore, uncut: TextScore) -> Uncut:
    """The scores of the same articles, article by article."""
    first, second = np.array(cut.nll), np.array(uncut.nll)
    quotient, count = float(second.sum() / first.sum()), len(first)
    apart = second - quotient * first
    error = math.sqrt(count / (count - 1) * float(apart @ apart)) / float(first.sum()) if count > 1 else math.nan
    return Uncut(
        uncut.bits_per_char,
        uncut.standard_error,
        cut.bits_per_char,
        quotient - 1,
        error,
        uncut.articles,
        uncut.chars,
    )
