"""`kogpt inspect CORPUS`: verify the checksums, show the counts and the first tokens of an article.

With `decode`, writes every article back as a JSON line {"id", "text"}. Reads every file once for the checksums.
"""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.data.corpus import TokenCorpus, count_rows
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer

_SAMPLE = 80


def inspect(corpus: str | Path, decode: str | Path | None = None) -> None:
    """Print what a corpus holds. With `decode`, also write all its articles to that JSONL file."""
    opened = TokenCorpus.open(corpus)
    problems = opened.verify()
    console = Console(highlight=False)
    console.print(_table(f"Token corpus {corpus}", summary(opened)))
    if problems:
        raise UserError(f"{corpus} is damaged: {'; '.join(problems)}; copy or build it again")
    tokenizer = open_tokenizer(opened.tokenizer_folder)
    console.print(Text(f"Checksums: all {len(opened.manifest['files'])} files are intact."))
    if len(opened):
        console.print(
            _table(f"The first {_SAMPLE} tokens of article {opened.articles['id'][0]}", sample(opened, tokenizer))
        )
    if decode is not None:
        write_texts(opened, tokenizer, Path(decode))
        console.print(Text(f"{len(opened)} articles written to {decode}"))


def summary(corpus: TokenCorpus) -> list[tuple[str, str]]:
    """The manifest of a corpus as (label, value) for people."""
    manifest = corpus.manifest
    tokenizer = manifest["tokenizer"]
    token_bytes = sum(file["bytes"] for name, file in manifest["files"].items() if name.startswith("tokens-"))
    return [
        *count_rows(manifest["counts"]),
        ("bytes per token", f"{token_bytes / max(1, manifest['counts']['ids']):.2f} ({manifest['dtype']})"),
        ("tokenizer", f"{tokenizer['source']}, {tokenizer['vocab_size']:,} tokens, spacing {tokenizer['spacing']}"),
        ("analyzer", ", ".join(f"{key} {value}" for key, value in manifest["analyzer"].items())),
        ("normalizer", manifest["normalizer"]),
        ("fingerprint", corpus.fingerprint),
    ]


def sample(corpus: TokenCorpus, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """The beginning of the first article: its text, tokens, and ids."""
    ids = corpus.article(0)[:_SAMPLE].tolist()
    return [
        ("text", tokenizer.decode(ids)),
        ("tokens", " ".join(tokenizer.tokens(ids))),
        ("ids", " ".join(map(str, ids))),
    ]


def write_texts(corpus: TokenCorpus, tokenizer: Tokenizer, path: Path) -> None:
    """Write every article as a JSON line {"id", "text"}, in corpus order."""
    with atomic_write(path) as file:
        for i, name in enumerate(tqdm(corpus.articles["id"].to_pylist(), unit="article", disable=None)):
            row = {"id": name, "text": tokenizer.decode(corpus.article(i).tolist())}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=Text(title), show_header=False, title_justify="left")
    for name, value in rows:
        # Text, because a token such as [LF] would be read as markup
        table.add_row(Text(name), Text(value))
    return table
