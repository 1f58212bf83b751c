"""Files that are made to be slow to read: twice the bytes may take at most 2.5 times the CPU time, and end no run."""

import gc
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from doubling import more_than_linear
from pipelines import articles_in

from kogpt.common.errors import UserError
from preprocess.auto_layout import guess_layout
from preprocess.layouts import named_layout
from preprocess.sources import find_sources


def repeated(piece: str, start: str = "", end: str = "") -> Callable[[int], str]:
    return lambda length: start + piece * (length // len(piece)) + end


def in_a_dump(piece: str) -> Callable[[int], str]:
    """A page of namuwiki's dump whose markup is `piece` again and again."""
    page = {"namespace": "0", "title": "가"}
    return lambda length: json.dumps([page | {"text": piece * (length // len(piece))}])


HOSTILE: dict[str, Callable[[int], str]] = {
    "open.json": repeated("["),
    "nested.json": lambda length: "[" * (length // 2) + "]" * (length // 2),
    "objects.json": repeated('{"text":'),
    "list.json": repeated('{"text": "가"},', "[", "null]"),
    "keys.json": lambda length: json.dumps({f"k{number}": "" for number in range(length // 12)}),
    "texts.jsonl": repeated('{"text": "가"}\n'),
    "broken.jsonl": repeated("{\n"),
    "one.jsonl": repeated("가 ", '{"text": "', '"}'),
    "blank.txt": repeated(" ", "나는 간다.\n", "\n나는 간다."),
    "marks.txt": lambda length: "a" + "".join(random.Random(length).choices("\u0300\u0323\u0591", k=length)),
    "open.csv": repeated('"', "text\n"),
    "columns.csv": repeated("a,"),
    "rows.csv": repeated("a,b,c\n", "text\n"),
    "quotes.tsv": repeated('"\t'),
    "wiki_00": repeated("<doc \n"),
    "entities/wiki_00": repeated("&amp;&#", "<doc id=1>\n가\n\n", "\n</doc>\n"),
    "sentences.conllu": repeated("# text = 가\n"),
    "folds.json": in_a_dump("{{{"),
    "links.json": in_a_dump("[["),
    "closings.json": in_a_dump("[]]"),
    "cells.json": in_a_dump("||<a"),
    "headings.json": in_a_dump("== "),
    "emphasis.json": in_a_dump("''~~"),
    "macros.json": in_a_dump("[include("),
    "quotes.json": in_a_dump("> "),
}


def seconds(path: Path, content: str) -> float:
    """CPU time for guessing the layout and reading."""
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    sources = find_sources((str(path.parent),))
    gc.collect()
    gc.disable()  # the test's own list of results is what it would walk through
    start = time.process_time()
    try:
        layout, _ = guess_layout(sources)
    except UserError:
        layout = named_layout("plain")
    list(articles_in(sources, layout, None))
    taken = time.process_time() - start
    gc.enable()
    return taken


@pytest.mark.parametrize("name", HOSTILE)
def test_twice_the_bytes_take_twice_the_time(name: str, tmp_path: Path) -> None:
    def measured(length: int) -> dict[str, float]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return {name: seconds(folder / "input" / name, HOSTILE[name](length))}

    assert not more_than_linear(measured, 150_000)
