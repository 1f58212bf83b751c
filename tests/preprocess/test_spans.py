"""Spans: which sources are read together, and that the parts of one file give what the whole file gives."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import scan_of

from preprocess import outlines
from preprocess.chat_layout import ChatLayout
from preprocess.layouts import named_layout
from preprocess.reading import Readers, Reading
from preprocess.scan import Scan
from preprocess.sources import Source, find_sources
from preprocess.spans import bytes_for_workers, spans
from preprocess.streams import LinesFrom
from preprocess.units import Store

PLAIN = named_layout("plain")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """Nine files of the same size, three to a span."""
    monkeypatch.setattr("preprocess.spans.SPAN_SOURCES", 3)
    for k in range(9):
        (tmp_path / f"{k}.jsonl").write_text('{"text": "글"}\n' * 10)
    return find_sources((str(tmp_path),))


def test_spans_hold_some_megabytes_or_some_hundred_files(
    sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(span) for span in spans(sources, PLAIN)] == [3, 3, 3]
    monkeypatch.setattr("preprocess.spans.SPAN_BYTES", os.path.getsize(sources[0].paths[0]) + 1)
    assert [source for span in spans(sources, PLAIN) for source in span] == sources
    assert [len(span) for span in spans(sources, PLAIN)] == [2, 2, 2, 2, 1]


def test_files_of_web_servers_are_for_the_driver(sources: list[Source]) -> None:
    size = sum(os.path.getsize(path) for source in sources for path in source.paths)
    assert bytes_for_workers(sources) == size
    web = find_sources(("http://127.0.0.1:9/a.jsonl",))
    assert bytes_for_workers([*sources, *web]) == 0


@given(st.lists(st.binary(max_size=12), max_size=20), st.integers(1, 30))
def test_every_line_is_in_one_range(lines: list[bytes], step: int) -> None:
    """Also empty lines, lines longer than a range, and a last line without an end."""
    content = b"\n".join(lines)
    ranges = [(at, min(at + step, len(content))) for at in range(0, len(content), step)]
    found = [list(LinesFrom(io.BytesIO(content), *own)) for own in ranges]
    assert [line for own in found for line in own] == list(io.BytesIO(content))


def test_a_range_is_not_read_beyond_its_lines() -> None:
    """One line of any length costs each range no more than the range."""
    whole = io.BytesIO(b"x" * 1000 + b"\n")
    part = LinesFrom(whole, 100, 200)
    assert list(part) == []
    assert whole.tell() == 199


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """A file of a hundred times the bytes of a span, between two small ones, with what is dropped in it."""
    monkeypatch.setattr("preprocess.spans.SPAN_BYTES", 200)
    monkeypatch.setattr(outlines, "BLOCK", 3)
    lines = ["\ufeff"]
    for i in range(400):
        lines += [json.dumps({"text": f"글 {i % 300} {'가' * (i % 40)}"}, ensure_ascii=False), ""][: 1 + i % 2]
        lines += ["{", '{"text": ""}', json.dumps({"text": "긴 " * 300})][i % 7 :]
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "b.jsonl").write_text("\n".join(lines))
    for name in ("a", "c"):
        (folder / f"{name}.jsonl").write_text('{"text": "글 0 "}\n[')
    return find_sources((str(folder),))


def test_a_large_file_in_parts_gives_what_the_whole_file_gives(large: list[Source], tmp_path: Path) -> None:
    """The same ids, fingerprint, units, and places of the texts."""
    reading = Reading(PLAIN, ())
    readers = Readers(reading, large, Store(tmp_path / "o"), actors=False)
    assert len(readers.spans) > 100
    found = Scan(readers.outlines(), readers._store, {"name": "none"}).finish()
    whole = scan_of(reading.articles(large), tmp_path / "whole")
    assert (found.fingerprint, found.units, found.reasons) == (whole.fingerprint, whole.units, whole.reasons)
    assert found.reasons.keys() == {"duplicate", "broken JSON"}
    assert found.rows(found.units).equals(whole.rows(whole.units))
    notes = [[row for batch in scan.dropped for row in batch.to_pylist()] for scan in (found, whole)]
    assert notes[0] == notes[1]
    texts: Any = readers.texts(([unit], found.wanted([unit])) for unit in found.units)
    known = {article.id: getattr(article, "text", None) for article in reading.articles(large)}
    assert [text for _, parts in texts for part in parts for text in part] == [
        known[id] for id in whole.rows(whole.units)["id"].to_pylist()
    ]
    first = found.units[0]
    assert [text for part in readers.again(found.wanted([first])) for text in part] == [
        known[id] for id in whole.rows([first])["id"].to_pylist()
    ]


@pytest.mark.parametrize("name", ["b.json", "b.jsonl.gz", "b.csv"])
def test_only_files_of_lines_are_divided(large: list[Source], name: str) -> None:
    path = Path(large[1].paths[0])
    assert len(spans(find_sources((str(path),)), PLAIN)) > 1
    assert len(spans([replace(large[1], name="b.jsonl~2")], PLAIN)) > 1
    assert len(spans(find_sources((str(path),)), ChatLayout())) == 1, "turns may lie on several lines"
    assert len(spans(find_sources((str(path.rename(path.with_name(name))),)), PLAIN)) == 1


def test_a_part_has_another_state_than_the_whole(large: list[Source]) -> None:
    whole = large[1]
    own = [span[0].state() for span in spans([whole], PLAIN)]
    assert len({*own, whole.state()}) == len(own) + 1


def test_the_last_part_goes_on_to_the_end_of_a_file_that_has_grown(large: list[Source]) -> None:
    """Its state is noted after its size, so that nobody would see that lines are missing."""
    last = spans(large[1:2], PLAIN)[-1]
    with open(large[1].paths[0], "a") as file:
        file.write('\n{"text": "new"}\n{"text": "newest"}')
    assert [article.text for article in Reading(PLAIN, ()).articles(last)][-2:] == ["new", "newest"]


def test_parts_of_which_nobody_knows_the_state_are_not_taken_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some stores have no ETag. The outlines of each file, and of each part, have keys of their own."""
    monkeypatch.setattr("preprocess.spans.SPAN_BYTES", 200)
    memory = fsspec.filesystem("memory")
    try:
        for name in "ab":
            memory.pipe(f"/large/{name}.jsonl", "".join(f'{{"text": "{name} {i}"}}\n' for i in range(50)).encode())
        readers = Readers(Reading(PLAIN, ()), find_sources(("memory://large",)), Store(tmp_path), actors=False)
        found = Scan(readers.outlines(), readers._store, {}).finish()
    finally:
        memory.rm("/large", recursive=True)
    assert len(readers.spans) > 4
    assert found.rows(found.units)["id"].to_pylist() == [f"{name}.jsonl#{i}" for name in "ab" for i in range(50)]
    assert not found.dropped
