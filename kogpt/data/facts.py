"""What a corpus says about itself, for its data card and its report: sources, lengths, what was dropped, scripts.

In: an open `TokenCorpus`. Out: numbers and names. Reads the two tables; `scripts` also decodes up to 500 articles.
Cost: a second for a million articles.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.wordpiece import Tokenizer

MOST_SOURCES, MOST_EXAMPLES, SAMPLED = 20, 20, 500
_SCRIPTS = {
    "Hangul": "[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff]",
    "Latin": "[A-Za-z\u00c0-\u024f]",
    "Han": "[\u3400-\u9fff\uf900-\ufaff]",
    "kana": "[\u3040-\u30ff]",
    "Cyrillic": "[\u0400-\u04ff]",
    "digits": "[0-9]",
}


class Source(NamedTuple):
    """The articles of one folder, archive, or file at the top of the input."""

    name: str
    articles: int
    chars: int
    tokens: int


def sources(corpus: TokenCorpus) -> list[Source]:
    """The largest sources, and one for all others."""
    names = pc.replace_substring_regex(corpus.column("source"), "/.*", "")
    table = pa.table({"name": names, "chars": corpus.column("chars"), "ids": corpus.column("ids")})
    sums = table.group_by("name").aggregate([("ids", "count"), ("chars", "sum"), ("ids", "sum")])
    columns = [sums[name].to_pylist() for name in ("name", "ids_count", "chars_sum", "ids_sum")]
    found = sorted((Source(*row) for row in zip(*columns, strict=True)), key=lambda one: (-one.chars, one.name))
    rest = found[MOST_SOURCES:]
    if not rest:
        return found
    _, articles, chars, tokens = zip(*rest, strict=True)
    return [*found[:MOST_SOURCES], Source(f"{len(rest):,} others", sum(articles), sum(chars), sum(tokens))]


@dataclass(frozen=True)
class Reason:
    """Why articles were dropped or degraded."""

    name: str
    count: int
    examples: list[tuple[str, str]]
    """(id, detail) of some, spread evenly over all"""


def reasons(corpus: TokenCorpus, status: str = "dropped") -> list[Reason]:
    """All reasons of one status ("dropped" or "degraded"), the most frequent first."""
    table = pq.read_table(corpus.folder / "dropped.parquet", columns=["id", "status", "reason", "detail"])
    table = table.filter(pc.equal(table["status"], status))
    names = table["reason"]
    counts = Counter(names.to_pylist())
    found = []
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        own = table.filter(pc.equal(names, name))
        rows = own.take(np.unique(np.linspace(0, count - 1, min(count, MOST_EXAMPLES)).astype(int))).to_pylist()
        found.append(Reason(name, count, [(row["id"], row["detail"]) for row in rows]))
    return found


def lengths(corpus: TokenCorpus) -> np.ndarray:
    """The characters of each article."""
    return corpus.column("chars").to_numpy()


def tokens_per_char(corpus: TokenCorpus) -> np.ndarray:
    """Of each article that has a character."""
    chars = lengths(corpus)
    return (corpus.column("ids").to_numpy() - 2)[chars > 0] / chars[chars > 0]


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Smallest, 10 %, median, 90 %, largest, and mean; nothing of nothing."""
    if not len(values):
        return {}
    names = ("smallest", "10 %", "median", "90 %", "largest")
    found = dict(zip(names, np.quantile(values, [0, 0.1, 0.5, 0.9, 1]).tolist(), strict=True))
    return found | {"mean": float(values.mean())}


def scripts(corpus: TokenCorpus, tokenizer: Tokenizer) -> dict[str, float]:
    """The share of each script in the characters that are not white space, of articles spread evenly over all."""
    counts: Counter[str] = Counter()
    for i in range(0, len(corpus), 1 + len(corpus) // SAMPLED):
        text = re.sub(r"\s+", "", tokenizer.decode(corpus.article(i).tolist()))
        counts["all"] += len(text)
        for name, pattern in _SCRIPTS.items():
            counts[name] += len(re.findall(pattern, text))
    whole = counts.pop("all", 0)
    shares = {name: count / max(1, whole) for name, count in counts.items() if count}
    return dict(sorted(shares.items(), key=lambda item: -item[1])) | {"other": max(0.0, 1 - sum(shares.values()))}
