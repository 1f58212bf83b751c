"""The counts, units, rows, and fingerprint of a scan, and the index of digests that finds texts which came before."""

import hashlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import articles_in, scan_of

from preprocess import outlines, scan
from preprocess.documents import Document, Dropped
from preprocess.first_places import FirstPlaces
from preprocess.layouts import named_layout
from preprocess.outlines import outlined
from preprocess.scan import Block, Scan
from preprocess.sources import find_sources
from preprocess.units import Store, group

ANALYZER = {"name": "none"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """101 articles in blocks of 16."""
    monkeypatch.setattr(outlines, "BLOCK", 16)
    folder = tmp_path / "articles"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(f'{{"text": "글 {i % 90}\\u0007"}}\n' for i in range(100)))
    (folder / "b.json").write_text("{")
    return folder


def kept(folder: Path) -> list[Document | Dropped]:
    """As one process finds them that remembers every text."""
    return list(articles_in(find_sources((str(folder),)), named_layout("plain")))


def read(folder: Path) -> list[Document | Dropped]:
    """The same with the texts that are there twice."""
    found = articles_in(find_sources((str(folder),)), named_layout("plain"))
    texts = {article.id: article for article in found if isinstance(article, Document)}
    return [
        Document(article.id, article.source, *same(texts[article.detail.removeprefix("same text as ")]))
        if isinstance(article, Dropped) and article.reason == "duplicate"
        else article
        for article in kept(folder)
    ]


def same(document: Document) -> tuple:
    return document.text, document.sha256, document.removed


def test_accounts_and_columns(folder: Path, tmp_path: Path) -> None:
    found = scan_of(read(folder), tmp_path / "o")
    assert (found.documents, found.articles_in) == (90, 101)
    assert found.reasons == {"duplicate": 10, "broken JSON": 1}
    dropped = [row for batch in found.dropped for row in batch.to_pylist()]
    assert [(row["id"], row["detail"]) for row in dropped][:10] == [
        (f"a.jsonl#{i}", f"same text as a.jsonl#{i - 90}") for i in range(90, 100)
    ]
    table = found.rows(found.units)
    assert table["id"].to_pylist() == [f"a.jsonl#{i}" for i in range(90)]
    assert table["controls"].to_pylist() == [1] * 90
    documents = [article for article in kept(folder) if isinstance(article, Document)]
    assert table["text_sha256"].to_pylist() == [document.sha256 for document in documents]
    assert [(unit.key, unit.documents) for unit in found.units] == [
        (unit.key, len(unit.documents)) for unit in group(documents, ANALYZER)
    ]
    for unit in found.units:
        assert found.rows([unit])["chars"].to_pylist() == found.sizes(unit)
    assert sum(unit.chars for unit in found.units) == found.chars == sum(table["chars"].to_pylist())


def test_fingerprint_is_that_of_version_0_1(folder: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256()
    for article in kept(folder):
        line = repr(article) if isinstance(article, Dropped) else f"{article.id} {article.source} {article.sha256}"
        digest.update(f"{line}\n".encode())
    assert scan_of(read(folder), tmp_path / "o").fingerprint == digest.hexdigest()


def test_fingerprint_sees_every_change_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return scan_of(kept(folder), tmp_path / "o").fingerprint

    first = fingerprint()
    (folder / "b.json").touch()
    assert fingerprint() == first
    seen = {first}
    for change in ('{"text": "글 0"}', '{"text": "글 00"}', "[", ""):
        (folder / "b.json").write_text(change)
        seen.add(fingerprint())
    (folder / "b.json").rename(folder / "c.json")
    seen.add(fingerprint())
    assert len(seen) == 6


@pytest.mark.parametrize("limit", [1, 16, 50, 90])
def test_limit_counts_what_is_kept(folder: Path, tmp_path: Path, limit: int) -> None:
    found = scan_of(read(folder), tmp_path / "o", limit=limit)
    assert (found.documents, found.articles_in) == (limit, limit)
    gone = {read(folder)[0].sha256: ("quality: length", "short")}
    judged = scan_of(read(folder), tmp_path / "o", limit=limit, verdicts=gone)
    assert (judged.documents, judged.reasons) == (limit - 1, {"quality: length": 1})
    assert (
        judged.rows(judged.units)["id"].to_pylist() == found.rows(found.units)["id"].to_pylist()[1:]
        if limit > 1
        else True
    )


def test_units_come_before_the_last_block(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.units.MAX_DOCUMENTS", 10)
    contents = list(outlined(read(folder)))
    store = Store(tmp_path / "o")
    for i, content in enumerate(contents):
        store.put(str(i), content)
    taken = 0

    def blocks():
        nonlocal taken
        for i in range(len(contents)):
            taken += 1
            yield Block(0, str(i))
            yield None

    found = Scan(blocks(), store, ANALYZER)
    coming = found.coming()
    assert next(coming) == []
    assert len(next(coming)) >= 1
    assert (taken, found.ended) == (1, False)
    assert next(coming) == []
    found.finish()
    assert (taken, found.ended, found.documents) == (7, True, 90)
    assert next(found.coming()) == found.units


def test_where_the_texts_are(folder: Path, tmp_path: Path) -> None:
    """Units and spans begin and end anywhere."""
    contents = list(outlined(read(folder)))
    store = Store(tmp_path / "o")
    for i, content in enumerate(contents):
        store.put(str(i), content)
    found = Scan([Block(i // 2, str(i)) for i in range(len(contents))], store, ANALYZER).finish()
    places = [(wanted.span, number) for wanted in found.wanted(found.units) for number in wanted.numbers]
    assert places == [(i // 32, i % 32) for i in range(90)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=12))
def test_first_places_are_those_of_a_dictionary(blocks: list[list[int]]) -> None:
    index, known, place = FirstPlaces(), dict[int, int](), 0
    for block in blocks:
        places = np.arange(place, place + len(block))
        content = b"".join(hashlib.sha256(bytes([text])).digest() for text in block)
        expected = [known.setdefault(text, at) for text, at in zip(block, places.tolist(), strict=True)]
        assert index.add(content, places).tolist() == expected
        place += len(block)


def test_duplicates_of_any_earlier_block_cost_no_reading_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block is read once for itself and mapped once for its ids, however many duplicates point at it."""
    monkeypatch.setattr(outlines, "BLOCK", 16)
    (tmp_path / "a.jsonl").write_text(
        "".join(f'{{"text": "글 {i if i < 320 else 37 * i % 320}"}}\n' for i in range(3200))
    )
    load, ids = Mock(side_effect=outlines.load), Mock(side_effect=outlines.mapped_ids)
    monkeypatch.setattr(scan, "load", load)
    monkeypatch.setattr(scan, "mapped_ids", ids)
    found = scan_of(read(tmp_path), tmp_path / "o")
    assert found.reasons == {"duplicate": 2880}
    assert load.call_count <= 200 + 1
    assert ids.call_count == 20
    assert str(tmp_path / "o") not in Path("/proc/self/maps").read_text(), "on NFS the folder could not be removed"
