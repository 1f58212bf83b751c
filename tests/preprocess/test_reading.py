"""Inputs that workers read give the same bytes as those that the driver reads, also when a reader is lost."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest
import ray
from pipelines import checksums, elsewhere

from kogpt.common.errors import UserError
from preprocess import pipeline, reading
from preprocess.cluster import connect
from preprocess.documents import Dropped, Outline, read_documents
from preprocess.filters import kept, single_filters
from preprocess.layouts import Layout, named_layout
from preprocess.options import Options
from preprocess.pipeline import preprocess
from preprocess.plan import Scan, scan
from preprocess.reading import Readers, Reading, bytes_for_workers, spans
from preprocess.sources import Source, find_sources

ANALYZER = {"name": "none"}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    ray.shutdown()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """Nine small files in three spans, with texts that are dropped; blocks and units go across them."""
    monkeypatch.setattr(reading, "SPAN_SOURCES", 3)
    for k in range(9):
        lines = [json.dumps({"text": f"{'긴 ' * (k * i % 50)}글 {k} {i % 90}\u0007"}) for i in range(100)]
        (tmp_path / f"{k}.jsonl").write_text("\n".join([*lines, "{", '{"text": ""}']))
    return find_sources((str(tmp_path),))


def plain(sources: list[Source], layout: Layout) -> Any:
    return kept(read_documents(sources, layout), single_filters(Options(input=("x",), output="y")))


def reading_of(layout: Layout) -> Reading:
    return Reading(layout, single_filters(Options(input=("x",), output="y")))


def all_texts(readers: Readers, found: Scan, at_once: int) -> list[str]:
    chunks = [found.units[i : i + at_once] for i in range(0, len(found.units), at_once)]
    return [text for parts in readers.texts(chunks) for part in parts for text in reading.fetched(part)]


def test_outlines_and_texts_are_those_that_the_driver_would_read(sources: list[Source]) -> None:
    layout = named_layout("plain")
    expected = list(plain(sources, layout))
    readers = Readers(reading_of(layout), sources)
    outlines = list(readers.outlines())
    assert len(readers.spans) == 3
    assert [article for article in outlines if isinstance(article, Dropped)] == [
        article for article in expected if isinstance(article, Dropped)
    ]
    found, alone = scan(outlines, ANALYZER), scan(expected, ANALYZER)
    assert (found.fingerprint, found.removals, found.chars) == (alone.fingerprint, alone.removals, alone.chars)
    assert [unit[:3] for unit in found.units] == [unit[:3] for unit in alone.units]
    texts = [article.text for article in expected if not isinstance(article, Dropped)]
    for at_once in (1, 4):
        assert all_texts(readers, found, at_once) == texts
    readers.close()


def test_driver_reads_on_when_a_reader_is_lost(sources: list[Source]) -> None:
    layout = named_layout("plain")
    readers = Readers(reading_of(layout), sources)
    outlines = readers.outlines()
    some = [next(outlines) for _ in range(150)]
    for actor in readers._actors:
        ray.kill(actor)
    whole = [*some, *outlines]
    assert [getattr(article, "sha256", article.id) for article in whole] == [
        getattr(article, "sha256", article.id) for article in plain(sources, layout)
    ]
    found = scan(whole, ANALYZER)
    texts = [article.text for article in plain(sources, layout) if not isinstance(article, Dropped)]
    assert all_texts(readers, found, 2) == texts


def test_a_store_that_workers_cannot_reach_is_read_by_the_driver(caplog: pytest.LogCaptureFixture) -> None:
    """As where only the driver has its credentials."""
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/reach/{k}.jsonl": json.dumps({"text": f"글 {k}"}).encode() for k in range(3)})
    try:
        sources, layout = find_sources(("memory://reach",)), named_layout("plain")
        assert bytes_for_workers(sources) >= 3 << 18, "a small object takes as long as a file of this size"
        readers = Readers(reading_of(layout), sources)
        found = scan(readers.outlines(), ANALYZER)
        assert all_texts(readers, found, 2) == ["글 0", "글 1", "글 2"]
    finally:
        memory.rm("/reach", recursive=True)
    lost = [record.getMessage() for record in caplog.records if "a reader was lost" in record.getMessage()]
    assert len(lost) == 1
    assert "(memory:///reach/2.jsonl changed while" in lost[0]


def test_readers_are_there_again_after_a_look_at_the_beginning(sources: list[Source]) -> None:
    layout = named_layout("plain")
    readers = Readers(reading_of(layout), sources)
    found = scan(islice(readers.outlines(), 700), ANALYZER)
    texts = [article.text for article in islice(plain(sources, layout), 700) if not isinstance(article, Dropped)]
    assert all_texts(readers, found, 2) == texts
    readers.close()


def test_a_mixture_of_articles_and_conversations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "물음", "answer": "답"}\n')
    readers = Readers(
        reading_of(replace(named_layout("plain"), guessed_from="b.jsonl")), find_sources((str(tmp_path),))
    )
    with pytest.raises(UserError, match=r"b\.jsonl has articles and a\.jsonl has conversations"):
        list(readers.outlines())
    readers.close()


def test_other_texts_than_before_are_noticed(sources: list[Source]) -> None:
    layout = named_layout("plain")
    readers = Readers(reading_of(layout), sources)
    found = scan([article for article in readers.outlines() if isinstance(article, Outline)], ANALYZER)
    path = Path(sources[4].paths[0])
    path.write_text(path.read_text().replace("4 7", "4 8"))
    with pytest.raises(UserError, match="the articles changed while they were read"):
        all_texts(readers, found, 2)
    path.unlink()
    with pytest.raises(UserError, match="the articles changed while they were read"):
        all_texts(readers, found, 2)
    readers.close()


@pytest.mark.parametrize("swapped", [True, False])
def test_the_driver_notices_other_texts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: bool) -> None:
    """Also where as many units come as before: their texts must not be kept as those of other units."""
    monkeypatch.setattr("preprocess.units.MAX_DOCUMENTS", 1)
    names = [tmp_path / f"{k}.txt" for k in range(6)]
    for k, name in enumerate(names):
        name.write_text(f"글 {k}. " * 2000)
    run = pipeline._Run(Options(input=(str(tmp_path),), output=str(tmp_path / "out"), analyzer="none", vocab_size=500))
    run.sources = find_sources((str(tmp_path),))
    run.layout = named_layout("plain")
    found = scan(run._articles(run.sources), ANALYZER)
    if swapped:
        first, second = names[1].read_text(), names[2].read_text()
        names[1].write_text(second)
        names[2].write_text(first)
    else:
        names[1].write_text("다른 글")
    run.identity = ANALYZER
    texts = run._texts_of(run._documents)
    with pytest.raises(UserError, match="the articles changed while they were read"):
        list(texts([found.units[i : i + 2] for i in range(0, len(found.units), 2)]))


def test_files_of_web_servers_are_for_the_driver(sources: list[Source]) -> None:
    size = sum(os.path.getsize(path) for source in sources for path in source.paths)
    assert bytes_for_workers(sources) == size
    web = find_sources(("http://127.0.0.1:9/a.jsonl",))
    assert bytes_for_workers([*sources, *web]) == 0


def test_spans_hold_some_megabytes_or_some_hundred_files(sources: list[Source], monkeypatch: Any) -> None:
    assert [len(span) for span in spans(sources)] == [3, 3, 3]
    monkeypatch.setattr(reading, "SPAN_BYTES", os.path.getsize(sources[0].paths[0]) + 1)
    assert [source for span in spans(sources) for source in span] == sources
    assert [len(span) for span in spans(sources)] == [2, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("limit", [None, 200])
def test_a_large_input_gives_the_same_bytes(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    alone = elsewhere(options, tmp_path / "alone", limit=limit)
    preprocess(alone)
    monkeypatch.setattr(pipeline, "LARGE", 0)
    monkeypatch.setattr(reading, "SPAN_SOURCES", 1)
    by_readers = elsewhere(options, tmp_path / "readers", limit=limit)
    preprocess(by_readers)
    assert checksums(by_readers) == checksums(alone)
    again = replace(by_readers, output=str(tmp_path / "again"))
    preprocess(again)
    assert checksums(again) == checksums(alone)
