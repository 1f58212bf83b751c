"""`kogpt inspect CORPUS`: verify the checksums, show the counts and the first tokens of an article.

Of a conversation, the tokens that are learnt are green (on a terminal). With `decode`, writes every article back as a
JSON line {"id", "text"}, and every conversation as {"id", "messages"}, which preprocessing reads. Reads every file once
for the checksums.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.data.card import card
from kogpt.data.corpus import TokenCorpus, count_rows
from kogpt.tokenizer.chat import parse
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer

_SAMPLE, _CONVERSATION_SAMPLE = 80, 400


def inspect(corpus: str | Path, decode: str | Path | None = None, data_card: bool = False) -> None:
    """Print what a corpus holds. With `decode`, also write all its articles to that JSONL file.

    With `data_card`, print only the data card. Raises `UserError` if both are asked for, or the corpus is damaged.
    """
    if data_card and decode is not None:
        raise UserError("--card prints only the data card; give --decode without it")
    opened = TokenCorpus.open(corpus)
    if data_card:
        print(card(opened), end="")
        return
    problems = opened.verify()
    console = Console(highlight=False)
    console.print(_table(f"Token corpus {corpus}", summary(opened)))
    if problems:
        raise UserError(f"{corpus} is damaged: {'; '.join(problems)}; copy or build it again")
    tokenizer = open_tokenizer(opened.tokenizer_folder)
    console.print(Text(f"Checksums: all {len(opened.manifest['files'])} files are intact."))
    if len(opened):
        console.print(_table(*sample(opened, tokenizer)))
    if decode is not None:
        write_texts(opened, tokenizer, Path(decode))
        console.print(Text(f"{len(opened)} {opened.kind} written to {decode}"))


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


def sample(corpus: TokenCorpus, tokenizer: Tokenizer) -> tuple[str, list[tuple[str, Text]]]:
    """(title, rows) of the beginning of the first article: its text, tokens, and ids, and which of them are learnt."""
    if corpus.kind == "articles":
        limit, learnt = _SAMPLE, np.zeros(_SAMPLE, bool)
    else:
        limit, learnt = _CONVERSATION_SAMPLE, corpus.learnt(0)
    ids, flags = corpus.article(0)[:limit].tolist(), learnt[:limit].tolist()
    rows = [
        ("text", Text(tokenizer.decode(ids))),
        ("tokens", _marked(tokenizer.tokens(ids), flags)),
        ("ids", _marked(map(str, ids), flags)),
    ]
    if corpus.kind != "articles":
        rows[0] = ("learnt (green)", Text(tokenizer.decode([i for i, own in zip(ids, flags, strict=True) if own])))
    return f"The first {len(ids)} tokens of {corpus.articles['id'][0]}", rows


def _marked(words: Iterable[str], learnt: Iterable[bool]) -> Text:
    """The words, the learnt ones in green; on anything but a terminal rich writes no colors."""
    return Text(" ").join(Text(word, "bold green" if own else "") for word, own in zip(words, learnt, strict=False))


def write_texts(corpus: TokenCorpus, tokenizer: Tokenizer, path: Path) -> None:
    """Write every article as a JSON line {"id", "text"}, or every conversation as {"id", "messages"}, in order."""
    with atomic_write(path) as file:
        for i, name in enumerate(tqdm(corpus.articles["id"].to_pylist(), unit="article", disable=None)):
            ids = corpus.article(i).tolist()
            content: dict[str, Any] = {"text": tokenizer.decode(ids)}
            if corpus.kind == "conversations":
                content = {"messages": [message._asdict() for message in parse(ids[1:-1], tokenizer)]}
            file.write((json.dumps({"id": name} | content, ensure_ascii=False) + "\n").encode())


def _table(title: str, rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table(title=Text(title), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # the default cuts wide words at the end of a line
    for name, value in rows:
        # Text, because a token such as [LF] would be read as markup
        table.add_row(Text(name), value if isinstance(value, Text) else Text(value))
    return table
