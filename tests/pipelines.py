"""Helpers for tests of the preprocessing pipeline: other outputs for the same options, and the bytes of a corpus."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from preprocess.documents import Document, Dropped, read_documents
from preprocess.filters import filters_of, kept
from preprocess.layouts import Layout
from preprocess.options import Options
from preprocess.outlines import outlined
from preprocess.report_page import REPORT
from preprocess.scan import Block, Scan
from preprocess.sources import Source
from preprocess.units import Store

COUNT = 300
"""Articles of the input that `tests/preprocess/conftest.py` makes."""


def checksums(options: Options) -> dict[str, str]:
    """name -> sha256 of every file of a corpus folder, without the report, which has times in it."""
    folder = options.output_folder
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != REPORT
    }


def elsewhere(options: Options, folder: Path, **changes: Any) -> Options:
    return replace(options, output=str(folder / "corpus"), **changes)


def scan_of(
    articles: Iterable[Document | Dropped], folder: Path, analyzer: dict[str, str] | None = None, **options: Any
) -> Scan:
    """The scan of articles, whose outlines go into a folder."""
    store = Store(folder)
    blocks = []
    for i, content in enumerate(outlined(articles)):
        blocks.append(Block(0, f"{i}x{len(content)}"))
        store.put(blocks[-1].key, content)
    return Scan(blocks, store, analyzer or {"name": "none"}, **options).finish()


def articles_in(sources: Iterable[Source], layout: Layout, limit: int | None = None) -> Iterator[Document | Dropped]:
    """What a run keeps and drops of the sources by default."""
    return kept(read_documents(sources, layout), filters_of(Options(input=("x",), output="y")), limit)
