"""Measure the token corpus and its tokenizer: encoding speed, bytes per token, random reads against `.pt` windows.

In: JSON lines with a "passage" or "text" each (`.gz` or plain). Everything is measured on those articles, with the
boundaries of the chosen analyzer. "plain" is BertTokenizerFast's WordPiece with the same morphemes as separate words.

    python bench/corpus.py ARTICLES.jsonl.gz --tokenizer FOLDER [--analyzer kiwi] [--limit 1000] [--json FILE]
"""

import gzip
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional

from kogpt.data.corpus import TokenCorpus
from kogpt.data.corpus_writer import CorpusWriter
from kogpt.data.pt_windows import export_windows
from kogpt.data.windows import train_window, train_windows
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.analyzers.load import analyzer_identity, load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import Tokenizer, load_tokenizer

T = TypeVar("T")
MAX_SEQ_LEN, BATCH = 256, 64


@dataclass(frozen=True)
class Arguments:
    """What to measure on."""

    articles: Positional[Path]
    """JSON lines, plain or .gz."""
    tokenizer: str
    """A WordPiece folder, or a name on the hub."""
    analyzer: str = "kkma"
    """Analyzer for the boundaries: kkma, kiwi, or none."""
    limit: int = 1000
    """Articles to take, from the beginning."""
    json: Path | None = None
    """Write the numbers to this file as well."""


@dataclass(frozen=True)
class Results:
    """The results. Seconds are CPU seconds of the process, with files in the page cache."""

    articles: int
    chars: int
    lossless_articles: int
    encode_chars_per_s: float
    decode_ids_per_s: float
    ids_per_char: float
    ids_against_plain: float
    bytes_per_id: float
    stream_windows_per_s: float
    pt_windows_per_s: float


def measure(arguments: Arguments) -> Results:
    """Encode, write, read back and read at random."""
    texts = read_texts(arguments.articles, arguments.limit)
    analyzer = load_analyzer(arguments.analyzer)
    analyses = [analyzer.analyze(text) for text in texts]
    identity = analyzer_identity(arguments.analyzer)
    tokenizer = load_tokenizer(arguments.tokenizer, spacing="original", analyzer=identity)
    plain = load_tokenizer(arguments.tokenizer, spacing="morphemes", analyzer=identity)
    pairs = list(zip(texts, analyses, strict=True))
    encode_s, ids = cpu_seconds(lambda: [tokenizer.encode(text, analysis) for text, analysis in pairs])
    decode_s, decoded = cpu_seconds(lambda: [tokenizer.decode(article) for article in ids])
    chars, count = sum(map(len, texts)), sum(map(len, ids))
    plain_count = sum(len(plain.encode(text, Analysis([], surface(text, a.cuts), None))) for text, a in pairs)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder, "corpus"), tokenizer, texts, ids)
        export_windows(corpus.folder, Path(folder, "pt"), "pt")
        size = sum(path.stat().st_size for path in corpus.folder.glob("tokens-*.npy"))
        return Results(
            articles=len(texts),
            chars=chars,
            lossless_articles=sum(map(str.__eq__, decoded, texts)),
            encode_chars_per_s=chars / encode_s,
            decode_ids_per_s=count / decode_s,
            ids_per_char=count / chars,
            ids_against_plain=count / plain_count,
            bytes_per_id=size / corpus.manifest["counts"]["ids"],
            stream_windows_per_s=stream_speed(corpus),
            pt_windows_per_s=pt_speed(Path(folder, "pt")),
        )


def read_texts(path: Path, limit: int) -> list[str]:
    """The first articles, normalized."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(limit), file, strict=False)]
    return [normalize(row.get("passage") or row["text"])[0] for row in rows]


def surface(text: str, cuts: list[int]) -> list[str]:
    """The segments between boundaries."""
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]


def write_corpus(folder: Path, tokenizer: Tokenizer, texts: list[str], ids: list[list[int]]) -> TokenCorpus:
    """The articles as a token corpus."""
    writer = CorpusWriter(folder, tokenizer, val_fraction=0.01, settings={})
    for i, (text, article) in enumerate(zip(texts, ids, strict=True)):
        sha = hashlib.sha256(text.encode()).hexdigest()
        unknown = tokenizer.count_unknown(article)
        writer.add(id=str(i), source="bench", text_sha256=sha, chars=len(text), ids=article, unknown_ids=unknown)
    writer.finish(articles_in=len(texts), dropped=[], removed_controls=0, removed_surrogates=0)
    return TokenCorpus.open(folder)


def cpu_seconds(work: Callable[[], T]) -> tuple[float, T]:
    """Process CPU of a call, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def per_second(read_batch: Callable[[], object], seconds: float = 2.0) -> float:
    """Windows per CPU second, in batches."""
    read_batch()
    batches, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        read_batch()
        batches += 1
    return batches * BATCH / (time.process_time() - start)


def stream_speed(corpus: TokenCorpus) -> float:
    """Random training windows of the corpus as [64, 257] int64 tensors."""
    stream, generator = corpus.stream("train"), random.Random(0)
    windows = train_windows(len(stream), MAX_SEQ_LEN)

    def read() -> torch.Tensor:
        starts = [train_window(generator.randrange(windows), len(stream), MAX_SEQ_LEN) for _ in range(BATCH)]
        return torch.from_numpy(np.stack([stream.read(start, MAX_SEQ_LEN + 1) for start in starts]))

    return per_second(read)


def pt_speed(folder: Path) -> float:
    """Random `.pt` windows as [64, 256] int64 tensors."""
    paths, generator = list(folder.iterdir()), random.Random(0)

    def read() -> torch.Tensor:
        chosen = generator.choices(paths, k=BATCH)
        return torch.stack([torch.load(path, weights_only=True)["input_ids"] for path in chosen])

    return per_second(read)


def main() -> None:
    """Measure and print."""
    arguments = tyro.cli(Arguments, config=(FlagCreatePairsOff,), description=__doc__)
    results = asdict(measure(arguments))
    table = Table(title=f"Token corpus, cuts by {arguments.analyzer}", show_header=False)
    for name, value in results.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:,.4g}")
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
